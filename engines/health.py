"""What an engine tells of how it does: counters, its log, and settings that clients may switch.

What an engine does not tell is None: nothing here is estimated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, TypeVar

from engines.errors import EngineError, PrivilegeMissing

T = TypeVar("T")

Role = Literal["leader", "follower"]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What a server counts, at one moment."""

    counters: Mapping[str, int]
    """The engine's own, by its own names: they grow as work is done, or are levels such as connections."""
    role: Role | None = None
    lag_seconds: float | None = None
    """How far a follower is behind; None for a leader."""
    cpu_seconds: float | None = None
    """Of all the server's threads, since it started."""
    memory: int | None = None
    """Bytes that the server's process holds."""
    memory_limit: int | None = None
    """Bytes that it may hold."""
    swap: int | None = None
    """Bytes of it that are swapped out."""
    swap_limit: int | None = None
    data_size: int | None = None
    """Bytes of the deployment's logical database."""
    disk_used: int | None = None
    """Bytes used on the file system of the data."""
    disk_size: int | None = None
    """Bytes of that file system."""
    bytes_read: int | None = None
    """From disk, since the start."""
    bytes_written: int | None = None


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """One entry of a server's log: a line with those that go on from it."""

    at: datetime
    text: str
    """Without what the engine wrote of the moment; as it was logged, passwords included."""


@dataclass(frozen=True, kw_only=True)
class Switched:
    """What became of a feature."""

    name: str
    status: Literal["ACTIVATED", "PENDING", "FAILED", "REMOVED"]
    message: str


Route = Literal["logs", "metrics", "instances_status", "users", "features"]
"""The routes that ask more of the engine than its actions do, by the end of their paths."""


@dataclass(frozen=True, kw_only=True)
class Lack:
    """What a route would be refused for, or would show null for."""

    name: str
    """The privilege or the setting."""
    remedy: str
    """The exact GRANT or setting that helps."""


class Health(Protocol):
    """The engine's side of metrics, logs and features."""

    async def measures(self) -> Measures:
        """Read the counters.

        Raises: EngineUnavailable, DeadlineExceeded, PrivilegeMissing
        """
        ...

    async def role(self) -> Role | None:
        """Ask whether the server takes writes or follows one that does; None where it does not say.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        ...

    async def log(self, lines: int) -> list[LogLine]:
        """Read the last lines of the server's log, oldest first.

        Raises: Precondition, when the engine does not give its log; PrivilegeMissing, EngineUnavailable
        """
        ...

    async def lacking(self) -> Mapping[Route, list[Lack]]:
        """Tell what account and server lack for each route; a route that lacks nothing may be left out.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        ...

    async def force_ssl(self, on: bool) -> Switched:
        """Let the server refuse connections without TLS, or accept them again; read back before it answers.

        Raises: Precondition, when it cannot be set while the server runs; PrivilegeMissing, EngineUnavailable
        """
        ...


async def explained(health: Health, route: Route, work: Awaitable[T]) -> T:
    """Do what a route asks; when the engine refuses it, name the privilege and its GRANT.

    Raises: what `work` raises
    """
    try:
        return await work
    except PrivilegeMissing as refused:
        if refused.privilege is not None:
            raise
        try:
            lacks = (await health.lacking()).get(route, [])
        except EngineError:
            raise refused from None  # that it was refused is true, whatever became of the engine since
        if not lacks:
            raise
        raise PrivilegeMissing(
            " ".join(f"Missing: {each.name}. Remedy: {each.remedy}" for each in lacks),
            privilege=", ".join(each.name for each in lacks),
        ) from refused


LOG_FILE = Lack(
    name="log_file",
    remedy="name the file that the log is kept in with `log_file` at this database in dbvalet's configuration.",
)
"""For engines that give their log to nobody."""
