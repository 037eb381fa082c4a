"""The configuration in the reference: a table of keys for each section, from the models that read them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from typing import Any

from reference_tables import described, table, texts_of_fields, type_of

from agent.settings import DatabaseSettings, LimitSettings, Settings, TokenSettings
from agent.settings_backups import BackupSettings, KeepSettings
from agent.settings_pitr import (
    CommandsSettings,
    ControlSettings,
    DockerSettings,
    HoldFileSettings,
    PgCtlSettings,
    PitrSettings,
)
from agent.settings_tls import TlsSettings

CONFIGURATION_HEAD = """\
## Configuration

`dbvalet serve --config FILE`, a YAML file. `${VAR}` inside a value is replaced by the variable (`$${` stands for `${`),
unknown keys are refused, and a mistake ends the start with one line that names the key (`--check` only looks). A
variable wins over the file; one whose name begins with `DBVALET_` and is not known is a mistake too.
"""


def configuration() -> Iterable[str]:
    """Write a table for each section of the configuration."""
    schema = Settings.model_json_schema()
    definitions = schema["$defs"]
    yield keys(Settings, schema, definitions, variables=True)
    for name, model in (
        ("tls", TlsSettings),
        ("tokens", TokenSettings),
        ("databases", DatabaseSettings),
        ("databases.pitr", PitrSettings),
        ("databases.pitr.control", ControlSettings),
        ("databases.pitr.control.docker", DockerSettings),
        ("databases.pitr.control.commands", CommandsSettings),
        ("databases.pitr.control.pg_ctl", PgCtlSettings),
        ("databases.pitr.control.hold_file", HoldFileSettings),
        ("backups", BackupSettings),
        ("backups.keep", KeepSettings),
        ("limits", LimitSettings),
    ):
        yield f"### `{name}`\n"
        yield f"{inspect.getdoc(model)}\n"
        yield keys(model, definitions[model.__name__], definitions, variables=False)


def keys(model: type, schema: dict[str, Any], definitions: dict[str, Any], *, variables: bool) -> str:
    """Write the keys of one section."""
    texts = texts_of_fields(model)
    required = schema.get("required", [])
    rows = (
        (
            f"`{name}`",
            type_of(each, definitions).removesuffix(" or null"),
            "required" if name in required else default_of(each),
            *([f"`DBVALET_{name.upper()}`"] if variables else []),
            described(each) or texts.get(name, ""),
        )
        for name, each in schema["properties"].items()
    )
    return table(("key", "type", "default", *(["variable"] if variables else []), "description"), rows)


def default_of(schema: dict[str, Any]) -> str:
    """Write a default; nothing where a key has none."""
    default = schema.get("default")
    return "" if default in (None, [], {}) or isinstance(default, dict) else f"`{json.dumps(default).strip(chr(34))}`"
