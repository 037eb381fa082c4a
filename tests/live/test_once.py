"""dbvalet is killed before, while and after it changes something, and the request is sent again with its key."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString, cast

import httpx
import influxdb as influxdb_driver
import psycopg
import pymongo
import pymysql
import pytest

from tests.live.admins import as_admin
from tests.live.dying import AFTER, BEFORE, DURING
from tests.live.servers import LiveServer
from tests.live.test_backup_routes import MADE, ONE, of_postgresql
from tests.unit.running import INSTALLED, TOKEN, configuration, serving

DYING = [sys.executable, "-m", "tests.live.dying"]
ROOT = Path(__file__).parents[2]


@dataclass
class Case:
    """An action, and what the server shows of it."""

    action: str
    params: Any
    is_done: Callable[[], bool]
    meanwhile: Callable[[], object] = lambda: None
    """What somebody else does once it is done, which no retry may undo …"""
    is_left_alone: Callable[[], bool] = lambda: True
    """… and whether it still stands."""
    cannot_tell: bool = False
    """Whether this server does not show whether it was done."""


def ask(url: str, case: Case) -> httpx.Response | None:
    """Send the request; None when the connection ended without an answer."""
    try:
        return httpx.post(
            f"{url}{ONE}/action",
            headers={"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": f"of {case.action}".replace(" ", "-")},
            json={"action_name": case.action, "params": case.params},
            timeout=30,
            trust_env=False,
        )
    except httpx.TransportError:
        return None


def killed_and_asked_again(case: Case, at: str, url: str, folder: Path) -> None:
    config = configuration(folder, {"id": "ad-x", "url": url})
    more = {"PYTHONPATH": f"{ROOT}:{INSTALLED}", "DIE": at}
    with serving(config, more=more, program=DYING) as running:
        assert ask(running.url, case) is None
    done = case.is_done()
    assert done == (at == AFTER) or at == DURING
    if done:
        case.meanwhile()
    with serving(config) as running:
        first, again = ask(running.url, case), ask(running.url, case)
    assert first is not None
    assert again is not None
    if case.cannot_tell:
        assert (first.status_code, first.json()["code"]) == (409, "answer_unknown")
    elif done:
        # Others have changed it since, where the server cannot tell that from what there was.
        assert first.status_code == 200 or first.json()["code"] == "answer_unknown", first.text
        assert case.is_left_alone(), first.text
    else:
        assert first.status_code == 200, first.text
        assert case.is_done()
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert ("Idempotent-Replayed" in again.headers) == (first.status_code == 200)


@contextmanager
def made(live: LiveServer) -> Iterator[str]:
    """Give the URL of a new logical database with dbvalet's account, and take it away in the end."""
    with MADE[live.engine](live, f"once_{time.time_ns()}") as (url, _):
        yield url


@contextmanager
def made_and_owned(live: LiveServer) -> Iterator[tuple[str, str]]:
    """Give a second URL too, with the role that owns the new PostgreSQL database."""
    with of_postgresql(live, f"once_{time.time_ns()}") as (url, content):
        yield url, content.url


@contextmanager
def working(url: str, query: str = "SELECT pg_sleep(60)") -> Iterator[tuple[psycopg.Connection[Any], int]]:
    """Run a query in a session of its own; give the session, with its process id, once it runs."""
    with closing(psycopg.connect(url, autocommit=True)) as session:
        thread = threading.Thread(target=swallow, args=(session, query))
        thread.start()
        until(lambda: active(url, session.info.backend_pid))
        yield session, session.info.backend_pid
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [session.info.backend_pid])
        thread.join()


def swallow(session: psycopg.Connection[Any], query: str) -> None:
    try:
        session.execute(cast(LiteralString, query))
    except psycopg.Error:
        return  # it was cancelled, as it should


def active(url: str, pid: int) -> bool:
    with psycopg.connect(url, autocommit=True) as other:
        row = other.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
    return row is not None and row[0] == "active"


def there(url: str, pid: int) -> bool:
    with psycopg.connect(url, autocommit=True) as other:
        return other.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone() is not None


def database_of(url: str) -> str:
    return url.rpartition("/")[2]


def until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


# What became of a request that was killed on the way is left to chance, and to the long run.
MOMENTS = pytest.mark.parametrize("at", [BEFORE, pytest.param(DURING, marks=pytest.mark.long), AFTER])
pytestmark = pytest.mark.newest_version


@MOMENTS
def test_a_query_is_cancelled_once(postgresql: LiveServer, tmp_path: Path, at: str) -> None:
    with made_and_owned(postgresql) as (url, owner), working(owner) as (session, pid):
        threads: list[threading.Thread] = []

        def next_query() -> None:
            threads.append(threading.Thread(target=swallow, args=(session, "SELECT pg_sleep(60)")))
            threads[0].start()
            until(lambda: active(owner, pid))

        case = Case(
            action="pg-cancel-query",
            params={"pid": pid},
            is_done=lambda: not active(owner, pid),
            meanwhile=next_query,
            is_left_alone=lambda: active(owner, pid),
        )
        killed_and_asked_again(case, at, url, tmp_path)


@MOMENTS
def test_a_session_is_ended_once(postgresql: LiveServer, tmp_path: Path, at: str) -> None:
    with made_and_owned(postgresql) as (url, owner), working(owner) as (_, pid):
        case = Case(action="pg-terminate-query", params={"pid": pid}, is_done=lambda: not there(owner, pid))
        killed_and_asked_again(case, at, url, tmp_path)


@MOMENTS
@pytest.mark.parametrize("action", ["pg-stat-statements-enable", "pg-stat-statements-reset"])
def test_statistics_are_switched_on_and_reset_once(
    postgresql: LiveServer, tmp_path: Path, at: str, action: str
) -> None:
    with made(postgresql) as url, psycopg.connect(postgresql.url(database=database_of(url)), autocommit=True) as admin:

        def has_extension() -> bool:
            return admin.execute("SELECT FROM pg_extension WHERE extname = 'pg_stat_statements'").fetchone() is not None

        def calls() -> int:
            query = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query LIKE '%counted%' "
            query += "AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
            (found,) = admin.execute(query).fetchone() or (0,)
            return int(found)

        def count() -> None:
            for _ in range(5):
                admin.execute("SELECT 1 AS counted, 2 AS here")

        if action.endswith("enable"):
            admin.execute("DROP EXTENSION pg_stat_statements")
            case = Case(action=action, params=None, is_done=has_extension)
            with as_admin("only a superuser can create pg_stat_statements"):
                killed_and_asked_again(case, at, postgresql.url(database=database_of(url)), tmp_path)
        else:
            count()
            case = Case(
                action=action,
                params=None,
                is_done=lambda: calls() < 5,
                meanwhile=count,
                is_left_alone=lambda: calls() >= 5,
                cannot_tell=postgresql.version_tuple < (17,),
            )
            killed_and_asked_again(case, at, url, tmp_path)


@contextmanager
def mysql_admin(live: LiveServer) -> Iterator[Callable[[str], list[Any]]]:
    with (
        pymysql.connect(
            host=live.host, port=live.port, user=live.admin, password=live.password, autocommit=True
        ) as connection,
        connection.cursor() as cursor,
    ):

        def run(statement: str) -> list[Any]:
            cursor.execute(statement)
            return [row[0] for row in cursor.fetchall()]

        yield run


@MOMENTS
@pytest.mark.parametrize("action", ["create-database", "delete-database", "reset-database", "set-sqlmode"])
def test_mysql_changes_once(mysql: LiveServer, tmp_path: Path, at: str, action: str) -> None:
    with made(mysql) as url, mysql_admin(mysql) as run:
        other = f"other_{time.time_ns()}"
        mode = run("SELECT @@GLOBAL.sql_mode")[0]

        def is_there() -> bool:
            return other in run("SHOW DATABASES")

        def tables() -> list[str]:
            return run(f"SHOW TABLES FROM {other}")

        def make() -> None:
            run(f"CREATE DATABASE {other}")
            run(f"CREATE TABLE {other}.since (a INT)")

        if action != "create-database":
            run(f"CREATE DATABASE {other}")
            run(f"CREATE TABLE {other}.earlier (a INT)")
        one = {"database_name": other}
        cases = {
            "create-database": Case(action=action, params=one, is_done=is_there),
            "delete-database": Case(action=action, params=one, is_done=lambda: not is_there()),
            "reset-database": Case(
                action=action,
                params=one,
                is_done=lambda: tables() == [],
                meanwhile=lambda: run(f"CREATE TABLE {other}.since (a INT)"),
                is_left_alone=lambda: tables() == ["since"],
            ),
            "set-sqlmode": Case(
                action=action,
                params="ANSI_QUOTES",
                is_done=lambda: run("SELECT @@GLOBAL.sql_mode") == ["ANSI_QUOTES"],
                meanwhile=lambda: run("SET GLOBAL sql_mode = 'NO_ZERO_DATE'"),
                is_left_alone=lambda: run("SELECT @@GLOBAL.sql_mode") == ["NO_ZERO_DATE"],
            ),
        }
        if action == "delete-database":
            cases[action].meanwhile = make
            cases[action].is_left_alone = lambda: tables() == ["since"]
        try:
            killed_and_asked_again(cases[action], at, url, tmp_path)
        finally:
            run(f"SET GLOBAL sql_mode = '{mode}'")
            run(f"DROP DATABASE IF EXISTS {other}")


@MOMENTS
@pytest.mark.parametrize("action", ["create-database", "delete-database", "reset-database"])
def test_mongodb_changes_once(mongodb: LiveServer, tmp_path: Path, at: str, action: str) -> None:
    with made(mongodb) as url, pymongo.MongoClient[dict[str, Any]](mongodb.url()) as client:
        other = f"other_{time.time_ns()}"

        def collections() -> list[str]:
            return sorted(each for each in client[other].list_collection_names() if "placeholder" not in each)

        def fill(name: str) -> None:
            client[other][name].insert_one({})

        if action != "create-database":
            fill("earlier")
        case = Case(
            action=action,
            params={"database_name": other},
            is_done=lambda: (other in client.list_database_names()) == (action == "create-database"),
        )
        if action != "create-database":
            case.meanwhile = lambda: fill("earlier")
            case.is_left_alone = lambda: collections() == ["earlier"]
        if action == "reset-database":
            case.is_done = lambda: collections() == []
        killed_and_asked_again(case, at, url, tmp_path)
        client.drop_database(other)


@MOMENTS
@pytest.mark.parametrize("action", ["add-retention-policy", "del-retention-policy"])
def test_influxdb_changes_once(influxdb: LiveServer, tmp_path: Path, at: str, action: str) -> None:
    with made(influxdb) as url:
        database = database_of(url)
        client = influxdb_driver.InfluxDBClient(
            influxdb.host, influxdb.port, influxdb.admin, influxdb.password, database
        )

        def names() -> list[str]:
            return [each["name"] for each in client.get_list_retention_policies()]

        params: dict[str, Any] = {"name": "month"}
        if action.startswith("add"):
            params["duration"] = "30d"
        else:
            client.query(f'CREATE RETENTION POLICY month ON "{database}" DURATION 30d REPLICATION 1', method="POST")
        case = Case(
            action=action, params=params, is_done=lambda: ("month" in names()) == (action == "add-retention-policy")
        )
        killed_and_asked_again(case, at, url, tmp_path)
