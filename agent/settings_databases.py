"""The part of the configuration that declares the managed deployments."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PrivateAttr, SecretStr, StringConstraints, model_validator

from agent.settings_pitr import PitrSettings
from agent.settings_values import DatabaseId, Name, Section, secret_of


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
    """The URL that applications log in with, shown by `GET /v1/apps/:app/variables` to who may `read-credentials`:
    operators and admins. Without it the variables say where the database is, and no account and no password."""
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
    backup_before_destroy: bool = False
    """Back up what `delete-database`, `reset-database`, `del-retention-policy` or a restore destroys before it does,
    whoever asks, and name the backup in the answer. Where that cannot be done nothing is destroyed."""
    concurrent: Annotated[int, Field(ge=1)] | None = None
    """Requests on this database at a time: `limits.concurrent` unless given."""
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
        self._address = secret_of(self.url, self.url_file)
        if self.application_url is not None and self.application_url_file is not None:
            raise ValueError("exactly one of application_url and application_url_file is needed")
        if self.application_url is not None or self.application_url_file is not None:
            self._for_applications = secret_of(self.application_url, self.application_url_file)
        if self.created_at is not None and self.created_at.tzinfo is None:
            raise ValueError("created_at needs an offset, such as 2026-01-31T08:00:00Z")
        return self

    def address(self) -> SecretStr:
        """Give the URL, password included."""
        return self._address

    def for_applications(self) -> SecretStr | None:
        """Give the URL that applications log in with; None when it is not to be shown."""
        return self._for_applications
