"""What PostgreSQL tells of how it does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engines.errors import Precondition, PrivilegeMissing
from engines.health import Lack, LogLine, Measures, Role, Route, Switched
from engines.log_text import bytes_for, entries
from engines.postgresql.quoting import quote_identifier
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

FOLLOWS = "SELECT pg_catalog.pg_is_in_recovery() AS follower"

LOG_STATE = """
SELECT pg_catalog.current_setting('logging_collector')::bool AS collects,
       'stderr' = ANY (pg_catalog.regexp_split_to_array(
           pg_catalog.replace(pg_catalog.current_setting('log_destination'), ' ', ''), ',')) AS as_text,
       pg_catalog.current_setting('log_timezone') AS zone,
       ARRAY(SELECT needed FROM pg_catalog.unnest(%(needed)s::text[]) AS needed
              WHERE NOT pg_catalog.has_function_privilege(
                  ('pg_catalog.' || needed)::pg_catalog.regprocedure, 'EXECUTE')) AS lacking
"""

LOG_FUNCTIONS = (
    "pg_current_logfile(text)",
    "pg_ls_logdir()",
    "pg_read_binary_file(text,bigint,bigint,boolean)",
)
"""What reads the log. pg_monitor brings the first two, nothing smaller than this GRANT or superuser the third."""

END_OF_LOG = """
WITH files AS (
    SELECT pg_catalog.regexp_replace(current, '[^/]*$', '') || name AS path, size, modification,
           pg_catalog.row_number() OVER newest AS place,
           %(bytes)s - COALESCE(
               pg_catalog.sum(size) OVER (newest ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)::bigint AS room
      FROM pg_catalog.pg_current_logfile('stderr') AS current, pg_catalog.pg_ls_logdir()
     WHERE name !~ '[.](csv|json)$'
    WINDOW newest AS (ORDER BY modification DESC, name DESC)
)
SELECT pg_catalog.pg_read_binary_file(path, GREATEST(size - room, 0), room, true) AS content, size > room AS cut
  FROM files WHERE place <= 2 AND room > 0 ORDER BY place DESC
"""
"""Of the newest file and the one before it, as the collector may have begun another a moment ago. Bytes, not text:
pg_read_file refuses a part that begins within a character. A file that is removed meanwhile is NULL."""


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

    async def role(self) -> Role | None:
        """Tell whether the server is in recovery, as a standby is.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        (row,) = await self._server.read(FOLLOWS)
        return "follower" if row["follower"] else "leader"

    async def log(self, lines: int) -> list[LogLine]:
        """Read the end of what the logging collector writes.

        Raises: Precondition, without a collector; PrivilegeMissing, EngineUnavailable
        """
        (state,) = await self._server.read(LOG_STATE, {"needed": list(LOG_FUNCTIONS)})
        if lack := _log_lack(self._server, state):
            if lack.name == COLLECTOR:
                raise Precondition(COLLECTOR_REMEDY)
            raise PrivilegeMissing(f"Missing: {lack.name}. Remedy: {lack.remedy}", privilege=lack.name)
        found = await self._server.read(END_OF_LOG, {"bytes": bytes_for(lines)})
        parts = [each for each in found if each["content"] is not None]
        return entries(
            b"".join(bytes(each["content"]) for each in parts),
            cut=bool(parts and parts[0]["cut"]),
            otherwise=datetime.now(UTC),
            zone=_zone(state["zone"]),
        )[-lines:]

    async def lacking(self) -> Mapping[Route, list[Lack]]:
        """Look whether the log can be read; counters and role take no privilege.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        (state,) = await self._server.read(LOG_STATE, {"needed": list(LOG_FUNCTIONS)})
        lack = _log_lack(self._server, state)
        return {"logs": [lack]} if lack else {}

    async def force_ssl(self, on: bool) -> Switched:
        """Refuse: no setting does it.

        Raises: Precondition
        """
        raise Precondition(
            "PostgreSQL has no setting that refuses connections without TLS: pg_hba.conf decides, with `hostssl` in "
            "place of `host`, and it is not dbvalet's to edit."
        )


COLLECTOR = "logging_collector"

COLLECTOR_REMEDY = (
    "PostgreSQL writes no log file that it could be asked for. Either set logging_collector = on and log_destination = "
    "stderr, and restart it; or name the file that its log is kept in with `log_file` at this database in dbvalet's "
    "configuration."
)


def _log_lack(server: PostgresServer, state: Mapping[str, Any]) -> Lack | None:
    if not (state["collects"] and state["as_text"]):
        return Lack(name=COLLECTOR, remedy=COLLECTOR_REMEDY)
    if state["lacking"]:
        names = ", ".join(f"EXECUTE on {each}" for each in state["lacking"])
        return Lack(name=names, remedy=log_remedy(server))
    return None


def log_remedy(server: PostgresServer) -> str:
    """Say what lets an account read the log."""
    account = quote_identifier(server.address.user or "valet")
    functions = ", ".join(f"pg_catalog.{each}" for each in LOG_FUNCTIONS)
    return (
        f"as a superuser, in the database {quote_identifier(server.address.database)}: "
        f"GRANT EXECUTE ON FUNCTION {functions} TO {account}; (the last one reads every file of the data directory; "
        "`log_file` at this database in dbvalet's configuration asks for less: it takes no privilege)"
    )


def _zone(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return None
