"""What a launcher hands over: a server that answers, and who may do anything on it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.demo.processes import DemoError, NotReady, ProcessFailed

Progress = Callable[[str, str], None]
"""Takes an engine's name and a line on what it is doing or done."""

START_LIMIT_SECONDS = 60.0
INITIALISE_LIMIT_SECONDS = 120.0


class LeftOut(DemoError):
    """An engine that this machine has no way to run."""


@dataclass(frozen=True, slots=True)
class StartedEngine:
    """A running server on 127.0.0.1."""

    engine: str
    """As in the catalogue: `postgresql`, `mysql`, `mongodb`, `influxdb`."""
    version: str
    """As the server itself says it."""
    port: int
    admin_user: str
    admin_password: str = field(repr=False)
    admin_url: str = field(repr=False)
    """An account that may do everything, on the engine's administrative logical database."""
    host: str = "127.0.0.1"
    tools: Path | None = None
    """A folder of the programs that dbvalet makes backups with, for its PATH."""


def new_password() -> str:
    """Make a password of letters, digits, `-` and `_`, which needs no quoting in SQL or in an address."""
    return secrets.token_urlsafe(24)


def first_that_starts(engine: str, progress: Progress, ways: Sequence[Callable[[], StartedEngine]]) -> StartedEngine:
    """Try several servers of one engine in turn.

    The machine's own may be confined to the system's data directory (AppArmor), or lack a library.

    Raises: LeftOut, ProcessFailed, NotReady (those of the last)
    """
    *others, last = ways
    for start in others:
        try:
            return start()
        except (ProcessFailed, NotReady) as failure:
            progress(engine, f"not with the one installed: {failure}")
    return last()
