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
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agent.errors import SettingsError
from agent.roles import Role
from agent.settings_backups import BackupSettings, Section
from agent.settings_file import interpolated, read_yaml
from agent.settings_pitr import PitrSettings
from agent.settings_tls import TlsSettings
from agent.settings_variables import check_variables
from engines.action import texts_by_field
from engines.address import parse_address

SHORTEST_TOKEN = 16


def _like(pattern: str, text: str) -> AfterValidator:
    """Check a text against a pattern; pydantic's own message would show the pattern alone."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(text)
        return value

    return AfterValidator(check)


DatabaseId = Annotated[
    str,
    _like(r"ad-[A-Za-z0-9][A-Za-z0-9_-]{0,60}", "must be ad- and up to 61 ASCII letters, digits, _ and -"),
]
"""Clients take an id for an addon's only if it starts with `ad-`."""

Name = Annotated[str, _like(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "must be up to 64 ASCII letters, digits, ., _ and -")]

Rate = Annotated[
    str, _like(r"[1-9][0-9]{0,8}/(second|minute|hour|day)", "must be a number a second, minute, hour or day: 10/minute")
]

DEFAULT_STATE = "sqlite:///dbvalet-state.db"


def _check_listen(value: str) -> str:
    matched = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", value)
    if matched is None or int(matched[2]) > 65535:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000")
    return value


def _is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine only; a name is none but `localhost` (RFC 6761, 6.3)."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


class TokenSettings(Section):
    """A static token: its value, a file that holds it, or its SHA-256 in hex."""

    name: Name
    """Who holds it, as the log says."""
    token: SecretStr | None = None
    """Its value, at least 16 visible ASCII characters."""
    token_file: Path | None = None
    """A file that holds its value and nothing else."""
    sha256: Annotated[str, _like(r"[0-9a-fA-F]{64}", "must be 64 hex digits")] | None = None
    """The SHA-256 of its value, in hex: then the value is not here at all."""
    role: Role
    """A reader reads, an operator changes too, an admin also destroys."""
    databases: Annotated[list[str], Field(min_length=1)]
    """Database ids, or `"*"` for all."""
    allow: list[str] | None = None
    """Only these actions."""
    deny: list[str] = Field(default_factory=list[str])
    """All actions of the role but these."""
    expires_at: datetime | None = None
    """With an offset, as in 2027-01-31T00:00:00Z: from then on it is refused. Never unless given."""

    _value: SecretStr = PrivateAttr()

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if sum(value is not None for value in (self.token, self.token_file, self.sha256)) != 1:
            raise ValueError("exactly one of token, token_file and sha256 is needed")
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise ValueError("expires_at needs an offset, such as 2027-01-31T00:00:00Z")
        self._value = _secret(self.token, self.token_file)
        value = self._value.get_secret_value()
        if self.sha256 is None and len(value) < SHORTEST_TOKEN:
            raise ValueError(
                f"the token needs at least {SHORTEST_TOKEN} characters: make one with `openssl rand -hex 32`"
            )
        if re.search(r"[^!-~]", value):
            raise ValueError("the token may hold visible ASCII characters only, and no space: others are lost in HTTP")
        return self

    def secret(self) -> SecretStr:
        """Give the token's value; empty where only its SHA-256 is known."""
        return self._value


class DatabaseSettings(Section):
    """One managed deployment."""

    id: DatabaseId
    """What paths call it: `ad-` and up to 61 ASCII letters, digits, `_` and `-`."""
    app_name: Name = "app"
    """The application that it belongs to; shown, nothing more."""
    url: SecretStr | None = None
    """`postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, or mysql, mariadb, mongodb, influxdb; parts are %-encoded."""
    url_file: Path | None = None
    """A file that holds the URL and nothing else. One of `url` and `url_file` is needed."""
    application_url: SecretStr | None = None
    """The URL that applications log in with, shown by `GET /v1/apps/:app/variables` to operators and admins. Without
    it the variables say where the database is, and no account and no password."""
    application_url_file: Path | None = None
    """A file that holds that URL."""
    plan: Name = "self-hosted"
    """Shown, nothing more."""
    encryption_at_rest: bool = False
    """Shown, nothing more: dbvalet cannot see what is below the server's files."""
    created_at: datetime | None = None
    """With an offset; found once, on the server where it knows it, unless given."""
    resource_id: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """Found once, on the server where it has an identity of its own, unless given."""
    disabled_actions: list[str] = Field(default_factory=list[str])
    """Actions that nobody may use on this database."""
    log_file: Path | None = None
    """The engine's log on the machine that dbvalet runs on, mounted there read-only: its end is what `logs` shows, on
    any engine. Mount its folder, not the file alone, which would stay the old one when it is rotated. Without it the
    engine itself is asked."""
    cgroup: Path | None = None
    """The engine's control group, mounted read-only where dbvalet runs: its CPU, memory, swap and disk traffic are
    shown in `metrics`. Version 2: `/host/cgroup/system.slice/docker-ID.scope`; version 1:
    `/host/cgroup/{controller}/docker/ID`, where `{controller}` stands as it is."""
    data_disk: Path | None = None
    """A folder on the file system of the engine's data: the room on it is shown in `metrics`."""
    pitr: PitrSettings | None = None
    """How a PostgreSQL is brought back to an instant: see below. Without it there are backups, and no such recovery."""

    _address: SecretStr = PrivateAttr()
    _for_applications: SecretStr | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("exactly one of url and url_file is needed")
        self._address = _secret(self.url, self.url_file)
        if self.application_url is not None and self.application_url_file is not None:
            raise ValueError("exactly one of application_url and application_url_file is needed")
        if self.application_url is not None or self.application_url_file is not None:
            self._for_applications = _secret(self.application_url, self.application_url_file)
        if self.created_at is not None and self.created_at.tzinfo is None:
            raise ValueError("created_at needs an offset, such as 2026-01-31T08:00:00Z")
        return self

    def address(self) -> SecretStr:
        """Give the URL, password included."""
        return self._address

    def for_applications(self) -> SecretStr | None:
        """Give the URL that applications log in with; None when it is not to be shown."""
        return self._for_applications


class LimitSettings(Section):
    """Requests that one token may make, by effect: `100/second`, `10/minute`. Without a value there is no limit."""

    read: Rate | None = None
    """Actions that read, and the other routes."""
    write: Rate | None = None
    """Actions that change something."""
    destructive: Rate | None = None
    """Actions that destroy something."""


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
        Annotated[str, _like(r"https?://[^\s?#]+[^\s?#/]", "must be http(s)://HOST, without a trailing slash")] | None
    ) = None
    """How clients reach dbvalet, for the links it gives: `https://valet.example`. The host of the request unless
    given."""
    cors_origins: list[
        Annotated[str, _like(r"https?://[^\s/?#*]+", "must be http(s)://HOST, without a path and without *")]
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
        if self.tls is None and not self.insecure_listen and not _is_loopback(self.host):
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
            url = _secret(self.state, self.state_file).get_secret_value()
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


def _secret(value: SecretStr | None, file: Path | None) -> SecretStr:
    """Give a secret that stands in the configuration or in a file of its own (one final newline is not part of it)."""
    if file is None:
        return value or SecretStr("")
    try:
        return SecretStr(file.read_text("utf-8").removesuffix("\n").removesuffix("\r"))
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8"
        raise ValueError(f"the file {file} cannot be read: {reason}") from None
