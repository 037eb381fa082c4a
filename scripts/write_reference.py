"""Write docs/reference.md from the records of the actions, the causes of errors and the model of the configuration."""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import json
import re
import shlex
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from agent.api.errors import STATUS
from agent.api.openapi_actions import DRY_RUN_EXAMPLE
from agent.codes import causes, meaning
from agent.roles import needed_for
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
from engines.action import Action
from engines.engine import Engine, installed_engines
from engines.errors import default_message
from engines.preview import Affected, Preview

PLACE = Path(__file__).parents[1] / "docs" / "reference.md"

HEAD = """\
# Reference

Written by `scripts/reference` from the records of the actions, the causes of errors and the model of the configuration:
edit those, not this page. A running dbvalet tells the same of itself: `/openapi.json`, `/docs`,
`GET /api/databases/:id/actions`.

- [Performing an action](#performing-an-action)
- [Dry run](#dry-run)
- [Actions](#actions)
- [Errors](#errors)
- [Configuration](#configuration)

## Performing an action

`POST /api/databases/:id/action` with `Authorization: Bearer TOKEN` and a JSON object: `action_name`, and `params` if
the action takes any (absent, `null` and `{}` are one case). The answer is 200 and `{"ok": 1, "result": …}`, or a
status of the [error table](#errors) and `{"ok": 0, "error": "text for a person", "code": "stable_code"}`. `ok` is said
after the engine was read again. No answer takes longer than 25 seconds. In the examples the database is `ad-local`.
"""

DRY_RUN_HEAD = """\
## Dry run

With `"dry_run": true` beside `params` nothing is changed. The answer is 200 and
`{"ok": 1, "dry_run": true, "result": …}` with what the action would do now, found by the same checks; or the status,
code and text with which it would be refused. It is for whoever may do the action itself, counts as a read for the
limits, has no line in the audit, and ignores an `Idempotency-Key`. It takes 10 seconds at most, and no lock that others
wait for. What the engine finds out only on the way (a lock that is never given up, a full disk) it cannot tell. An
action that only reads, or that has no dry run, is refused with `not_supported`; a `dry_run` that is neither true nor
false with `invalid_params`. Only actions have it: a route beside them that changes something refuses it, as it does
every field that it does not know, also where it needs no body.

"""

ERRORS_HEAD = """\
## Errors

The body of a failure is `{"error": "text for a person", "code": "stable_code"}`, with `"ok": 0` on the route of
actions; 422 has `errors` besides, `{"field": ["text"]}` (the field is `params` where the whole value is wrong); 404 has
`resource`, what was not found; 429, 503 and `in_progress` come with `Retry-After`. Every answer carries `X-Request-Id`.

A request that changes something takes a header `Idempotency-Key`, a text of the client's choice, a new one for each
thing that is to be done. Sent again within a day (after a timeout, a cut connection, a crash of dbvalet), it gets the
first answer, with `Idempotent-Replayed: true`, and nothing is done twice. The same key with another request is 422;
while the first runs, 409 `in_progress`. Where nobody saw how the first one ended, or a power cut took an answer of the
last moments, dbvalet looks at the engine: what was done is answered as done, what was not is done now, and what cannot
be told is 409 `answer_unknown` and not done again.
A backup or a restore that was begun is found; of a feature, the hours and the window of a database it is seen whether
they were changed, and of a user whether there is one. No engine shows a password, nor who made a user: where there is
one by now, and after a change of its password, it cannot be told.
After a refusal that says nothing was begun (400, 401, 403, 422, 429, `overloaded`, and 404 but for what an action
itself did not find) the same key may ask again. What an engine refuses otherwise is an answer, and given again.

Test `code`, not the text: the meaning below is what a code stands for, and the text of an answer says more.
"""

CONFIGURATION_HEAD = """\
## Configuration

`dbvalet serve --config FILE`, a YAML file. `${VAR}` inside a value is replaced by the variable (`$${` stands for `${`),
unknown keys are refused, and a mistake ends the start with one line that names the key (`--check` only looks). A
variable wins over the file; one whose name begins with `DBVALET_` and is not known is a mistake too.
"""


STRINGS = {"date-time": "date and time (RFC 3339)", "password": "text, secret", "path": "path of a file"}
"""Formats of JSON Schema in words."""


def main(arguments: Sequence[str]) -> int:
    """Write the page, or with --check only compare."""
    wanted = reference(installed_engines())
    if "--check" not in arguments:
        PLACE.write_text(wanted)
        return 0
    there = PLACE.read_text() if PLACE.exists() else ""
    if there == wanted:
        return 0
    difference = difflib.unified_diff(there.splitlines(), wanted.splitlines(), "there", "wanted", lineterm="", n=1)
    print("\n".join([*difference][:40]))
    print("docs/reference.md lags: run scripts/reference", file=sys.stderr)
    return 1


def reference(engines: dict[str, Engine]) -> str:
    """Give the whole page."""
    ordered = sorted(engines.values(), key=lambda engine: engine.title.lower())
    parts = [
        HEAD,
        DRY_RUN_HEAD,
        *dry_run(),
        *actions(ordered),
        ERRORS_HEAD,
        table(
            ("status", "code", "meaning"), ((status, f"`{code}`", error_texts(code)) for code, status in STATUS.items())
        ),
        CONFIGURATION_HEAD,
        *configuration(),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def dry_run() -> Iterable[str]:
    """Write the fields of what a dry run gives, and an example."""
    schema = TypeAdapter(Preview).json_schema(mode="serialization")
    definitions = schema["$defs"]
    for model, fields in ((Preview, schema), (Affected, definitions["Affected"])):
        texts = texts_of_fields(model)
        yield table(
            ("field of the result" if model is Preview else "field of an object", "type", "description"),
            (
                (f"`{name}`", type_of(each, definitions), texts.get(name, ""))
                for name, each in fields["properties"].items()
            ),
        )
    yield f"```json\n{json.dumps(DRY_RUN_EXAMPLE, indent=2, ensure_ascii=False)}\n```\n"


def actions(engines: Iterable[Engine]) -> Iterable[str]:
    """Write the sections of all actions."""
    engines = list(engines)
    yield "## Actions\n"
    yield table(
        ("engine", "action", "effect", "role", ""),
        (
            (
                engine.title,
                f"[`{action.name}`](#{anchor(engine, action)})",
                action.effect,
                needed_for(action.effect),
                action.summary,
            )
            for engine in engines
            for action in engine.actions.values()
        ),
    )
    for engine in engines:
        yield f"### {engine.title}\n"
        for action in engine.actions.values():
            yield section(engine, action)


def anchor(engine: Engine, action: Action) -> str:
    """Give the name of a section that no other engine's action has."""
    return f"{engine.name}-{action.name}"


def section(engine: Engine, action: Action) -> str:
    """Write the section of one action."""
    documentation = inspect.getdoc(action.function) or ""
    source = re.search(r"^Source:\s*(\S+)", documentation, flags=re.MULTILINE)
    description = re.sub(r"^Source:\s*\S+$", "", action.description, flags=re.MULTILINE).strip()
    facts = [
        f"Effect: **{action.effect}**, for the role **{needed_for(action.effect)}** and above.",
        f"Deadline: {action.deadline:g} s.",
        "It has a [dry run](#dry-run)." if action.preview is not None else "",
        f"Since {engine.title} {'.'.join(map(str, action.minimum_version))}." if action.minimum_version else "",
        f"Account: {listed(action.privileges)}." if action.privileges else "",
        f"Server: {listed(action.settings)}." if action.settings else "",
        f"[The engine's manual]({source[1]})." if source else "",
    ]
    parts = [
        f'<a id="{anchor(engine, action)}"></a>\n\n#### `{action.name}` ({engine.title})\n',
        f"{action.summary}\n",
        f"{description}\n" if description else "",
        " ".join(fact for fact in facts if fact) + "\n",
        params(action),
        result(action),
        errors(action),
        examples(action),
    ]
    return "\n".join(part for part in parts if part)


def params(action: Action) -> str:
    """Write the params as a table."""
    schema = action.params.json_schema()
    definitions = schema.get("$defs", {})
    if schema.get("type") != "object":
        return f"**Params**: {type_of(schema, definitions)}, bare. {schema.get('description', '')}".rstrip() + "\n"
    properties: dict[str, Any] = schema.get("properties", {})
    if not properties:
        return "**Params**: none\n"
    required = schema.get("required", [])
    rows = (
        (f"`{name}`", type_of(each, definitions), "yes" if name in required else "no", described(each))
        for name, each in properties.items()
    )
    return "**Params**\n\n" + table(("name", "type", "required", "description"), rows)


def result(action: Action) -> str:
    """Write the result: its type, and the fields of an object as a table."""
    schema = action.result.json_schema(mode="serialization")
    definitions = schema.get("$defs", {})
    objects = resolved(schema.get("items", schema), definitions)
    text = f"**Result**: {type_of(schema, definitions)}\n"
    if objects.get("type") != "object":
        return text
    model = getattr(inspect.getmodule(action.function), objects.get("title", ""), None)
    texts = texts_of_fields(model) if inspect.isclass(model) else {}
    rows = (
        (f"`{name}`", type_of(each, definitions), described(each) or texts.get(name, ""))
        for name, each in objects.get("properties", {}).items()
    )
    return text + "\n" + table(("field", "type", "description"), rows)


def errors(action: Action) -> str:
    """Write the causes of an action's own; those of every action stand in the table of all."""
    rows = sorted((STATUS[cause.code], f"`{cause.code}`", default_message(cause)) for cause in action.raises)
    own = table(("status", "code", "when"), rows) if action.raises else ""
    return "**Errors**, beside [those of every action](#errors)" + ("\n\n" + own if own else "\n")


def examples(action: Action) -> str:
    """Write a request and its answer, for curl and for `dbvalet call`."""
    body: dict[str, Any] = {"action_name": action.name}
    words = ["dbvalet", "call", "ad-local", action.name]
    if action.takes_params:
        body["params"] = action.example_params
        words.append(
            action.example_params
            if isinstance(action.example_params, str)
            else json.dumps(action.example_params, ensure_ascii=False)
        )
    answer = json.dumps({"ok": 1, "result": action.example_result}, indent=2, ensure_ascii=False)
    return (
        "```sh\n"
        "curl -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))} \\\n"
        "  http://127.0.0.1:8000/api/databases/ad-local/action\n"
        f"{shlex.join(words)}\n"
        "```\n\n"
        f"```json\n{answer}\n```\n"
    )


def error_texts(code: str) -> str:
    """Say what a code means, and the cases of it that have a text of their own."""
    cases = [default_message(each) for each in causes().get(code, [])[1:]]
    return " ".join([meaning(code), *(f"*Or:* {case}" for case in cases)])


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


def described(schema: dict[str, Any]) -> str:
    """Give the description of a field."""
    return schema.get("description", "")


def type_of(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Write a JSON Schema in words."""
    match resolved(schema, definitions):
        case {"enum": values}:
            text = " or ".join(f"`{value}`" for value in values)
        case {"anyOf": several}:
            text = " or ".join(dict.fromkeys(type_of(each, definitions) for each in several))
        case {"type": "array", "items": items}:
            text = f"list of {plural(type_of(items, definitions))}"
        case {"type": "integer", "maximum": most, **rest}:
            text = f"integer, {rest.get('minimum', rest.get('exclusiveMinimum', -1) + 1)} to {most}"
        case {"type": "string", **rest}:
            text = STRINGS.get(rest.get("format", ""), "text")
        case {"type": kind}:
            text = "true or false" if kind == "boolean" else kind
        case _:
            text = "any value"
    return text


def plural(text: str) -> str:
    """Make the plural of a type's name."""
    return {"object": "objects", "text": "texts", "integer": "integers"}.get(text, text)


def resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference; what stands beside it stays."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return {**definitions[name], **{key: value for key, value in schema.items() if key != "$ref"}} if name else schema


def texts_of_fields(model: type) -> dict[str, str]:
    """Read the docstrings below the fields of a class; Python itself keeps none."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    statements = definition.body if isinstance(definition, ast.ClassDef) else []
    texts: dict[str, str] = {}
    for field, text in itertools.pairwise(statements):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            texts[field.target.id] = inspect.cleandoc(ast.literal_eval(text.value))
    return texts


def listed(names: Iterable[str]) -> str:
    """Write names one after the other."""
    return ", ".join(f"`{name}`" for name in names)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell(value) for value in line)} |\n" for line in lines)


def cell(value: Any) -> str:
    """Keep a text within its cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
