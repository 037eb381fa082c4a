"""The script of `dbvalet grants` without a password: it leaves that of an account alone, and lets nobody else in."""

import secrets
from collections.abc import Callable
from typing import Any

import influxdb
import psycopg
import pymongo
import pymysql
import pytest
from influxdb.exceptions import InfluxDBClientError
from pymongo.errors import OperationFailure

from engines.engine import GrantsFor, installed_engines
from tests.live.accounts import PASSWORD, account_on, run_as_admin
from tests.live.servers import DATABASE, LiveServer

NOT_ITS_OWN = ("put-a-password-here", "CHANGE-ME", "", "password")
"""Among them what scripts of earlier versions set."""


def script_for(live: LiveServer, user: str) -> str:
    """Give the script without a password, as `dbvalet grants` prints it."""
    wanted = GrantsFor(user=user, database=DATABASE, flavour=live.flavour, version=live.version_tuple)
    return installed_engines()[live.engine].grants(wanted)


def new_name() -> str:
    return f"valet_{secrets.token_hex(4)}"


def lets_in(logs_in: Callable[[LiveServer, str, str], None], live: LiveServer, user: str, password: str) -> bool:
    try:
        logs_in(live, user, password)
    except (
        psycopg.OperationalError,
        pymysql.err.OperationalError,
        OperationFailure,
        InfluxDBClientError,
    ):
        return False
    return True


def to_postgresql(live: LiveServer, user: str, password: str) -> None:
    psycopg.connect(
        host=live.host, port=live.port, user=user, password=password or None, dbname=DATABASE, passfile="/dev/null"
    ).close()


def to_mysql(live: LiveServer, user: str, password: str) -> None:
    pymysql.connect(host=live.host, port=live.port, user=user, password=password).close()


def to_mongodb(live: LiveServer, user: str, password: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](
        live.host, live.port, username=user, password=password or "-", authSource="admin"
    ) as client:
        client.admin.command("listDatabases")


def to_influxdb(live: LiveServer, user: str, password: str) -> None:
    client = influxdb.InfluxDBClient(live.host, live.port, user, password)
    client.query("SHOW DATABASES")
    client.close()


def check_again(logs_in: Callable[[LiveServer, str, str], None], live: LiveServer) -> None:
    """Run it on an account that is there."""
    user = new_name()
    account_on(live, user=user)
    for _ in range(2):
        run_as_admin(live, script_for(live, user))
        assert lets_in(logs_in, live, user, PASSWORD)
        assert not any(lets_in(logs_in, live, user, each) for each in NOT_ITS_OWN)


def test_the_password_stays_on_postgresql(postgresql: LiveServer) -> None:
    check_again(to_postgresql, postgresql)


def test_the_password_stays_on_mysql(mysql: LiveServer) -> None:
    check_again(to_mysql, mysql)


def test_the_password_stays_on_mongodb(mongodb: LiveServer) -> None:
    check_again(to_mongodb, mongodb)


def test_the_password_stays_on_influxdb(influxdb: LiveServer) -> None:
    check_again(to_influxdb, influxdb)


def test_nobody_logs_in_as_the_new_role_of_postgresql(postgresql: LiveServer) -> None:
    user = new_name()
    run_as_admin(postgresql, script_for(postgresql, user))
    assert not any(lets_in(to_postgresql, postgresql, user, each) for each in NOT_ITS_OWN)


def test_no_account_is_made_on_mysql_not_even_by_a_client_that_goes_on_after_an_error(mysql: LiveServer) -> None:
    user = new_name()
    with pytest.raises(pymysql.err.MySQLError, match="no such grant"):
        run_as_admin(mysql, script_for(mysql, user))
    with (
        pymysql.connect(host=mysql.host, port=mysql.port, user=mysql.admin, password=mysql.password) as admin,
        admin.cursor() as cursor,
    ):
        lines = [line for line in script_for(mysql, user).splitlines() if line and not line.startswith("--")]
        for statement in lines:
            if statement.startswith("SET "):
                cursor.execute(statement)
                continue
            with pytest.raises(pymysql.err.MySQLError):
                cursor.execute(statement)
        assert cursor.execute("SELECT User FROM mysql.user WHERE User = %s", [user]) == 0
    assert not any(lets_in(to_mysql, mysql, user, each) for each in NOT_ITS_OWN)


def test_no_account_is_made_on_mongodb(mongodb: LiveServer) -> None:
    user = new_name()
    with pytest.raises(AssertionError, match="write this script with --password-file"):
        run_as_admin(mongodb, script_for(mongodb, user))
    with pymongo.MongoClient[dict[str, Any]](mongodb.url()) as client:
        assert client.admin.command("usersInfo", user)["users"] == []


def test_no_account_is_made_on_influxdb(influxdb: LiveServer) -> None:
    user = new_name()
    with pytest.raises(InfluxDBClientError, match="user not found"):
        run_as_admin(influxdb, script_for(influxdb, user))
    assert not any(lets_in(to_influxdb, influxdb, user, each) for each in NOT_ITS_OWN)
