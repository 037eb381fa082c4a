"""What PostgreSQL tells of how it does."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from engines.errors import NotFound, Precondition
from engines.health import LogLine, Measures, Switched
from engines.postgresql.server import PostgresServer

COUNTERS = (
    "connections",
    "xact_commit",
    "xact_rollback",
    "blks_read",
    "blks_hit",
    "tup_returned",
    "tup_fetched",
    "tup_inserted",
    "tup_updated",
    "tup_deleted",
    "deadlocks",
    "temp_bytes",
)

MEASURE = """
SELECT pg_catalog.pg_is_in_recovery() AS follower,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN NULL
            WHEN pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn() THEN 0
            ELSE EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())
       END::float8 AS lag_seconds,
       pg_catalog.pg_database_size(datname)::bigint AS data_size,
       numbackends::bigint AS connections,
       xact_commit, xact_rollback, blks_read, blks_hit, tup_returned, tup_fetched,
       tup_inserted, tup_updated, tup_deleted, deadlocks, temp_bytes
  FROM pg_catalog.pg_stat_database
 WHERE datname = pg_catalog.current_database()
"""
"""https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-DATABASE-VIEW"""

LOG_FILE = "SELECT pg_catalog.pg_current_logfile('stderr') AS file"

END_OF_LOG = """
SELECT pg_catalog.pg_read_binary_file(
           %(file)s, GREATEST(size - %(bytes)s, 0), LEAST(size, %(bytes)s)) AS content
  FROM pg_catalog.pg_stat_file(%(file)s)
"""
"""Bytes, not text: pg_read_file refuses a part that begins within a character."""

LOG_BYTES = 1024 * 1024

_STAMP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d{1,6})? (UTC|GMT)\b ?")
"""What the default log_line_prefix begins with, where log_timezone is UTC."""


class PostgresHealth:
    """Counters and log of one PostgreSQL database."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    async def measures(self) -> Measures:
        """Read the counters of the deployment's database.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        (row,) = await self._server.read(MEASURE)
        return Measures(
            counters={name: row[name] for name in COUNTERS},
            role="follower" if row["follower"] else "leader",
            lag_seconds=row["lag_seconds"],
            data_size=row["data_size"],
        )

    async def log(self, lines: int) -> list[LogLine]:
        """Read the end of the file that the logging collector writes; the account needs the right to read it.

        Raises: Precondition, PrivilegeMissing, EngineUnavailable
        """
        (row,) = await self._server.read(LOG_FILE)
        if row["file"] is None:
            raise Precondition(
                "PostgreSQL writes no log file that it could be asked for: set logging_collector = on and "
                "log_destination = stderr, and restart it."
            )
        found = await self._server.read(END_OF_LOG, {"file": row["file"], "bytes": LOG_BYTES})
        if not found:
            raise NotFound("PostgreSQL has no such log file any more.")
        return dated(bytes(found[0]["content"]).decode(errors="replace"))[-lines:]

    async def force_ssl(self, on: bool) -> Switched:
        """Refuse: no setting does it.

        Raises: Precondition
        """
        raise Precondition(
            "PostgreSQL has no setting that refuses connections without TLS: pg_hba.conf decides, with `hostssl` in "
            "place of `host`, and it is not dbvalet's to edit."
        )


def dated(text: str) -> list[LogLine]:
    """Split a log into lines with their moments; one that begins with none is of the moment of the one before."""
    found: list[LogLine] = []
    at: datetime | None = None
    for line in text.splitlines():
        matched = _STAMP.match(line)
        if matched is not None:
            at = datetime.fromisoformat(matched[1] + (matched[2] or "")[:7]).replace(tzinfo=UTC)
        if at is not None and line.strip():
            found.append(LogLine(at=at, text=line[matched.end() :] if matched else line))
    return found
