"""PostgreSQL: queries seen, cancelled and terminated; extensions; statistics."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from typing import Any

import psycopg

from agent.demo.accounts import Deployment
from agent.demo.guide import Guide
from agent.demo.recovery import bring_back
from agent.demo.sessions import postgresql_address

Session = psycopg.Connection[tuple[Any, ...]]
Rows = list[dict[str, Any]]

TABLE = "CREATE TABLE orders AS SELECT generate_series(1, 20000) AS amount"
ROWS = 20_000
SLEEP = "SELECT pg_sleep(60)"
COUNT = "SELECT count(*) FROM orders WHERE amount > %s"
COUNT_IN_STATISTICS = "SELECT count(*) FROM orders WHERE amount > $1"
TIMES = 25

TOLD_SECONDS = 10.0
"""How long an application may take to notice that its query is cancelled."""


def visit(guide: Guide, deployment: Deployment) -> None:
    """Show every action on PostgreSQL.

    Raises: TourFailed
    """
    with _application(deployment) as session:
        session.execute(TABLE)
    _cancel(guide, deployment)
    _terminate(guide, deployment)
    _statistics(guide, deployment)
    bring_back(guide, deployment, content=lambda: _orders(deployment), lose=lambda: _drop(deployment))


def _orders(deployment: Deployment) -> str:
    with _application(deployment) as session:
        if session.execute("SELECT pg_catalog.to_regclass('orders')").fetchone() == (None,):
            return "no table orders"
        counted = session.execute("SELECT count(*), sum(amount) FROM orders").fetchone()
    return "{} rows, {} in all".format(*counted or ())


def _drop(deployment: Deployment) -> None:
    with _application(deployment) as session:
        session.execute("DROP TABLE orders")


def _cancel(guide: Guide, deployment: Deployment) -> None:
    with running(deployment, SLEEP) as (pid, outcome), _application(deployment, "postgres") as stranger:
        listed = guide.done_when_seen(
            "The application runs a query that takes a minute: it is in the list.",
            deployment.id,
            "pg-list-queries",
            where=lambda rows: _of(rows, pid).get("query") == SLEEP and _of(rows, pid)["state"] == "active",
        )
        guide.refused(
            "The pid of a session in another database: there is no such backend here.",
            deployment.id,
            "pg-cancel-query",
            {"pid": stranger.info.backend_pid},
            status=404,
            code="not_found",
        )
        guide.refused(
            "The right pid with another start: what was meant is gone, so nothing is signalled.",
            deployment.id,
            "pg-cancel-query",
            {"pid": pid, "backend_start": "2020-05-10T09:00:00Z"},
            status=409,
            code="conflict",
        )
        guide.check(
            not outcome.done() and stranger.execute("SELECT 1").fetchone() == (1,),
            "both sessions live, and the query still runs",
        )
        guide.done(
            "Pid and start as they were listed: the query is cancelled.",
            deployment.id,
            "pg-cancel-query",
            {"pid": pid, "backend_start": _of(listed, pid)["backend_start"]},
        )
        wait([outcome], TOLD_SECONDS)
        problem = outcome.exception() if outcome.done() else None
        guide.check(isinstance(problem, psycopg.errors.QueryCanceled), f"the application was told: {problem}")
        guide.done(
            "The query has stopped. Its session is idle, ready for the next one.",
            deployment.id,
            "pg-list-queries",
            where=lambda rows: _of(rows, pid).get("state") == "idle",
        )


def _terminate(guide: Guide, deployment: Deployment) -> None:
    with closing(psycopg.connect(postgresql_address(deployment.port, deployment.password))) as forgetful:
        forgetful.execute("DELETE FROM orders")  # which begins a transaction
        pid = forgetful.info.backend_pid
        guide.done(
            "Another session keeps a transaction open, and with it its locks.",
            deployment.id,
            "pg-list-queries",
            where=lambda rows: _of(rows, pid).get("state") == "idle in transaction",
        )
        guide.done(
            "It runs nothing that could be cancelled, so the session is ended.",
            deployment.id,
            "pg-terminate-query",
            {"pid": pid},
        )
        guide.done("The session is gone.", deployment.id, "pg-list-queries", where=lambda rows: _of(rows, pid) == {})
    with _application(deployment) as session:
        left = session.execute("SELECT count(*) FROM orders").fetchone()
    guide.check(left == (ROWS,), f"what it had not committed is rolled back: the table has its {ROWS} rows")


def _statistics(guide: Guide, deployment: Deployment) -> None:
    guide.done(
        "The extensions of the database.",
        deployment.id,
        "list-extensions",
        where=lambda rows: "pg_stat_statements" in {row["name"] for row in rows},
    )
    guide.done(
        "Statistics are enabled, as they are by the script of dbvalet grants: that is no error.",
        deployment.id,
        "pg-stat-statements-enable",
    )
    with _application(deployment) as session:
        for amount in range(TIMES):
            session.execute(COUNT, [amount])
    guide.done(
        f"Which statements took longest; the application ran one of them {TIMES} times.",
        deployment.id,
        "pg-stat-statements-list",
        where=lambda rows: [row["calls"] for row in rows if row["query"] == COUNT_IN_STATISTICS] == [TIMES],
    )
    guide.done("The statistics are reset.", deployment.id, "pg-stat-statements-reset")
    guide.done(
        "Nothing is left of that statement.",
        deployment.id,
        "pg-stat-statements-list",
        where=lambda rows: COUNT_IN_STATISTICS not in {row["query"] for row in rows},
    )


def _of(rows: Rows, pid: int) -> dict[str, Any]:
    return next((row for row in rows if row["pid"] == pid), dict[str, Any]())


@contextmanager
def _application(deployment: Deployment, database: str = "app") -> Generator[Session]:
    address = postgresql_address(deployment.port, deployment.password, database)
    with psycopg.connect(address, autocommit=True) as session:
        yield session


@contextmanager
def running(deployment: Deployment, statement: str) -> Generator[tuple[int, Future[object]]]:
    """Run a statement in a session of its own; give the session's pid and what becomes of the statement."""
    with _application(deployment) as session, ThreadPoolExecutor(1) as thread:
        outcome: Future[object] = thread.submit(session.execute, statement.encode())
        try:
            yield session.info.backend_pid, outcome
        finally:
            if not outcome.done():
                session.cancel_safe(timeout=TOLD_SECONDS)
