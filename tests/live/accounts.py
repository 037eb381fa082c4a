"""The account that `dbvalet grants` makes, on any live server, with the optional parts that a test needs."""

import re
from collections.abc import Collection
from typing import Any, Literal

import influxdb
import psycopg
import pymongo
import pymysql
from pymysql.constants import CLIENT

from engines.engine import GrantsFor, installed_engines
from tests.live.mongodb.shell import run_script
from tests.live.servers import DATABASE, LiveServer

Part = Literal["backups", "restores", "users", "figures", "logs"]

USER, PASSWORD = "minder", "minder's/pass:word@2"

# How the script marks what is optional, which each engine calls by its own names.
SQL_PARTS = {"backups": "backups and restores", "users": "to create users", "figures": "to show the log"}


def run_as_admin(live: LiveServer, script: str, database: str = DATABASE) -> None:
    """Run a script, or lines of one, as the administrator of a server does."""
    if live.engine == "postgresql":
        with psycopg.connect(live.url(database=database), autocommit=True) as connection:
            connection.execute(script.encode())
    elif live.engine == "mysql":
        with pymysql.connect(
            host=live.host,
            port=live.port,
            user=live.admin,
            password=live.password,
            client_flag=CLIENT.MULTI_STATEMENTS,
            autocommit=True,
        ) as connection:
            cursor = connection.cursor()
            cursor.execute(script)
            while cursor.nextset():
                pass
    elif live.engine == "mongodb":
        with pymongo.MongoClient[dict[str, Any]](live.url()) as client:
            run_script(client, script)
    else:
        client = influxdb.InfluxDBClient(live.host, live.port, live.admin, live.password)
        for statement in "\n".join(line for line in script.splitlines() if not line.startswith("--")).split(";"):
            if statement.strip():
                client.query(statement, method="POST")
        client.close()


def account_on(
    live: LiveServer, database: str = DATABASE, *, user: str = USER, parts: Collection[Part] = (), **options: str
) -> str:
    """Run the grants script on a server, with the optional parts that are named; give the URL with its account."""
    wanted = GrantsFor(
        user=user, password=PASSWORD, database=database, flavour=live.flavour, version=live.version_tuple
    )
    run_as_admin(live, with_parts(live, installed_engines()[live.engine].grants(wanted), parts), database)
    return live.url(user, PASSWORD, database, **options)


def with_parts(live: LiveServer, script: str, parts: Collection[Part]) -> str:
    """Choose optional parts of a script as its reader does; what an engine's script has no part for is left out."""
    for part in parts:
        if live.engine == "postgresql":
            script = script.replace(f"'dbvalet.{part}', 'no'", f"'dbvalet.{part}', 'yes'")
        elif live.engine == "mongodb":
            script = script.replace(f"const {part} = false", f"const {part} = true")
        elif live.engine == "mysql" and part in SQL_PARTS:
            before, found, after = script.partition(f"-- Optional: {SQL_PARTS[part]}")
            lines, blank, rest = after.partition("\n\n")
            assert found
            script = before + found + re.sub(r"^-- (?=GRANT)", "", lines, flags=re.MULTILINE) + blank + rest
    return script
