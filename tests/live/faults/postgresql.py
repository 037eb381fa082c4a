"""PostgreSQL: its actions, as a superuser sees what they do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, LiteralString, cast

import psycopg

from engines.engine import GrantsFor
from engines.postgresql import ENGINE
from engines.postgresql.server import READERS
from tests.live.faults.case import Case, Look, until
from tests.live.faults.place import PASSWORD, Place

APPLICATION = "application"


class PostgresPlace(Place):
    """A logical database of a PostgreSQL."""

    after = 1
    most_sessions = READERS + 1
    statements: ClassVar = {
        "list-extensions": b"pg_catalog.pg_extension",
        "pg-cancel-query": b"pg_catalog.pg_cancel_backend",
        "pg-list-queries": b"AS query_duration",
        "pg-stat-statements-enable": b"CREATE EXTENSION",
        "pg-stat-statements-list": b"std_dev",
        "pg-stat-statements-reset": b"pg_stat_statements_reset",
        "pg-terminate-query": b"pg_catalog.pg_terminate_backend",
    }

    def run(self, *statements: str, database: str = "") -> list[tuple[Any, ...]]:
        """Run statements as the superuser, in the deployment's own logical database unless another is named."""
        with psycopg.connect(self.live.url(database=database or self.database), autocommit=True) as session:
            cursors = [session.execute(cast(LiteralString, each)) for each in statements]
            return cursors[-1].fetchall() if cursors[-1].description else []

    def make(self) -> None:
        self.run(
            f"CREATE DATABASE {self.database}",
            f"CREATE DATABASE {self.neighbour}",
            f"CREATE ROLE {self.someone} LOGIN PASSWORD '{PASSWORD}'",
            database="postgres",
        )
        for each in (self.database, self.neighbour):
            self.run("CREATE TABLE kept AS SELECT n FROM generate_series(1, 100) AS n", database=each)
        self.grant()

    def grant(self) -> None:
        self.run(ENGINE.grants(GrantsFor(user=self.account, database=self.database, password=PASSWORD)))

    def take_away(self) -> None:
        self.run(
            f"DROP DATABASE {self.database} WITH (FORCE)",
            f"DROP DATABASE {self.neighbour} WITH (FORCE)",
            f"DROP ROLE {self.someone}",
            f"DROP ROLE {self.account}",
            database="postgres",
        )

    @property
    def someone(self) -> str:
        """A role as an application has."""
        return f"someone_{self.account}"

    def sessions(self) -> int:
        return self._count("true")

    def at_work(self) -> int:
        return self._count("state <> 'idle'")

    def _count(self, which: str) -> int:
        activity = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{self.account}' AND {which}"
        [(number,)] = self.run(activity, database="postgres")
        return int(number)

    def kept(self) -> Any:
        names = self.run("SELECT datname FROM pg_database ORDER BY 1", database="postgres")
        rows = [
            self.run("SELECT count(*), sum(n) FROM kept", database=each) for each in (self.database, self.neighbour)
        ]
        return names, rows

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self._read_only("on")
        try:
            yield
        finally:
            self._read_only("off")

    def _read_only(self, value: str) -> None:
        self.run(f"ALTER SYSTEM SET default_transaction_read_only = {value}", "SELECT pg_reload_conf()")
        shown = "SHOW default_transaction_read_only"
        until(lambda: self.run(shown) == [(value,)])

    @contextmanager
    def revoked(self, action: str) -> Iterator[None]:
        take = {
            "pg-cancel-query": f"REVOKE pg_signal_backend, pg_read_all_stats FROM {self.account}",
            "pg-terminate-query": f"REVOKE pg_signal_backend, pg_read_all_stats FROM {self.account}",
            "pg-list-queries": f"REVOKE pg_read_all_stats FROM {self.account}",
            "pg-stat-statements-list": f"REVOKE pg_read_all_stats FROM {self.account}",
            "pg-stat-statements-reset": f"REVOKE EXECUTE ON FUNCTION pg_stat_statements_reset FROM {self.account}",
            "pg-stat-statements-enable": f"ALTER ROLE {self.account} NOSUPERUSER",
        }
        self.run(take[action])
        try:
            yield
        finally:
            if action == "pg-stat-statements-enable":
                self.run(f"ALTER ROLE {self.account} SUPERUSER")
            else:
                self.grant()


class Sleeper:
    """Somebody's session that runs a long query."""

    def __init__(self, place: PostgresPlace) -> None:
        self._place = place
        self._session: psycopg.Connection[Any] | None = None
        self._thread: threading.Thread | None = None
        self.params: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        return int(self.params["pid"])

    def run(self) -> None:
        """Run a query, unless one runs: in the session there is, or in a new one."""
        if self._session is not None and self.is_active():
            return
        if self._thread is not None:
            self._thread.join(20)
        if self._session is None or self._session.closed or not self.is_there():
            place = self._place
            url = place.live.url(place.someone, PASSWORD, place.database)
            self._session = psycopg.connect(url, autocommit=True)
            self.params["pid"] = self._session.info.backend_pid
        self._thread = threading.Thread(target=self._sleep, args=(self._session,), daemon=True)
        self._thread.start()
        until(self.is_active)

    def run_again(self) -> None:
        """Run the next query in the session, if it is still there."""
        if self.is_there():
            self.run()

    def end(self) -> None:
        someone = f"usename = '{self._place.someone}'"
        self._place.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {someone}", database="postgres")
        if self._thread is not None:
            self._thread.join(20)
        if self._session is not None:
            self._session.close()

    def is_active(self) -> bool:
        return self._found("state = 'active'")

    def is_there(self) -> bool:
        return self._found("true")

    def _found(self, which: str) -> bool:
        where = f"usename = '{self._place.someone}' AND pid = {self.pid} AND {which}"
        return bool(self._place.run(f"SELECT 1 FROM pg_stat_activity WHERE {where}", database="postgres"))

    @staticmethod
    def _sleep(session: psycopg.Connection[Any]) -> None:
        try:
            session.execute("SELECT pg_sleep(600)")
        except psycopg.Error:
            return  # it was cancelled, as it should, or went with the server


@contextmanager
def sleeping(place: PostgresPlace) -> Iterator[Sleeper]:
    sleeper = Sleeper(place)
    sleeper.run()
    try:
        yield sleeper
    finally:
        sleeper.end()


@contextmanager
def cancel(place: PostgresPlace) -> Iterator[Case]:
    with sleeping(place) as sleeper:
        left_alone = [True]

        def next_query() -> None:
            sleeper.run_again()
            left_alone[0] = sleeper.is_active()

        yield Case(
            "pg-cancel-query",
            sleeper.params,
            is_done=lambda: not sleeper.is_active(),
            prepare=sleeper.run,
            meanwhile=next_query,
            is_left_alone=lambda: sleeper.is_active() == left_alone[0],
            dies_with_the_server=True,
        )


@contextmanager
def terminate(place: PostgresPlace) -> Iterator[Case]:
    with sleeping(place) as sleeper:
        yield Case(
            "pg-terminate-query",
            sleeper.params,
            is_done=lambda: not sleeper.is_there(),
            prepare=sleeper.run,
            dies_with_the_server=True,
        )


@contextmanager
def enable(place: PostgresPlace) -> Iterator[Case]:
    drop = "DROP EXTENSION IF EXISTS pg_stat_statements"
    # Nobody else can create this extension.
    place.run(f"ALTER ROLE {place.account} SUPERUSER", drop)
    yield Case(
        "pg-stat-statements-enable",
        None,
        is_done=lambda: bool(place.run("SELECT 1 FROM pg_extension WHERE extname = 'pg_stat_statements'")),
        prepare=lambda: place.run(drop),
    )
    place.run(f"ALTER ROLE {place.account} NOSUPERUSER", drop)
    place.grant()


COUNTED = "SELECT 1 AS counted, 2 AS here"

CALLS = """
SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements
 WHERE query LIKE '%counted%' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@contextmanager
def reset(place: PostgresPlace) -> Iterator[Case]:
    def count() -> None:
        place.run(*[COUNTED] * 5)

    count()
    yield Case(
        "pg-stat-statements-reset",
        None,
        is_done=lambda: place.run(CALLS) < [(5,)],
        prepare=count,
        meanwhile=count,
        is_left_alone=lambda: place.run(CALLS) >= [(5,)],
        cannot_tell="" if place.live.version_tuple >= (17,) else "It does not say since when it counts a statement.",
    )


@contextmanager
def list_extensions(place: PostgresPlace) -> Iterator[Look]:
    def shows(result: Any) -> bool:
        found = place.run("SELECT extname, 'v' || extversion FROM pg_extension ORDER BY extname")
        return [(each["name"], each["version"]) for each in result] == found

    yield Look("list-extensions", shows)


@contextmanager
def list_queries(place: PostgresPlace) -> Iterator[Look]:
    with sleeping(place) as sleeper:

        def shows(result: Any) -> bool:
            of_someone = [each for each in result if each["username"] == place.someone]
            return [(each["pid"], each["state"]) for each in of_someone] == [(sleeper.pid, "active")]

        yield Look("pg-list-queries", shows, sleeper.run)


@contextmanager
def list_statements(place: PostgresPlace) -> Iterator[Look]:
    def shows(result: Any) -> bool:
        return [(sum(each["calls"] for each in result if "counted" in each["query"]),)] == place.run(CALLS)

    yield Look("pg-stat-statements-list", shows, lambda: place.run(COUNTED))


PostgresPlace.cases = {
    "list-extensions": list_extensions,
    "pg-cancel-query": cancel,
    "pg-list-queries": list_queries,
    "pg-stat-statements-enable": enable,
    "pg-stat-statements-list": list_statements,
    "pg-stat-statements-reset": reset,
    "pg-terminate-query": terminate,
}
