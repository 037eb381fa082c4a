"""Waiting until a started server has recovered, however long that takes, as long as it goes on."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from engines import deadline
from engines.backup import Progress
from engines.errors import DeadlineExceeded, EngineUnavailable, RecoveryFailed
from engines.postgresql.recovery.control import ServerControl
from engines.recovery import Standing

if TYPE_CHECKING:
    from engines.postgresql.server import PostgresServer

STILL_SECONDS = 3600.0
"""How long a recovery may show no progress: how long it takes in all, the log since the backup decides."""

LOOK_SECONDS, LATER_SECONDS = 0.2, 2.0
"""How often is looked for the end of something, at first and after `SOON_SECONDS`."""

SOON_SECONDS = 20.0

RECOVERING = """
SELECT pg_catalog.pg_is_in_recovery() AS recovering, pg_catalog.pg_last_wal_replay_lsn()::text AS replayed
"""

SEGMENT = re.compile(r"\b[0-9A-F]{24}\b")
"""The name of a segment, in whatever language the server tells that it has it from the archive."""


async def wait(
    server: PostgresServer, control: ServerControl, standing: Callable[[], Awaitable[Standing]], progress: Progress
) -> Standing:
    """Wait until a server takes writes, and tell where it stands.

    Raises: RecoveryFailed, when it ends, also when others start it again, or goes on no more
    """
    progress(0, "replaying the log")
    began_at = moved_at = time.monotonic()
    first = await control.run_id()
    place = ""
    while time.monotonic() - moved_at < STILL_SECONDS:
        if first is None or await control.run_id() != first:
            raise RecoveryFailed(f"The server ended while it recovered: {fatal(await control.failure_log())}")
        now_at = await _replayed(server, control, progress)
        if now_at is None:
            found = await standing()
            if await control.run_id() == first:
                return found
        elif now_at and now_at != place:
            place, moved_at = now_at, time.monotonic()
        await asyncio.sleep(LOOK_SECONDS if time.monotonic() - began_at < SOON_SECONDS else LATER_SECONDS)
    raise RecoveryFailed(
        f"The server still recovers, and has not gone on for {STILL_SECONDS / 60:g} min: it is at {place or '?'}."
    )


async def _replayed(server: PostgresServer, control: ServerControl, progress: Progress) -> str | None:
    """Tell up to where a server has replayed; None once it has recovered.

    It does not answer before it is consistent: then its log has the last segment that it took, if it can be read;
    and a person sees why it does not, as it may refuse an account of then.
    """
    why = ""
    try:
        with deadline.within(5):
            rows: list[dict[str, Any]] = await server.read(RECOVERING)
        if not rows[0]["recovering"]:
            return None
        if place := rows[0]["replayed"]:
            progress(0, f"replaying the log, at {place}")
            return place
    except EngineUnavailable as problem:
        why = f" ({problem.message})"
    except DeadlineExceeded:
        pass
    taken = SEGMENT.findall(await control.failure_log())
    place = taken[-1] if taken else ""
    progress(0, f"replaying the log{', at ' if place else ''}{place}{why}")
    return place


def fatal(log: str) -> str:
    """Find in a server's log why it ended."""
    lines = [line.strip() for line in log.splitlines() if "FATAL:" in line or "PANIC:" in line]
    # Those who knock meanwhile are refused with a FATAL of their own.
    lines = [line for line in lines if "the database system is" not in line] or lines
    return lines[-1] if lines else "its log does not say why"
