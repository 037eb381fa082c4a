"""Running queries: list them, cancel one, end its session."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from typing_extensions import TypedDict

from engines import deadline
from engines.action import Effect, Params, action
from engines.aftermath import Aftermath, Goal
from engines.errors import BackendNotFound, BackendReplaced, ConnectionLost, PrivilegeMissing, StillRunning
from engines.postgresql.query_text import mask_queries
from engines.preview import Affected, Change, Preview, preview_of

if TYPE_CHECKING:
    from engines.postgresql.server import PostgresServer

LIST_QUERIES = """
SELECT query,
       state,
       usename AS username,
       query_start,
       pid,
       CASE WHEN state IN ('active', 'fastpath function call')
            THEN (EXTRACT(epoch FROM pg_catalog.clock_timestamp() - query_start) * 1000000)::bigint * 1000
            ELSE (EXTRACT(epoch FROM state_change - query_start) * 1000000)::bigint * 1000
       END AS query_duration,
       backend_start,
       state_change,
       backend_type IS NULL AS hidden
  FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database()
   AND (backend_type = 'client backend' OR backend_type IS NULL)
   AND (application_name IN ('dbvalet', 'dbvalet backup', 'dbvalet restore')
        AND usename = SESSION_USER) IS NOT TRUE
"""
"""The hot path. Without pg_read_all_stats the type of other roles' backends is null, and so is the rest of them."""

CANCEL = """
SELECT verdict,
       backend_start,
       query_start,
       may_signal,
       pg_catalog.clock_timestamp() - backend_start AS age,
       CASE WHEN verdict = 'running' AND %(signal)s THEN pg_catalog.pg_cancel_backend(pid) END AS signalled
  FROM (SELECT activity.pid,
               activity.backend_start,
               activity.query_start,
               CASE WHEN activity.datname IS DISTINCT FROM pg_catalog.current_database() THEN 'absent'
                    WHEN activity.backend_type IS NULL THEN 'hidden'
                    WHEN activity.backend_type <> 'client backend' THEN 'absent'
                    WHEN activity.application_name IN ('dbvalet', 'dbvalet backup', 'dbvalet restore')
                         AND activity.usename = SESSION_USER THEN 'absent'
                    WHEN activity.backend_start <> %(backend_start)s THEN 'replaced'
                    WHEN activity.state LIKE 'idle%%' THEN 'idle'
                    WHEN activity.state = 'disabled'
                         AND COALESCE(activity.wait_event = 'ClientRead', activity.backend_xmin IS NULL) THEN 'idle'
                    WHEN owner.rolsuper AND NOT self.rolsuper THEN 'superuser'
                    ELSE 'running'
               END AS verdict,
               pg_catalog.pg_has_role(activity.usesysid, 'USAGE')
               OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') AS may_signal
          FROM pg_catalog.pg_stat_activity AS activity
          JOIN pg_catalog.pg_roles AS self ON self.rolname = SESSION_USER
          LEFT JOIN pg_catalog.pg_roles AS owner ON owner.oid = activity.usesysid
         WHERE activity.pid = %(pid)s) AS target
"""
"""Checks and signals in one statement, so that nothing comes between the two; without `signal` it only checks. Where
track_activities is off, the state is `disabled`: then the wait for the client tells that nothing runs; in 12 and 13,
which hide that too, that no snapshot is held."""

TERMINATE = """
SELECT verdict,
       backend_start,
       may_signal,
       pg_catalog.clock_timestamp() - backend_start AS age,
       CASE WHEN verdict = 'there' AND %(signal)s THEN pg_catalog.pg_terminate_backend(pid) END AS signalled
  FROM (SELECT activity.pid,
               activity.backend_start,
               CASE WHEN activity.datname IS DISTINCT FROM pg_catalog.current_database() THEN 'absent'
                    WHEN activity.backend_type IS NULL THEN 'hidden'
                    WHEN activity.backend_type <> 'client backend' THEN 'absent'
                    WHEN activity.application_name IN ('dbvalet', 'dbvalet backup', 'dbvalet restore')
                         AND activity.usename = SESSION_USER THEN 'absent'
                    WHEN activity.backend_start <> %(backend_start)s THEN 'replaced'
                    WHEN owner.rolsuper AND NOT self.rolsuper THEN 'superuser'
                    ELSE 'there'
               END AS verdict,
               pg_catalog.pg_has_role(activity.usesysid, 'USAGE')
               OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') AS may_signal
          FROM pg_catalog.pg_stat_activity AS activity
          JOIN pg_catalog.pg_roles AS self ON self.rolname = SESSION_USER
          LEFT JOIN pg_catalog.pg_roles AS owner ON owner.oid = activity.usesysid
         WHERE activity.pid = %(pid)s) AS target
"""

STILL_RUNS = """
SELECT backend_type IS NULL AS hidden
  FROM pg_catalog.pg_stat_activity
 WHERE pid = %(pid)s
   AND datname = pg_catalog.current_database()
   AND (backend_type IS NULL
        OR backend_start = COALESCE(%(backend_start)s, backend_start)
           AND query_start IS NOT DISTINCT FROM COALESCE(%(query_start)s, query_start)
           AND state NOT LIKE 'idle%%'
           AND (state <> 'disabled' OR COALESCE(wait_event <> 'ClientRead', backend_xmin IS NOT NULL)))
"""
"""The same query of the same backend: the next one of that session has another query_start. Here and below, one that is
hidden, pg_read_all_stats being revoked, is never taken for one that is gone."""

STILL_THERE = """
SELECT backend_type IS NULL AS hidden
  FROM pg_catalog.pg_stat_activity
 WHERE pid = %(pid)s
   AND datname = pg_catalog.current_database()
   AND (backend_type IS NULL OR backend_start = COALESCE(%(backend_start)s, backend_start))
"""

LOOK = """
SELECT backend_start::text, query_start::text, state
  FROM pg_catalog.pg_stat_activity
 WHERE pid = %(pid)s
   AND datname = pg_catalog.current_database()
   AND (backend_type IS NULL OR backend_start = COALESCE(%(backend_start)s, backend_start))
"""

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6}0*)?([Zz]|[+-]\d\d:\d\d)", flags=re.ASCII)


def instant(value: object) -> object:
    """Read an RFC 3339 date and time with an offset, exact to the microsecond (no engine has finer ones)."""
    if value is None or isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not RFC_3339.fullmatch(value):
        raise ValueError("must be an RFC 3339 date and time with an offset, to the microsecond at most")
    try:
        return datetime.fromisoformat(value.upper())
    except ValueError:
        raise ValueError("is no date and time that exists") from None


class BackendRef(Params):
    """A client session of the deployment's database."""

    pid: Annotated[int, Field(gt=0, le=2**31 - 1, description="process id, as pg-list-queries gives it")]
    backend_start: Annotated[
        datetime | None,
        BeforeValidator(instant),
        WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
        Field(description="as pg-list-queries gives it: nothing is signalled if another backend has the pid by now"),
    ] = None


class RunningQuery(TypedDict):
    """A client session and what it runs, or ran last."""

    query: str | None
    state: str | None
    username: str | None
    query_start: datetime | None
    pid: int
    query_duration: int | None
    """Nanoseconds by the server's clock: until now if it runs, else how long the last query took."""
    backend_start: datetime
    state_change: datetime | None


@action(
    "pg-list-queries",
    effect=Effect.READ,
    privileges=("pg_read_all_stats",),
    example_result=[
        {
            "query": "SELECT * FROM users",
            "state": "active",
            "username": "username_1234",
            "query_start": "2020-05-10T09:00:00Z",
            "pid": 2000,
            "query_duration": 1000000000,
            "backend_start": "2020-05-10T08:00:00Z",
            "state_change": "2020-05-10T09:00:00Z",
        }
    ],
)
async def list_queries(server: PostgresServer) -> list[RunningQuery]:
    """List running and idle queries of the database.

    Client sessions of the deployment's database, without those of dbvalet itself. `query_duration` is in nanoseconds by
    the server's clock: until now if it runs, what the last one took if the session is idle, null before the first.
    Passwords in `query` are masked: `[secret]` stands for them.

    Source: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
    """
    rows: list[Any] = await server.read(LIST_QUERIES)
    for row in rows:
        if row.pop("hidden"):
            raise PrivilegeMissing
    await mask_queries(rows)
    return rows


async def look_for_query(server: PostgresServer, params: BackendRef) -> list[str] | None:
    """Give what tells the query that a backend runs from every other; None where the server does not track it."""
    rows = await server.signalling.read(LOOK, {"pid": params.pid, "backend_start": params.backend_start})
    if any(row["state"] in (None, "disabled") for row in rows):
        return None
    return [f"{row['backend_start']} {row['query_start']}" for row in rows if not row["state"].startswith("idle")]


async def look_for_session(server: PostgresServer, params: BackendRef) -> list[str] | None:
    """Give what tells a backend from every other one of its pid; None where the account is not shown it."""
    rows = await server.signalling.read(LOOK, {"pid": params.pid, "backend_start": params.backend_start})
    if any(row["backend_start"] is None for row in rows):
        return None
    return [str(row["backend_start"]) for row in rows]


async def preview_cancel(server: PostgresServer, params: BackendRef) -> Preview:
    """Tell which query pg-cancel-query would stop.

    Raises: BackendNotFound, BackendReplaced, PrivilegeMissing
    """
    found = _checked(await server.signalling.read(CANCEL, _unsignalled(params)), params)
    keeps = [f"the session of backend {params.pid}"]
    if found["verdict"] == "idle":
        return preview_of(f"Leaves backend {params.pid} alone: it runs nothing.", keeps=keeps)
    _check_may_signal(found)
    stopped = Affected(change=Change.STOP, kind="query", name=f"backend {params.pid}")
    return preview_of(f"Asks backend {params.pid} to stop its query.", [stopped], keeps=keeps)


async def preview_terminate(server: PostgresServer, params: BackendRef) -> Preview:
    """Tell which session pg-terminate-query would end.

    Raises: BackendNotFound, BackendReplaced, PrivilegeMissing
    """
    found = _checked(await server.signalling.read(TERMINATE, _unsignalled(params)), params)
    _check_may_signal(found)
    ended = Affected(change=Change.STOP, kind="session", name=f"backend {params.pid}")
    return preview_of(
        f"Ends the session of backend {params.pid}; what it has not committed is rolled back.", [ended], sessions=1
    )


def _unsignalled(params: BackendRef) -> dict[str, Any]:
    return {"pid": params.pid, "backend_start": params.backend_start, "signal": False}


def _check_may_signal(found: dict[str, Any]) -> None:
    """Refuse what pg_cancel_backend and pg_terminate_backend would refuse.

    Raises: PrivilegeMissing
    """
    if not found["may_signal"]:
        raise PrivilegeMissing


@action(
    "pg-cancel-query",
    effect=Effect.WRITE,
    privileges=("pg_signal_backend", "pg_read_all_stats"),
    deadline=10.0,
    example_params={"pid": 2000},
    aftermath=Aftermath(look=look_for_query, goal=Goal.ENDED),
    preview=preview_cancel,
)
async def cancel_query(server: PostgresServer, params: BackendRef) -> None:
    """Ask PostgreSQL to cancel what a backend is running, and wait until it stopped.

    The session stays. A backend that runs nothing is left alone: there is nothing to stop. It is signalled once.

    Raises: BackendNotFound, BackendReplaced, StillRunning

    Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
    """
    target: dict[str, Any] = {"pid": params.pid, "backend_start": params.backend_start, "query_start": None}
    began = time.monotonic()
    try:
        rows = await server.signalling.write(CANCEL, target | {"signal": True})
    except ConnectionLost as lost:
        await _check_it_was_meant(server, CANCEL, params, began)
        await _look_whether_it_was_done(server, STILL_RUNS, target, lost)
        return
    found = _checked(rows, params)
    if found["verdict"] == "idle":
        return
    target |= {"backend_start": found["backend_start"], "query_start": found["query_start"]}
    await _wait_until_gone(server, STILL_RUNS, target)


@action(
    "pg-terminate-query",
    effect=Effect.WRITE,
    privileges=("pg_signal_backend", "pg_read_all_stats"),
    deadline=10.0,
    example_params={"pid": 2000},
    aftermath=Aftermath(look=look_for_session, goal=Goal.ENDED),
    preview=preview_terminate,
)
async def terminate_query(server: PostgresServer, params: BackendRef) -> None:
    """Force a backend to stop its query and end its session, and wait until it is gone.

    It is signalled once; what it had not committed is rolled back.

    Raises: BackendNotFound, BackendReplaced, StillRunning

    Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
    """
    target: dict[str, Any] = {"pid": params.pid, "backend_start": params.backend_start}
    began = time.monotonic()
    try:
        rows = await server.signalling.write(TERMINATE, target | {"signal": True})
    except ConnectionLost as lost:
        await _check_it_was_meant(server, TERMINATE, params, began)
        await _look_whether_it_was_done(server, STILL_THERE, target, lost)
        return
    found = _checked(rows, params)
    await _wait_until_gone(server, STILL_THERE, target | {"backend_start": found["backend_start"]})


def _checked(rows: list[dict[str, Any]], params: BackendRef) -> dict[str, Any]:
    """Give what was found of the backend, unless it was not to be signalled.

    Raises: BackendNotFound, BackendReplaced, PrivilegeMissing
    """
    found: dict[str, Any] = rows[0] if rows else {"verdict": "absent"}
    verdict = found["verdict"]
    if verdict == "absent":
        raise BackendNotFound(f"There is no client backend with the process id {params.pid} in this database.")
    if verdict == "replaced":
        raise BackendReplaced(
            f"Process id {params.pid} belongs to another backend by now, started at "
            f"{found['backend_start'].isoformat()}; nothing was signalled."
        )
    if verdict == "hidden":
        raise PrivilegeMissing
    if verdict == "superuser":
        raise PrivilegeMissing(
            f"Backend {params.pid} belongs to a superuser, and only a superuser may signal it: "
            "no GRANT changes that. Nothing was signalled.",
            privilege="SUPERUSER",
        )
    return found


async def _check_it_was_meant(server: PostgresServer, statement: str, params: BackendRef, began: float) -> None:
    """Refuse after a cut what was refused before it: a backend of elsewhere is no query that has stopped.

    One that is younger than the request has its pid from the one that was signalled.

    Raises: BackendNotFound, BackendReplaced
    """
    rows = await server.signalling.read(statement, _unsignalled(params))
    for row in rows:
        was_there = row["age"] is None or row["age"] > timedelta(seconds=time.monotonic() - began)
        if was_there and row["verdict"] in ("absent", "replaced"):
            _checked(rows, params)


async def _look_whether_it_was_done(
    server: PostgresServer, statement: str, target: dict[str, Any], lost: ConnectionLost
) -> None:
    """Give the signal, if there was one, a second to show.

    Raises: ConnectionLost
    """
    try:
        with deadline.within(1):
            await _wait_until_gone(server, statement, target)
    except StillRunning:
        raise lost from None


async def _wait_until_gone(server: PostgresServer, statement: str, target: dict[str, Any]) -> None:
    """Look until the statement finds nothing more.

    Raises: StillRunning, when it does not end, or cannot be seen any more
    """
    pause = 0.001
    while rows := await server.signalling.read(statement, target):
        if any(row["hidden"] for row in rows):
            raise StillRunning(
                f"Backend {target['pid']} was signalled once, and whether it goes on cannot be told: the engine "
                "account is not shown it any more. Missing: pg_read_all_stats."
            )
        if deadline.remaining() < 2 * pause:
            raise StillRunning(
                f"Backend {target['pid']} was signalled once and still goes on: it catches the signal, or cannot be "
                "interrupted just now."
            )
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.1)
