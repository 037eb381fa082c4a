"""`dbvalet serve` and `dbvalet call` as processes, on live servers; effects are looked up through the bare driver."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import influxdb as influxdb_driver
import psycopg
import pymongo
import pymysql
import pytest

from tests.live.accounts import account_on
from tests.live.servers import LiveServer
from tests.live.test_backup_routes import of_postgresql
from tests.unit.running import TOKEN, configuration, run, serving

LIMIT = 20


@contextmanager
def calling(folder: Path, live: LiveServer, url: str | None = None) -> Iterator[Callable[..., str]]:
    """Serve one database; give what runs `dbvalet call ad-x …`, which must succeed, and gives its output."""
    token = folder / "token"
    token.write_text(f"{TOKEN}\n")
    with serving(configuration(folder, {"id": "ad-x", "url": url or account_on(live)})) as running:

        def call(*words: str, code: int = 0) -> str:
            variables = {"DBVALET_URL": running.url, "DBVALET_TOKEN_FILE": str(token)}
            ended = run("call", "ad-x", *words, more=variables)
            assert ended.returncode == code, ended.stdout + ended.stderr
            assert TOKEN not in ended.stdout + ended.stderr
            return ended.stdout + ended.stderr

        yield call


def until(what: Callable[[], bool], text: str) -> None:
    ends_at = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < ends_at, text
        time.sleep(0.02)


def test_a_query_is_seen_cancelled_and_gone(postgresql: LiveServer, tmp_path: Path) -> None:
    marker = f"SELECT pg_sleep(60) /* cli {time.time_ns()} */"
    with (
        of_postgresql(postgresql, f"cli_{time.time_ns()}") as (url, content),
        calling(tmp_path, postgresql, url) as call,
        psycopg.connect(content.url, autocommit=True) as victim,
    ):
        pid = victim.info.backend_pid
        ended: list[BaseException] = []

        def sleep() -> None:
            try:
                victim.execute(marker.encode())
            except psycopg.Error as problem:
                ended.append(problem)

        thread = threading.Thread(target=sleep)
        thread.start()
        until(lambda: marker in call("pg-list-queries"), "the query is not listed")
        table = call("pg-list-queries")
        (row,) = [line for line in table.splitlines() if line.startswith(marker)]
        assert f"  {pid}  " in row
        assert "  active  " in row
        assert call("pg-cancel-query", f"pid={pid}") == "ok\n"
        thread.join(timeout=LIMIT)
        assert [type(problem) for problem in ended] == [psycopg.errors.QueryCanceled]
        listed: dict[str, Any] = json.loads(call("pg-list-queries", "--json"))
        (mine,) = [each for each in listed["result"] if each["pid"] == pid]
        assert mine["state"] == "idle"
        refusal = call("pg-cancel-query", '{"pid": 2147483647}', code=1)
        assert "not_found (404)" in refusal


def test_logical_databases_and_the_sql_mode_on_mysql(mysql: LiveServer, tmp_path: Path) -> None:
    name = f"cli_{time.time_ns()}"
    with (
        calling(tmp_path, mysql) as call,
        pymysql.connect(
            host=mysql.host, port=mysql.port, user=mysql.admin, password=mysql.password, autocommit=True
        ) as connection,
    ):
        cursor = connection.cursor()

        def there() -> bool:
            cursor.execute("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = %s", (name,))
            row = cursor.fetchone()
            return row is not None and row[0] == 1

        def mode() -> str:
            cursor.execute("SELECT @@GLOBAL.sql_mode")
            row = cursor.fetchone()
            assert row is not None
            return row[0]

        before = mode()
        try:
            assert call("create-database", f"database_name={name}").split() == ["name", name, "protected", "no"]
            assert there()
            assert [name, "no"] in [line.split() for line in call("list-databases").splitlines()]
            assert "already_exists (409)" in call("create-database", f"database_name={name}", code=1)
            assert call("delete-database", f"database_name={name}") == "ok\n"
            assert not there()
            assert call("set-sqlmode", "STRICT_ALL_TABLES,NO_ZERO_DATE") == "ok\n"
            assert set(mode().split(",")) == {"STRICT_ALL_TABLES", "NO_ZERO_DATE"}
            assert call("get-sqlmode") == f"{mode()}\n"
            assert call("set-sqlmode", "") == "ok\n"
            assert mode() == ""
        finally:
            cursor.execute("SET GLOBAL sql_mode = %s", (before,))
            if mysql.flavour == "mysql":
                cursor.execute("RESET PERSIST IF EXISTS sql_mode")


def test_logical_databases_on_mongodb(mongodb: LiveServer, tmp_path: Path) -> None:
    name = f"cli_{time.time_ns()}"
    with calling(tmp_path, mongodb) as call, pymongo.MongoClient[dict[str, Any]](mongodb.url()) as client:
        call("create-database", json.dumps({"database_name": name}))
        assert name in client.list_database_names()
        assert call("delete-database", f"database_name={name}") == "ok\n"
        assert name not in client.list_database_names()
        assert "not_found (404)" in call("delete-database", f"database_name={name}", code=1)


def test_a_retention_policy_on_influxdb(influxdb: LiveServer, tmp_path: Path) -> None:
    name = f"cli-{time.time_ns()}"
    client = influxdb_driver.InfluxDBClient(influxdb.host, influxdb.port, influxdb.admin, influxdb.password)

    def durations() -> dict[str, str]:
        return {each["name"]: each["duration"] for each in client.get_list_retention_policies("app")}

    with calling(tmp_path, influxdb) as call:
        assert call("add-retention-policy", f"name={name}", "duration=36h", "default=false") == "ok\n"
        assert durations()[name] == "36h0m0s"
        assert [name, "36h", "no"] in [line.split() for line in call("list-retention-policies").splitlines()]
        assert call("del-retention-policy", f"name={name}") == "ok\n"
        assert name not in durations()
    client.close()


def test_what_a_database_can_do_is_listed_with_why_not(postgresql: LiveServer, tmp_path: Path) -> None:
    with calling(tmp_path, postgresql) as call:
        lines = [line.split(maxsplit=2) for line in call().splitlines()]
        assert ["pg-list-queries", "read"] in [line[:2] for line in lines]


@pytest.mark.parametrize("stop", [True, False], ids=["ended", "killed"])
def test_no_session_stays_on_the_server(postgresql: LiveServer, tmp_path: Path, stop: bool) -> None:
    with psycopg.connect(postgresql.url(), autocommit=True) as connection:

        def sessions() -> int:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbvalet' AND datname = %s", [database]
            ).fetchone()
            assert row is not None
            return row[0]

        database = f"cli_{time.time_ns()}"
        connection.execute(f"CREATE DATABASE {database}".encode())
        config = configuration(tmp_path, {"id": "ad-x", "url": account_on(postgresql, database)})
        with serving(config) as running:
            until(lambda: sessions() > 0, "it never connected")
            if stop:
                running.process.terminate()
                assert running.process.wait(LIMIT) == 0
                assert sessions() == 0
        until(lambda: sessions() == 0, "sessions are left")
        connection.execute(f"DROP DATABASE {database}".encode())
