"""The servers that every live test stands on are what they claim to be."""

import subprocess
import sys
import time

import influxdb as influxdb_driver
import psycopg
import pymongo
import pymysql
import pytest
import requests
from docker.errors import NotFound
from influxdb.exceptions import InfluxDBClientError
from psycopg.conninfo import conninfo_to_dict
from pymongo.errors import OperationFailure

from tests.live.images import ENGINES, Engine, EngineImage, find_image, newest
from tests.live.servers import (
    ASK,
    DATABASE,
    NOT_YET,
    OWNER,
    READY_SECONDS,
    LiveServer,
    ServerNotReady,
    new_container,
    owner_label,
    remove_abandoned,
    spawn,
)


def connect_mysql(server: LiveServer, password: str) -> "pymysql.connections.Connection[pymysql.cursors.Cursor]":
    return pymysql.connect(
        host=server.host, port=server.port, user=server.admin, password=password, database=server.database
    )


def mysql_row(server: LiveServer, query: str) -> tuple[object, ...]:
    with connect_mysql(server, server.password) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
    assert row is not None
    return row


def test_postgresql_is_of_its_version(postgresql: LiveServer) -> None:
    with psycopg.connect(postgresql.url()) as connection:
        assert connection.info.server_version // 10_000 == int(postgresql.version)
        assert connection.info.dbname == DATABASE


def test_postgresql_preloads_pg_stat_statements(postgresql: LiveServer) -> None:
    with psycopg.connect(postgresql.url(database="postgres"), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
        try:
            rows = connection.execute("SELECT count(*) FROM pg_stat_statements").fetchone()
        finally:
            connection.execute("DROP EXTENSION pg_stat_statements")
    assert rows is not None and rows[0] > 0


def test_postgresql_refuses_a_wrong_password(postgresql: LiveServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgresql.url(password="wrong"))


def test_postgresql_keeps_time_zones_and_text_as_the_official_image_does(postgresql: LiveServer) -> None:
    with psycopg.connect(postgresql.url()) as connection:
        row = connection.execute(
            "SELECT '2024-07-01 12:00+00'::timestamptz AT TIME ZONE 'Europe/Paris' = '2024-07-01 14:00',"
            " current_setting('server_encoding')"
        ).fetchone()
    assert row == (True, "UTF8")


def test_postgresql_without_preload_has_no_statement_statistics() -> None:
    newest_version = newest("postgresql").version
    with spawn("postgresql", newest_version, preload=False) as server, psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT current_setting('pg_stat_statements.max', true)").fetchone() == (None,)


def test_mysql_is_of_its_flavour_and_version(mysql: LiveServer) -> None:
    (version,) = mysql_row(mysql, "SELECT version()")
    assert isinstance(version, str)
    assert version.startswith(mysql.version + ".")
    assert ("MariaDB" in version) == (mysql.flavour == "mariadb")


def test_mysql_refuses_a_wrong_password_and_none(mysql: LiveServer) -> None:
    for password in ("wrong", ""):
        with pytest.raises(pymysql.err.OperationalError) as refused:
            connect_mysql(mysql, password)
        assert refused.value.args[0] == 1045


def test_mysql_has_no_account_without_a_password(mysql: LiveServer) -> None:
    query = "SELECT count(*) FROM mysql.user WHERE user = 'root' AND authentication_string = ''"
    assert mysql_row(mysql, query) == (0,)


def test_mongodb_is_of_its_version(mongodb: LiveServer) -> None:
    with pymongo.MongoClient[dict[str, object]](mongodb.url()) as client:
        assert client.server_info()["version"].startswith(mongodb.version + ".")


async def test_mongodb_answers_the_asynchronous_client(mongodb: LiveServer) -> None:
    async with pymongo.AsyncMongoClient[dict[str, object]](mongodb.url()) as client:
        await client[DATABASE]["asynchronous"].insert_one({"_id": 1})
        assert await client[DATABASE]["asynchronous"].find_one() == {"_id": 1}
        await client[DATABASE].drop_collection("asynchronous")


def test_mongodb_refuses_the_unauthenticated_and_a_wrong_password(mongodb: LiveServer) -> None:
    with pymongo.MongoClient[dict[str, object]](mongodb.host, mongodb.port) as client:
        with pytest.raises(OperationFailure) as refused:
            client[DATABASE]["open"].insert_one({})
        assert refused.value.code == 13
    with pymongo.MongoClient[dict[str, object]](mongodb.url(password="wrong")) as client:
        with pytest.raises(OperationFailure) as refused:
            client[DATABASE]["open"].find_one()
        assert refused.value.code == 18


def test_influxdb_is_of_its_version(influxdb: LiveServer) -> None:
    ping = requests.get(f"http://{influxdb.host}:{influxdb.port}/ping", timeout=5)
    assert ping.headers["X-Influxdb-Version"].startswith(influxdb.version + ".")


def test_influxdb_has_its_database(influxdb: LiveServer) -> None:
    client = influxdb_driver.InfluxDBClient(influxdb.host, influxdb.port, influxdb.admin, influxdb.password)
    assert {"name": DATABASE} in client.get_list_database()


def test_influxdb_refuses_the_unauthenticated_and_a_wrong_password(influxdb: LiveServer) -> None:
    # InfluxDBClient calls itself root with the password root when it is given neither.
    for user, password in (("", ""), (influxdb.admin, "wrong")):
        client = influxdb_driver.InfluxDBClient(influxdb.host, influxdb.port, user, password)
        with pytest.raises(InfluxDBClientError) as refused:
            client.get_list_database()
        assert refused.value.code == 401


def answers(server: LiveServer) -> bool:
    """Tell whether a login works within the drivers' own time limit."""
    try:
        ASK[server.engine](server.host, server.port)
    except NOT_YET:
        return False
    return True


@pytest.mark.parametrize(
    "engine", [each if each == "influxdb" else pytest.param(each, marks=pytest.mark.long) for each in ENGINES]
)
def test_a_server_that_was_frozen_killed_and_stopped_answers_again_at_its_address(engine: Engine) -> None:
    image = newest(engine)
    with spawn(image.flavour, image.version) as server:
        address = server.url()
        with server.paused():
            assert not answers(server)
        server.wait_until_it_answers()
        for end in (server.kill, server.stop):
            end()
            assert not answers(server)
            server.start()
            assert answers(server)
        assert server.url() == address


def test_postgresql_keeps_what_was_committed_before_a_kill() -> None:
    with spawn("postgresql", newest("postgresql").version) as server:
        with psycopg.connect(server.url()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        server.kill()
        server.start()
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)


def test_mariadb_keeps_what_was_committed_before_a_kill() -> None:
    with spawn("mariadb", "10.5") as server:
        with connect_mysql(server, server.password) as connection:
            connection.cursor().execute("CREATE TABLE kept AS SELECT 1 AS one")
        server.kill()
        server.start()
        assert mysql_row(server, "SELECT one FROM kept") == (1,)


def test_a_server_that_ends_while_it_starts_is_told_at_once_with_its_log() -> None:
    version = newest("postgresql").version
    began = time.monotonic()
    with (
        pytest.raises(ServerNotReady, match=r"(?s)container exited.*unrecognized configuration parameter"),
        spawn("postgresql", version, options=("-c", "no_such_setting=1")),
    ):
        pass
    assert time.monotonic() - began < READY_SECONDS / 2


def test_a_missing_image_is_an_error_that_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineImage, "name", "dbvalet-test/never:built")
    with pytest.raises(LookupError, match=r"deploy/engine-images/build influxdb:1\.6$"), spawn("influxdb", "1.6"):
        pass


def test_servers_of_a_run_that_was_killed_are_removed_and_no_others() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    image = find_image("influxdb", "1.6")
    abandoned, ours = (new_container(image, preload=False, options=()) for _ in range(2))
    abandoned.with_kwargs(labels={OWNER: owner_label(gone.pid)})
    try:
        abandoned.start()
        ours.start()
        remove_abandoned()
        ours.get_wrapped_container().reload()
        with pytest.raises(NotFound):
            abandoned.get_wrapped_container().reload()
    finally:
        ours.stop()
        remove_abandoned()


def test_a_url_carries_odd_characters_unharmed(postgresql: LiveServer) -> None:
    parts = conninfo_to_dict(postgresql.url("a@b/c", "p:w#?%", "d b"))
    assert (parts["user"], parts["password"], parts["dbname"]) == ("a@b/c", "p:w#?%", "d b")
