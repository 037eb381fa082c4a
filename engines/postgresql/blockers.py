"""Who stands in the way of a session of dbvalet that waits for a lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from engines.errors import EngineError

if TYPE_CHECKING:
    from engines.postgresql.server import PostgresServer

BLOCKERS = """
SELECT DISTINCT waiting.state = 'active' AS is_working,
       blocking.pid,
       blocker.usename AS username,
       blocker.application_name,
       blocker.state,
       EXTRACT(epoch FROM pg_catalog.clock_timestamp() - blocker.xact_start)::bigint AS seconds
  FROM pg_catalog.pg_stat_activity AS waiting
  LEFT JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(waiting.pid)) AS blocking (pid) ON true
  LEFT JOIN pg_catalog.pg_stat_activity AS blocker ON blocker.pid = blocking.pid
 WHERE waiting.application_name = %(application_name)s
   AND waiting.usename = SESSION_USER
   AND waiting.datname = pg_catalog.current_database()
 ORDER BY blocking.pid
"""
"""A row for each session that waits and each that is in its way, if any; a prepared transaction has the pid 0."""

LOOK_SECONDS = 0.5


class Blockers:
    """Those that were in the way when the session last did anything."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def saw(self, rows: list[dict[str, Any]]) -> None:
        """Take what BLOCKERS gave. A session that is idle or gone has given up, on those that were in its way then."""
        blocking = [row for row in rows if row["pid"] is not None]
        if blocking or any(row["is_working"] for row in rows):
            self.rows = blocking

    def __str__(self) -> str:
        return "; ".join(map(_describe, self.rows))


def _describe(row: dict[str, Any]) -> str:
    if row["pid"] == 0:
        return "a prepared transaction (see pg_prepared_xacts)"
    known = [
        f"user {row['username']}" if row["username"] else "",
        row["application_name"] or "",
        row["state"] or "",
        f"in a transaction for {row['seconds']} s" if row["seconds"] is not None else "",
    ]
    return f"pid {row['pid']} ({', '.join(part for part in known if part)})"


@asynccontextmanager
async def watching(server: PostgresServer, application_name: str) -> AsyncGenerator[Blockers]:
    """Look again and again who blocks the sessions of this name, as long as the block lasts."""
    blockers = Blockers()

    async def watch() -> None:
        while True:
            # Whoever waits is told what went wrong; this only adds to it.
            with suppress(EngineError):
                blockers.saw(await server.read(BLOCKERS, {"application_name": application_name}))
            await asyncio.sleep(LOOK_SECONDS)

    watcher = asyncio.create_task(watch())
    try:
        yield blockers
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher
