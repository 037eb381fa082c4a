"""The configuration: one typed tree of a YAML file, `DBVALET_*` variables, `${VAR}` in values and `*_file` keys.

Everything is checked here or in `create_app`, at start; a mistake is a `SettingsError` that names the key and quotes no
value, since a value may be a secret.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agent.errors import SettingsError
from agent.loopback import is_loopback
from agent.roles import Role
from agent.settings_backups import BackupSettings
from agent.settings_databases import DatabaseSettings
from agent.settings_file import interpolated, read_yaml
from agent.settings_tls import TlsSettings
from agent.settings_tokens import LimitSettings, TokenSettings
from agent.settings_values import DatabaseId, like, secret_of
from agent.settings_variables import check_variables
from engines.action import texts_by_field
from engines.address import parse_address

DEFAULT_STATE = "sqlite:///dbvalet-state.db"


def _check_listen(value: str) -> str:
    matched = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", value)
    if matched is None or int(matched[2]) > 65535:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000")
    return value


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        env_prefix="DBVALET_", extra="forbid", frozen=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    listen: Annotated[str, AfterValidator(_check_listen)] = "127.0.0.1:8000"
    """`HOST:PORT`, `[::1]:8000` with IPv6. Port 0 takes a free one; the line `listening` of the log has it."""
    insecure_listen: bool = False
    """Allow an address of `listen` beyond loopback without `tls`. Tokens and data then go over the network as plain
    text: for a private network, or behind what ends TLS, and nothing else."""
    tls: TlsSettings | None = None
    """The certificate to answer with, and whose clients to let in: see below. Without it dbvalet speaks plain HTTP."""
    state: SecretStr | None = None
    """`sqlite:////absolute/path` or `sqlite:///relative/path`, a file that is made when there is something to keep; or
    `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, which several dbvalets may share. `sqlite:///dbvalet-state.db`
    unless given."""
    state_file: Path | None = None
    """A file that holds that URL."""
    tokens: list[TokenSettings] = []
    """Who may do what: see below. An empty list leaves it to `dbvalet token create`."""
    databases: list[DatabaseSettings] = []
    """The managed deployments: see below."""
    metrics: Literal["token", "public"] = "token"
    """Whether `/metrics` takes a token that sees all databases, or none."""
    audit: Literal["changes", "none"] = "changes"
    """Whether whatever changes something is written down in the state, and refused where that cannot be."""
    limits: LimitSettings = LimitSettings()
    """How often a token may ask: see below."""
    backups: BackupSettings = BackupSettings()
    """Where backups are kept, and how many: see below."""
    public_url: (
        Annotated[str, like(r"https?://[^\s?#]+[^\s?#/]", "must be http(s)://HOST, without a trailing slash")] | None
    ) = None
    """How clients reach dbvalet, for the links it gives: `https://valet.example`. The host of the request unless
    given."""
    cors_origins: list[
        Annotated[str, like(r"https?://[^\s/?#*]+", "must be http(s)://HOST, without a path and without *")]
    ] = []
    """Web pages whose scripts may call dbvalet: `[https://console.example]`. None unless given."""
    ca_certificate: Path | None = None
    """A PEM file that `/api/ca_certificate` gives to anybody: of the CA that signed the servers' certificates."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least weighty lines of the log; each action has one of level `info`."""

    # A sidecar of one database needs no file: these stand for one entry of `databases` and one of `tokens`.
    database_url: SecretStr | None = None
    """The URL of a single database, without an entry in `databases`."""
    database_url_file: Path | None = None
    """A file that holds that URL."""
    database_id: DatabaseId = "ad-local"
    """The id of that database."""
    token: SecretStr | None = None
    """A token of role admin for every database, without an entry in `tokens`."""
    token_file: Path | None = None
    """A file that holds that token."""

    _state_url: str = PrivateAttr(default=DEFAULT_STATE)
    _every_database: list[DatabaseSettings] = PrivateAttr(default_factory=list[DatabaseSettings])
    _every_token: list[TokenSettings] = PrivateAttr(default_factory=list[TokenSettings])

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

    def state_url(self) -> str:
        """Give the URL of the state, password included."""
        return self._state_url

    def beside_state(self, name: str) -> Path:
        """Give a path in the folder of the state file; in the current folder where the state is none."""
        return Path(self._state_url.removeprefix("sqlite:///")).with_name(name) if self._in_file() else Path(name)

    def _in_file(self) -> bool:
        return self._state_url.startswith("sqlite:")

    def all_databases(self) -> list[DatabaseSettings]:
        """Give the declared databases and the one of `DBVALET_DATABASE_URL`."""
        return self._every_database

    def all_tokens(self) -> list[TokenSettings]:
        """Give the declared tokens and the one of `DBVALET_TOKEN`, an admin of every database."""
        return self._every_token

    def key_of_url(self, number: int) -> str:
        """Tell where in the configuration the URL of a database of `all_databases` stands."""
        suffix = "url" if self.all_databases()[number].url is not None else "url_file"
        return f"databases.{number}.{suffix}" if number < len(self.databases) else f"DBVALET_DATABASE_{suffix.upper()}"

    def key_of_token(self, number: int) -> str:
        """Tell where in the configuration a token of `all_tokens` stands."""
        return f"tokens.{number}" if number < len(self.tokens) else "DBVALET_TOKEN"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Put the parts together and check what concerns several of them."""
        if self.tls is None and not self.insecure_listen and not is_loopback(self.host):
            raise SettingsError(
                "listen",
                "is not loopback, and tokens would go over the network as plain text: set tls, or insecure_listen: "
                "true (DBVALET_INSECURE_LISTEN=true) in a private network or behind what ends TLS",
            )
        self._state_url = self._find_state()
        databases = self._every_database = [*self.databases, *self._single_database()]
        tokens = self._every_token = [*self.tokens, *self._single_token()]
        if not databases:
            raise SettingsError("databases", "none is declared, and DBVALET_DATABASE_URL is not set")
        if not tokens and "tokens" not in self.model_fields_set:
            raise SettingsError(
                "tokens",
                "none is declared, and DBVALET_TOKEN is not set; there is no default token. `tokens: []` leaves it to "
                "`dbvalet token create`",
            )
        ids = [database.id for database in databases]
        for key, values in (("databases", ids), ("tokens", [token.name for token in tokens])):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise SettingsError(key, f"{twice[0]} stands there twice")
        for number, token in enumerate(self.tokens):
            unknown = [database for database in token.databases if database != "*" and database not in ids]
            if unknown:
                raise SettingsError(f"tokens.{number}.databases", f"the database {unknown[0]} is not declared")
        return self

    def _find_state(self) -> str:
        if self.state is None and self.state_file is None:
            return DEFAULT_STATE
        if self.state is not None and self.state_file is not None:
            raise SettingsError("state", "exactly one of state and state_file is needed")
        key = "state" if self.state_file is None else "state_file"
        try:
            url = secret_of(self.state, self.state_file).get_secret_value()
            _check_state(url)
        except ValueError as problem:
            raise SettingsError(key, str(problem)) from None
        return url

    def _single_database(self) -> list[DatabaseSettings]:
        if self.database_url is None and self.database_url_file is None:
            return []
        _refuse_both("DBVALET_DATABASE_URL", self.database_url, self.database_url_file)
        with _mistakes_named("DBVALET_DATABASE_URL"):
            return [DatabaseSettings(id=self.database_id, url=self.database_url, url_file=self.database_url_file)]

    def _single_token(self) -> list[TokenSettings]:
        if self.token is None and self.token_file is None:
            return []
        _refuse_both("DBVALET_TOKEN", self.token, self.token_file)
        with _mistakes_named("DBVALET_TOKEN"):
            return [
                TokenSettings(
                    name="default", token=self.token, token_file=self.token_file, role=Role.ADMIN, databases=["*"]
                )
            ]


def load_settings(config: Path | None = None) -> Settings:
    """Read and check the configuration: a file, and the variables of the environment.

    Raises: SettingsError
    """
    check_variables(os.environ, Settings.model_fields)
    raw = read_yaml(config) if config else {}
    for key in raw:
        if key not in Settings.model_fields:
            raise SettingsError(key, "is not known")
    try:
        return Settings(**interpolated(raw, os.environ))
    except ValidationError as invalid:
        raise SettingsError(*_first_mistake(invalid)) from None


def _first_mistake(invalid: ValidationError) -> tuple[str, str]:
    field, texts = next(iter(texts_by_field(invalid, whole="configuration").items()))
    return field, texts[0]


@contextmanager
def _mistakes_named(variable: str) -> Generator[None]:
    try:
        yield
    except ValidationError as invalid:
        raise SettingsError(variable, _first_mistake(invalid)[1]) from None


def _refuse_both(variable: str, value: SecretStr | None, file: Path | None) -> None:
    if value is not None and file is not None:
        raise SettingsError(variable, f"exactly one of {variable} and {variable}_FILE is needed")


def _check_state(url: str) -> None:
    if url.startswith("postgresql://"):
        parse_address(url, 5432)
    elif not re.fullmatch(r"sqlite:///[^\0]+", url):
        raise ValueError(
            "must be sqlite:///FILE, with a fourth / for an absolute path, or postgresql://USER:PASSWORD@HOST/DATABASE"
        )
