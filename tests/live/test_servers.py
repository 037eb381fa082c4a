"""The servers that every live test stands on are what they claim to be."""

import influxdb as influxdb_driver
import psycopg
import pymongo
import pymysql
import pytest
import requests
from influxdb.exceptions import InfluxDBClientError
from psycopg.conninfo import conninfo_to_dict
from pymongo.errors import OperationFailure

from tests.live.images import newest
from tests.live.servers import DATABASE, LiveServer, spawn


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
    with spawn("postgresql", newest("postgresql").version, preload=False) as server, psycopg.connect(server.url()) as connection:
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
    assert mysql_row(mysql, "SELECT count(*) FROM mysql.user WHERE user = 'root' AND authentication_string = ''") == (0,)


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
    for user, password in ((None, None), (influxdb.admin, "wrong")):
        client = influxdb_driver.InfluxDBClient(influxdb.host, influxdb.port, user, password)
        with pytest.raises(InfluxDBClientError) as refused:
            client.get_list_database()
        assert refused.value.code == 401


def test_a_url_carries_odd_characters_unharmed(postgresql: LiveServer) -> None:
    parts = conninfo_to_dict(postgresql.url("a@b/c", "p:w#?%", "d b"))
    assert (parts["user"], parts["password"], parts["dbname"]) == ("a@b/c", "p:w#?%", "d b")
