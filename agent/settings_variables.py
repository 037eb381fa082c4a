"""The variables of the environment that are dbvalet's: a misspelt one must not be overlooked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import orjson

from agent.errors import SettingsError

OF_CLIENTS = {"DBVALET_URL", "DBVALET_CA_FILE", "DBVALET_CLIENT_CERTIFICATE", "DBVALET_CLIENT_KEY"}
"""What only `dbvalet call`, `backups` and the health check read: a shell may use both them and `dbvalet serve`."""

_AS_JSON = {"tls", "tokens", "databases", "limits", "backups", "cors_origins"}

_OF_KUBERNETES = re.compile(
    r"DBVALET_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)"
)
"""What Kubernetes sets for a Service that is named `dbvalet` or `dbvalet-something`."""


def check_variables(environ: Mapping[str, str], keys: Collection[str]) -> None:
    """Refuse a variable that stands for no key of the configuration.

    Raises: SettingsError
    """
    for name, value in environ.items():
        if not name.upper().startswith("DBVALET_") or name in OF_CLIENTS:
            continue
        key = name.upper().removeprefix("DBVALET_").lower()
        if key in keys:
            if key in _AS_JSON and value and not _is_json(value):
                raise SettingsError(name, "must be JSON")
        elif _OF_KUBERNETES.fullmatch(name) is None or (name == "DBVALET_PORT" and "://" not in value):
            raise SettingsError(name, "is not known; a variable is named like the key: DBVALET_LISTEN")


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
