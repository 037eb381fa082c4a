"""The part of the configuration that sets point-in-time recovery up: the archive, and who controls the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from agent.settings_values import Section
from engines.recovery import (
    CommandsControl,
    Control,
    DockerControl,
    HoldFileControl,
    PgCtlControl,
    RecoverySettings,
)

Word = Annotated[str, StringConstraints(min_length=1)]
Argv = Annotated[list[Word], Field(min_length=1)]


class DockerSettings(Section):
    """The server is the first process of one container."""

    container: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$")]
    """Its name; no other container is ever touched."""
    socket: Annotated[str, StringConstraints(pattern=r"^(unix:///.|https?://.)")] = "unix:///var/run/docker.sock"
    """Of the Docker engine, or `http://HOST:PORT` of a proxy before it that lets little more through."""


class CommandsSettings(Section):
    """Programs of yours, as lists of arguments: no shell reads them."""

    stop: Argv
    """Ends when the server has shut down in order: `[pg_ctlcluster, "15", main, stop, -m, fast]`."""
    start: Argv
    """May end at once; need not wait for recovery."""
    status: Argv
    """Ends with 0 while the server runs, otherwise with another code."""
    log: Path | None = None
    """The server's log: from it the cause of a failed start is told."""


class PgCtlSettings(Section):
    """The server's own pg_ctl."""

    program: Path
    """`/usr/lib/postgresql/15/bin/pg_ctl`."""
    data: Path
    """The data directory."""
    log: Path
    """Where the server writes that it starts."""
    run_as: Word | None = None
    """The user who owns the data, when dbvalet runs as root."""
    options: list[Word] = Field(default_factory=list[Word])
    """Of the server, as `pg_ctl -o` takes them."""


class HoldFileSettings(Section):
    """The entrypoint of the server's container waits as long as a file exists, and both containers share processes."""

    path: Path
    """The file, on a volume of both containers."""
    data: Path
    """The data directory: its postmaster.pid names the process that is asked to stop."""
    log: Path | None = None
    """The server's log: from it the cause of a failed start is told."""


class ControlSettings(Section):
    """Who stops and starts the server: exactly one of these."""

    docker: DockerSettings | None = None
    """A container, through the Docker engine."""
    commands: CommandsSettings | None = None
    """Programs of yours."""
    pg_ctl: PgCtlSettings | None = None
    """The server's own, beside dbvalet."""
    hold_file: HoldFileSettings | None = None
    """For Kubernetes, where nobody can stop one container of a pod for long."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(getattr(self, name) is not None for name in type(self).model_fields) != 1:
            raise ValueError("exactly one of docker, commands, pg_ctl and hold_file is needed")
        return self

    def chosen(self) -> Control:
        """Give it as engines know it."""
        if self.docker is not None:
            return DockerControl(container=self.docker.container, socket=self.docker.socket)
        if self.commands is not None:
            given = self.commands
            return CommandsControl(stop=given.stop, start=given.start, status=given.status, log=given.log)
        if self.pg_ctl is not None:
            own = self.pg_ctl
            return PgCtlControl(
                program=own.program, data=own.data, log=own.log, run_as=own.run_as, options=tuple(own.options)
            )
        if self.hold_file is None:
            raise AssertionError("one of four")
        return HoldFileControl(path=self.hold_file.path, data=self.hold_file.data, log=self.hold_file.log)


class PitrSettings(Section):
    """How a PostgreSQL is brought back to an instant: its pgBackRest archive, and who stops and starts it."""

    stanza: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    """What pgBackRest calls this server."""
    program: Argv = Field(default_factory=lambda: ["pgbackrest"])
    """How pgBackRest is called where the data directory is: `[docker, exec, -u, postgres, pg, pgbackrest]`. There must
    be `sh` and `flock` there too."""
    config: Path | None = None
    """Its configuration file, unless it is the usual one."""
    control: ControlSettings
    """Who stops and starts the server: see below."""
    archive_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """How long the archive may take to receive the last segment before anything is stopped."""
    stop_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """How long a clean shutdown may take."""

    def recovery_settings(self) -> RecoverySettings:
        """Give them as engines know them."""
        return RecoverySettings(
            stanza=self.stanza,
            program=tuple(self.program),
            config=self.config,
            control=self.control.chosen(),
            archive_seconds=self.archive_seconds,
            stop_seconds=self.stop_seconds,
        )
