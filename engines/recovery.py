"""What an engine offers for bringing a whole cluster back to an instant, and what is known of its past.

Instants are times with an offset; log sequence numbers are written as the engine writes them, `0/3000148`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from engines.backup import Progress


@dataclass(frozen=True, kw_only=True)
class DockerControl:
    """The server is the first process of one container."""

    container: str
    """Its name or id; no other is ever touched."""
    socket: str = "unix:///var/run/docker.sock"
    """Of the Docker engine, or `http://host:port` of a proxy before it."""


@dataclass(frozen=True, kw_only=True)
class CommandsControl:
    """Programs of the user's stop and start the server: argument lists, no shell."""

    stop: Sequence[str]
    """Ends when the server has shut down in order."""
    start: Sequence[str]
    """May end at once; need not wait for recovery."""
    status: Sequence[str]
    """Ends with 0 while the server runs, otherwise with another code."""
    log: Path | None = None
    """The server's log, from which the cause of a failed start is told."""


@dataclass(frozen=True, kw_only=True)
class PgCtlControl:
    """The server's own pg_ctl, beside dbvalet."""

    program: Path
    data: Path
    log: Path
    """Where the server that is started writes."""
    run_as: str | None = None
    """The user who owns the data, when dbvalet runs as root."""
    options: Sequence[str] = ()
    """Of the server, as `-o` takes them."""


@dataclass(frozen=True, kw_only=True)
class HoldFileControl:
    """The entrypoint of the server's container waits as long as a file exists, and the processes are shared."""

    path: Path
    data: Path
    """Where postmaster.pid is: the process that is signalled."""
    log: Path | None = None


Control = DockerControl | CommandsControl | PgCtlControl | HoldFileControl


@dataclass(frozen=True, kw_only=True)
class RecoverySettings:
    """How the archive is reached and who stops and starts the server."""

    stanza: str
    control: Control | None
    program: Sequence[str] = ("pgbackrest",)
    config: Path | None = None
    archive_seconds: float = 60.0
    """How long the archive may take to receive a segment that is waited for."""
    stop_seconds: float = 120.0
    """How long a clean shutdown may take."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """One line of a cluster's history; it was the live one during [began_at, ended_at)."""

    number: int
    parent: int | None
    forked_at_lsn: str | None
    """Where it left its parent; of another's history it holds what is before."""
    began_at: datetime
    ended_at: datetime | None
    """None as long as it is live."""


@dataclass(frozen=True, kw_only=True)
class BackupSet:
    """One physical backup in the repository."""

    label: str
    kind: Literal["full", "diff", "incr"]
    stopped_at: datetime
    """Whole seconds; an instant must be later than this to be recovered from it."""
    timeline: int
    stop_lsn: str
    size: int
    """Bytes that it takes in the repository."""
    usable: bool
    """False when its pages were found damaged, or it was made offline and has no place in the log."""


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A commit that dbvalet made itself, so that an instant before it can be recovered on an idle server."""

    committed_at: datetime
    timeline: int
    lsn: str
    archived: bool


@dataclass(frozen=True, kw_only=True)
class Target:
    """An instant, and the set and the timeline by which it is reached."""

    at: datetime
    label: str
    timeline: int


@dataclass(frozen=True, kw_only=True)
class Undo:
    """The last archived state of a timeline, from a set."""

    label: str
    timeline: int
    older: Sequence[str] = ()
    """Labels of other sets that lead there too, newest first, should that one turn out to be damaged."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the live cluster is."""

    system_identifier: str
    timeline: int


@dataclass(frozen=True, kw_only=True)
class Window:
    """What can be recovered: every instant from `earliest` to `latest`, both included; None: nothing."""

    earliest: datetime | None
    latest: datetime | None


class Recovery(Protocol):
    """Recovery of one cluster. Made from a Server and RecoverySettings; touches nothing when made."""

    async def missing(self) -> list[str]:
        """Tell what is not set up, each with its remedy; empty when ready. Raises: EngineUnavailable."""
        ...

    async def standing(self) -> Standing:
        """Ask the live cluster what it is. Raises: EngineUnavailable, PrivilegeMissing."""
        ...

    async def sets(self) -> list[BackupSet]:
        """List the backups of this cluster, oldest first. Raises: BackupDamaged (the repository), BackupFailed."""
        ...

    async def window(self, timelines: Sequence[Timeline], markers: Sequence[Marker]) -> Window:
        """Tell what can be recovered now: to now where the archive takes segments, else to the last archived marker.

        Raises: BackupDamaged, BackupFailed
        """
        ...

    async def choose(self, at: datetime, timelines: Sequence[Timeline], markers: Sequence[Marker]) -> Target:
        """Choose set and timeline for an instant; touches nothing.

        Raises: OutsideWindow, stating the window; BackupDamaged, BackupFailed, EngineUnavailable
        """
        ...

    async def choose_undo(self, timeline: int, timelines: Sequence[Timeline]) -> Undo:
        """Choose the set from which the last state of a timeline comes back. Raises: Precondition when none does."""
        ...

    async def mark(self) -> Marker:
        """Commit, switch the segment and wait until the archive has it.

        Raises: Precondition when the archive does not take it, EngineUnavailable, PrivilegeMissing
        """
        ...

    async def commit(self, last: Marker | None) -> Marker | None:
        """Commit a marker without a switch; None when nothing was written since the last one.

        Raises: EngineUnavailable
        """
        ...

    async def archived(self, markers: Sequence[Marker]) -> list[Marker]:
        """Give markers as they stand in the archive now. Raises: EngineUnavailable."""
        ...

    async def last_segment(self) -> str:
        """Name the part of the log that is being written; a clean stop archives it. Raises: EngineUnavailable."""
        ...

    async def holds(self, segment: str) -> bool:
        """Tell whether the archive has a part of the log, also while the server is down. Raises: BackupFailed."""
        ...

    async def is_running(self) -> bool:
        """Ask whoever controls the server. Raises: RecoveryFailed."""
        ...

    async def stop(self) -> None:
        """Shut the server down in order; it is down when this returns. Raises: RecoveryFailed."""
        ...

    async def restore(self, target: Target | Undo, progress: Progress) -> None:
        """Bring the files of the stopped server back. Repeat it after a crash: the server cannot start half restored.

        Raises: RecoveryFailed, RecoveryRefused when nothing was changed
        """
        ...

    async def start(self) -> None:
        """Start the server; does not wait for its recovery. Does nothing to one that runs. Raises: RecoveryFailed."""
        ...

    async def wait_promoted(self, progress: Progress) -> Standing:
        """Wait until the server is past its recovery, and still runs. Raises: RecoveryFailed with its FATAL."""
        ...

    async def fork_of(self, standing: Standing, timelines: Sequence[Timeline] = ()) -> Timeline:
        """Tell where the live timeline left its parent; `began_at` is now, unless `timelines` know it already.

        Raises: EngineUnavailable, BackupFailed
        """
        ...

    async def full_backup(self, progress: Progress) -> None:
        """Make a full physical backup; older ones leave by the repository's own retention.

        Raises: BackupFailed, Conflict when another is being made
        """
        ...
