"""All that a live server holds, as its own driver tells it: what nobody named must still be there afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import influxdb as influxdb_driver
import psycopg
import pymongo
import pymysql
from psycopg import sql

from engines.influxdb.influxql import identifier
from tests.live.accounts import USER
from tests.live.servers import LiveServer

Catalogue = dict[str, Any]
"""`databases` and `users` are sets of names; the rest is compared as it is, but for what belongs to a named object."""


def of_postgresql(live: LiveServer, own: str, tables: list[str]) -> Catalogue:
    with psycopg.connect(live.url(), autocommit=True) as admin:

        def column(query: Any, session: psycopg.Connection[Any] = admin) -> list[Any]:
            return [row[0] if len(row) == 1 else row for row in session.execute(query).fetchall()]

        rows: dict[str, Any] = {}
        for name in tables:
            with psycopg.connect(live.url(database=name), autocommit=True) as session:
                rows[name] = (
                    column("SELECT oid, relname FROM pg_class WHERE oid >= 16384 ORDER BY 1", session),
                    column("SELECT proname, oid FROM pg_proc WHERE oid >= 16384 ORDER BY 2", session),
                    column("SELECT extname, extversion FROM pg_extension ORDER BY 1", session),
                    column("SELECT md5(string_agg(text, ',' ORDER BY n)) FROM kept", session),
                )
        return {
            "databases": set(column("SELECT datname FROM pg_database")),
            "users": set(column("SELECT rolname FROM pg_roles")),
            # A user's privileges stand among those of the own database, and the default ones are written out then.
            "owners": column(
                sql.SQL(
                    "SELECT datname, datdba::regrole::text, datacl::text FROM pg_database WHERE datname <> {}"
                ).format(own)
            ),
            "settings": column("SELECT name, setting FROM pg_settings WHERE source NOT IN ('client', 'session')"),
            "of_roles": column("SELECT setdatabase, setconfig::text FROM pg_db_role_setting ORDER BY 1"),
            "rows": rows,
        }


def of_mysql(live: LiveServer, own: str, tables: list[str]) -> Catalogue:
    with (
        pymysql.connect(host=live.host, port=live.port, user=live.admin, password=live.password) as admin,
        admin.cursor() as cursor,
    ):

        def rows(query: str) -> list[Any]:
            cursor.execute(query)
            return list(cursor.fetchall())

        places = ", ".join(f"'{each}'" for each in (*tables, "mysql", "sys"))
        return {
            "databases": {each[0] for each in rows("SHOW DATABASES")},
            "users": {each[0] for each in rows("SELECT User FROM mysql.user")},
            "tables": rows(
                f"SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES "
                f"WHERE TABLE_SCHEMA IN ({places}) ORDER BY 1, 2"
            ),
            "routines": rows("SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES ORDER BY 1, 2"),
            "rows": {each: rows(f"SELECT COUNT(*), SUM(CRC32(CONCAT(n, text))) FROM `{each}`.kept") for each in tables},
            "settings": rows("SELECT @@GLOBAL.require_secure_transport, @@GLOBAL.read_only, @@GLOBAL.max_connections"),
            "mode": rows("SELECT @@GLOBAL.sql_mode"),
        }


def of_mongodb(live: LiveServer, own: str, tables: list[str]) -> Catalogue:
    with pymongo.MongoClient[dict[str, Any]](live.url()) as client:
        # Its own: how they look is for the server to say, at any time.
        names = set(client.list_database_names()) - {"local", "config"}
        users = list(client.admin["system.users"].find({}, {"user": 1, "db": 1, "roles": 1}))
        return {
            "databases": names,
            "users": {each["user"] for each in users},
            "roles": sorted((each["db"], each["user"], str(each["roles"])) for each in users if each["db"] != own),
            "collections": {each: sorted(client[each].list_collection_names()) for each in (*tables, "admin")},
            "rows": {each: list(client[each].kept.find(sort=[("_id", 1)])) for each in tables},
            "indexes": {each: client[each].kept.index_information() for each in tables},
        }


def of_influxdb(live: LiveServer, own: str, tables: list[str]) -> Catalogue:
    client = influxdb_driver.InfluxDBClient(live.host, live.port, live.admin, live.password)
    try:
        # Its own: it makes that one by itself, a while after its start.
        names = {str(each["name"]) for each in client.get_list_database()} - {"_internal"}
        policies: dict[str, list[dict[str, Any]]] = {each: client.get_list_retention_policies(each) for each in names}
        of_own = policies.pop(own)
        rows = {each: [*client.query('SELECT * FROM "autogen".kept', database=each).get_points()] for each in tables}
        return {
            "databases": {str(each["name"]) for each in of_own},
            "default": [str(each["name"]) for each in of_own if each.pop("default")],
            "own": sorted(of_own, key=lambda each: str(each["name"])),
            "logical": names,
            "users": {str(each["user"]) for each in client.query("SHOW USERS").get_points()},
            "policies": policies,
            "rows": rows,
            "queries": list(client.query("SHOW CONTINUOUS QUERIES").get_points()),
        }
    finally:
        client.close()


CATALOGUES: dict[str, Callable[[LiveServer, str, list[str]], Catalogue]] = {
    "postgresql": of_postgresql,
    "mysql": of_mysql,
    "mongodb": of_mongodb,
    "influxdb": of_influxdb,
}
"""For InfluxDB, where actions name policies and not logical databases, `databases` are the policies of the own one."""


def take_away_postgresql(live: LiveServer, own: str, databases: set[str], users: set[str]) -> None:
    assert not databases
    with psycopg.connect(live.url(database=own), autocommit=True) as admin:
        for name in users:
            role, account = sql.Identifier(name), sql.Identifier(USER)
            # Privileges that dbvalet has given: in its name alone are they taken away.
            admin.execute(sql.SQL("GRANT {0} TO {1} WITH INHERIT TRUE").format(role, account))
            admin.execute(sql.SQL("SET SESSION AUTHORIZATION {0}").format(account))
            admin.execute(sql.SQL("DROP OWNED BY {0}").format(role))
            admin.execute("RESET SESSION AUTHORIZATION")
            admin.execute(sql.SQL("DROP OWNED BY {0}").format(role))
            admin.execute(sql.SQL("DROP ROLE {0}").format(role))


def take_away_mysql(live: LiveServer, own: str, databases: set[str], users: set[str]) -> None:
    with (
        pymysql.connect(host=live.host, port=live.port, user=live.admin, password=live.password) as admin,
        admin.cursor() as cursor,
    ):
        for name in databases:
            cursor.execute(f"DROP DATABASE `{name.replace('`', '``')}`")
        for name in users:
            cursor.execute("DROP USER %s@'%%'", (name,))


def take_away_mongodb(live: LiveServer, own: str, databases: set[str], users: set[str]) -> None:
    with pymongo.MongoClient[dict[str, Any]](live.url()) as client:
        for name in databases:
            client.drop_database(name)
        for name in users:
            client[own].command("dropUser", name)


def take_away_influxdb(live: LiveServer, own: str, databases: set[str], users: set[str]) -> None:
    client = influxdb_driver.InfluxDBClient(live.host, live.port, live.admin, live.password)
    try:
        for name in databases:
            client.query(f"DROP RETENTION POLICY {identifier(name)} ON {identifier(own)}", method="POST")
        client.query(f"ALTER RETENTION POLICY autogen ON {identifier(own)} DEFAULT", method="POST")
        for name in users:
            client.query(f"DROP USER {identifier(name)}", method="POST")
    finally:
        client.close()


TAKE_AWAY: dict[str, Callable[[LiveServer, str, set[str], set[str]], None]] = {
    "postgresql": take_away_postgresql,
    "mysql": take_away_mysql,
    "mongodb": take_away_mongodb,
    "influxdb": take_away_influxdb,
}
