"""What an administrator does before dbvalet comes: a logical database, the application's account, and dbvalet's.

dbvalet's is made by the script of `dbvalet grants`, with its optional part for backups and restores. This is the only
place where the demo is an administrator; from here on it acts as the application, or asks dbvalet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pymongo
from influxdb import InfluxDBClient
from psycopg import sql
from pymysql.constants import CLIENT

from agent.demo.sessions import influxdb_session, mysql_session
from agent.demo.started import StartedEngine, new_password
from engines.engine import GrantsFor, installed_engines
from engines.influxdb.influxql import literal
from engines.mongodb.grants import backup_commands, commands
from engines.mysql.facts import flavour_of, parse_version
from engines.mysql.grants import backup_grants

DATABASE = "app"
APPLICATION = "app"
VALET = "valet"

CUSTOM = "shop"
"""A logical database that dbvalet creates on the tour; the application may use it as soon as it is there."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A database that dbvalet looks after, and the application that uses it."""

    id: str
    engine: str
    title: str
    """Engine and version, for people."""
    port: int
    url: str = field(repr=False)
    """dbvalet's."""
    password: str = field(repr=False)
    """The application's."""


def make_accounts(started: StartedEngine) -> Deployment:
    """Prepare a server.

    Raises: what its driver raises
    """
    make, deployment, title = PREPARE[started.engine]
    if started.engine == "mysql" and flavour_of(started.version) == "mariadb":
        title = "MariaDB"
    valet, application = new_password(), new_password()
    make(started, GrantsFor(user=VALET, database=DATABASE, password=valet), application)
    options = "?authSource=admin" if started.engine == "mongodb" else ""
    return Deployment(
        id=deployment,
        engine=started.engine,
        title=f"{title} {'.'.join(map(str, parse_version(started.version)))}",
        port=started.port,
        url=f"{started.engine}://{VALET}:{valet}@{started.host}:{started.port}/{DATABASE}{options}",
        password=application,
    )


def _postgresql(started: StartedEngine, wanted: GrantsFor, application: str) -> None:
    with psycopg.connect(started.admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE app LOGIN PASSWORD {}").format(sql.Literal(application)))
        admin.execute("CREATE DATABASE app OWNER app")
    # A script of several statements goes as one, and is one transaction: as with `psql -1`.
    with psycopg.connect(started.admin_url, dbname=DATABASE, autocommit=True) as admin:
        script = _script("postgresql", wanted)
        for what in ("backups", "restores"):
            script = script.replace(f"'dbvalet.{what}', 'no'", f"'dbvalet.{what}', 'yes'")
        admin.execute(script.encode())
        # The script grants the roles that own something, and the application's does not yet.
        admin.execute("GRANT app TO valet")


def _mysql(started: StartedEngine, wanted: GrantsFor, application: str) -> None:
    wanted = replace(wanted, flavour=flavour_of(started.version), version=parse_version(started.version))
    with (
        mysql_session(started.port, started.admin_user, started.admin_password, CLIENT.MULTI_STATEMENTS) as admin,
        admin.cursor() as cursor,
    ):
        cursor.execute("CREATE DATABASE app CHARACTER SET utf8mb4")
        cursor.execute("CREATE USER app@'127.0.0.1' IDENTIFIED BY %s", [application])
        cursor.execute("GRANT ALL PRIVILEGES ON app.* TO app@'127.0.0.1'")
        cursor.execute("GRANT ALL PRIVILEGES ON shop.* TO app@'127.0.0.1'")
        cursor.execute(_script("mysql", wanted))
        while cursor.nextset():
            pass
        for statement in backup_grants(wanted):
            cursor.execute(statement)


def _mongodb(started: StartedEngine, wanted: GrantsFor, application: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](started.admin_url) as admin:
        roles = [{"role": "readWrite", "db": name} for name in (DATABASE, CUSTOM)]
        admin["admin"].command("createUser", APPLICATION, pwd=application, roles=roles)
        # The script is for mongosh, which nothing here brings; these are the commands that it comes to.
        for command in [*commands(wanted), *backup_commands(wanted)]:
            admin["admin"].command(command)


def _influxdb(started: StartedEngine, wanted: GrantsFor, application: str) -> None:
    admin: InfluxDBClient = influxdb_session(started.port, started.admin_user, started.admin_password)
    admin.query("CREATE DATABASE app", method="POST")
    admin.query(f"CREATE USER app WITH PASSWORD {literal(application)}; GRANT ALL ON app TO app", method="POST")
    admin.query(_script("influxdb", wanted), method="POST")
    admin.close()


def _script(engine: str, wanted: GrantsFor) -> str:
    return installed_engines()[engine].grants(wanted)


PREPARE: dict[str, tuple[Callable[[StartedEngine, GrantsFor, str], None], str, str]] = {
    "postgresql": (_postgresql, "ad-pg", "PostgreSQL"),
    "mysql": (_mysql, "ad-my", "MySQL"),
    "mongodb": (_mongodb, "ad-mg", "MongoDB"),
    "influxdb": (_influxdb, "ad-inf", "InfluxDB"),
}
