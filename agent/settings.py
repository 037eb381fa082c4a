"""The configuration: one typed tree of a YAML file, `DBVALET_*` variables, `${VAR}` in values and `*_file` keys.

Everything is checked here or in `create_app`, at start; a mistake is a `SettingsError` that names the key and quotes no
value, since a value may be a secret.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agent.errors import SettingsError
from agent.roles import Role
from engines.action import texts_by_field

SHORTEST_TOKEN = 16

CLIENT_URL = "DBVALET_URL"
"""The one variable that `dbvalet call` alone reads: a shell may use both it and `dbvalet serve`."""

DatabaseId = Annotated[str, StringConstraints(pattern=r"^ad-[A-Za-z0-9][A-Za-z0-9_-]{0,60}$")]
"""Clients take an id for an addon's only if it starts with `ad-`."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

Rate = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*/(second|minute|hour|day)$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TokenSettings(_Section):
    """A static token: its value, a file that holds it, or its SHA-256 in hex."""

    name: Name
    token: SecretStr | None = None
    token_file: Path | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    role: Role
    databases: Annotated[list[str], Field(min_length=1)]
    """Database ids, or `"*"` for all."""
    allow: list[str] | None = None
    """Only these actions."""
    deny: list[str] = []
    """All actions of the role but these."""

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if sum(value is not None for value in (self.token, self.token_file, self.sha256)) != 1:
            raise ValueError("exactly one of token, token_file and sha256 is needed")
        if self.sha256 is None and len(self.secret().get_secret_value()) < SHORTEST_TOKEN:
            raise ValueError(
                f"the token needs at least {SHORTEST_TOKEN} characters: make one with `openssl rand -hex 32`"
            )
        return self

    def secret(self) -> SecretStr:
        """Give the token's value."""
        return _secret(self.token, self.token_file)


class DatabaseSettings(_Section):
    """One managed deployment."""

    id: DatabaseId
    app_name: Name = "app"
    url: SecretStr | None = None
    url_file: Path | None = None
    plan: Name = "self-hosted"
    encryption_at_rest: bool = False
    created_at: datetime | None = None
    resource_id: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    disabled_actions: list[str] = []
    """Actions that nobody may use on this database."""

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("exactly one of url and url_file is needed")
        _secret(self.url, self.url_file)
        if self.created_at is not None and self.created_at.tzinfo is None:
            raise ValueError("created_at needs an offset, such as 2026-01-31T08:00:00Z")
        return self

    def address(self) -> SecretStr:
        """Give the URL, password included."""
        return _secret(self.url, self.url_file)


class LimitSettings(_Section):
    """Requests that one token may make, by effect: `100/second`, `10/minute`. Without a value there is no limit."""

    read: Rate | None = None
    write: Rate | None = None
    destructive: Rate | None = None


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        env_prefix="DBVALET_", extra="forbid", frozen=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    listen: Annotated[str, StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$")] = (
        "127.0.0.1:8000"
    )
    state: Annotated[str, StringConstraints(pattern=r"^sqlite:///.+$")] = "sqlite:///dbvalet-state.db"
    """`sqlite:////absolute/path` or `sqlite:///relative/path`; the file is made when there is something to keep."""
    tokens: list[TokenSettings] = []
    databases: list[DatabaseSettings] = []
    metrics: Literal["token", "public"] = "token"
    limits: LimitSettings = LimitSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    # A sidecar of one database needs no file: these stand for one entry of `databases` and one of `tokens`.
    database_url: SecretStr | None = None
    database_url_file: Path | None = None
    database_id: DatabaseId = "ad-local"
    token: SecretStr | None = None
    token_file: Path | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let a variable win over the file: it is what a container's operator sets last."""
        return env_settings, init_settings

    @property
    def host(self) -> str:
        """Where to listen, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Where to listen; 0 takes a free port."""
        return int(self.listen.rpartition(":")[2])

    def all_databases(self) -> list[DatabaseSettings]:
        """Give the declared databases and the one of `DBVALET_DATABASE_URL`."""
        if self.database_url is None and self.database_url_file is None:
            return self.databases
        single = DatabaseSettings(id=self.database_id, url=self.database_url, url_file=self.database_url_file)
        return [*self.databases, single]

    def all_tokens(self) -> list[TokenSettings]:
        """Give the declared tokens and the one of `DBVALET_TOKEN`, an admin of every database."""
        if self.token is None and self.token_file is None:
            return self.tokens
        single = TokenSettings(
            name="default", token=self.token, token_file=self.token_file, role=Role.ADMIN, databases=["*"]
        )
        return [*self.tokens, single]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not 0 <= self.port < 65536:
            raise ValueError("listen: a port lies between 0 and 65535")
        ids = [database.id for database in self.all_databases()]
        names = [token.name for token in self.all_tokens()]
        if not ids:
            raise ValueError("databases: none is declared, and DBVALET_DATABASE_URL is not set")
        if not names:
            raise ValueError("tokens: none is declared, and DBVALET_TOKEN is not set; there is no default token")
        for key, values in (("databases", ids), ("tokens", names)):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise ValueError(f"{key}: {twice[0]} stands there twice")
        for token in self.all_tokens():
            unknown = [database for database in token.databases if database != "*" and database not in ids]
            if unknown:
                raise ValueError(f"tokens: {token.name} names the database {unknown[0]}, which is not declared")
        return self


def load_settings(config: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and check the configuration.

    Raises: SettingsError
    """
    _refuse_unknown_variables(environ)
    raw = _read_yaml(config) if config else {}
    try:
        return Settings(**_interpolated(raw, environ, ""))
    except ValidationError as invalid:
        field, texts = next(iter(texts_by_field(invalid, whole="configuration").items()))
        raise SettingsError(field, texts[0]) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        loaded: Any = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe loaders both
    except OSError as problem:
        raise SettingsError("--config", f"{path} cannot be read: {problem.strerror}") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise SettingsError("--config", f"{path} is not YAML{where}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError("--config", f"{path} must hold keys and values")
    return {str(key): value for key, value in cast(dict[Any, Any], loaded).items()}


def _interpolated(value: Any, environ: Mapping[str, str], key: str) -> Any:
    """Put variables in place of `${VAR}`; `$${` stands for `${` itself."""
    if isinstance(value, dict):
        items = cast(dict[Any, Any], value)
        return {k: _interpolated(v, environ, f"{key}.{k}".lstrip(".")) for k, v in items.items()}
    if isinstance(value, list):
        elements = cast(list[Any], value)
        return [_interpolated(v, environ, f"{key}.{n}") for n, v in enumerate(elements)]
    if not isinstance(value, str):
        return value

    def put(match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        if match[1] not in environ:
            raise SettingsError(key, f"the variable {match[1]} is not set")
        return environ[match[1]]

    return re.sub(r"\$?\$\{([A-Za-z_][A-Za-z0-9_]*)\}", put, value)


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    """A misspelt variable must not be overlooked. Kubernetes sets some of its own for a Service named dbvalet."""
    for name in environ:
        if not name.startswith("DBVALET_") or name == CLIENT_URL or re.match(r"DBVALET_(SERVICE_|PORT($|_))", name):
            continue
        if name.removeprefix("DBVALET_").lower() not in Settings.model_fields:
            raise SettingsError(name, "is not known; a variable is named like the key: DBVALET_LISTEN")


def _secret(value: SecretStr | None, file: Path | None) -> SecretStr:
    """Give a secret that stands in the configuration or in a file of its own (one final newline is not part of it)."""
    if file is None:
        return value or SecretStr("")
    try:
        return SecretStr(file.read_text().removesuffix("\n").removesuffix("\r"))
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8"
        raise ValueError(f"the file {file} cannot be read: {reason}") from None
