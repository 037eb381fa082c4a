"""Make dbvalet's account on each engine of compose.yaml, with the script that `dbvalet grants` prints.

It runs in dbvalet's own image, which has the drivers, and ends when all accounts are there. Running it again does no
harm. Secrets are files: /run/secrets/ENGINE_url says which account and password, ENGINE_admin_password is the
administrator's.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import influxdb
import psycopg
import pymongo
import pymysql
import requests
from influxdb.exceptions import InfluxDBClientError
from pymongo.errors import ConnectionFailure, OperationFailure
from pymysql.constants import CLIENT

from engines.address import Address, parse_address
from engines.engine import GrantsFor, installed_engines
from engines.influxdb.influxql import identifier, literal
from engines.mongodb.grants import commands
from engines.mysql.facts import flavour_of, parse_version

SECRETS = Path("/run/secrets")
WAIT_SECONDS = 120
"""How long an engine may take to make its files and start, the first time."""

GRANTS = {name: engine.grants for name, engine in installed_engines().items()}

ROLE_EXISTS, USER_EXISTS = 51002, 51003


def postgresql(at: Address, wanted: GrantsFor, password: str) -> None:
    """Run the script as a superuser, in the deployment's own database."""
    with psycopg.connect(
        host=at.host, port=at.port, user="postgres", password=password, dbname=at.database, connect_timeout=3
    ) as connection:
        connection.execute(GRANTS["postgresql"](wanted).encode())


def mysql(at: Address, wanted: GrantsFor, password: str) -> None:
    """Run the script of MySQL or of MariaDB, whichever answers."""
    with pymysql.connect(
        host=at.host,
        port=at.port,
        user="root",
        password=password,
        client_flag=CLIENT.MULTI_STATEMENTS,
        connect_timeout=3,
    ) as connection:
        said = connection.get_server_info().removeprefix("5.5.5-")
        script = GRANTS["mysql"](replace(wanted, flavour=flavour_of(said), version=parse_version(said)))
        with connection.cursor() as cursor:
            cursor.execute(script)
            while cursor.nextset():
                pass


def mongodb(at: Address, wanted: GrantsFor, password: str) -> None:
    """Run the commands that the script comes to: it is for mongosh, which is not in dbvalet's image."""
    updates = {ROLE_EXISTS: ("createRole", "updateRole"), USER_EXISTS: ("createUser", "updateUser")}
    with pymongo.MongoClient(
        at.host, at.port, username="root", password=password, serverSelectionTimeoutMS=3000
    ) as client:
        for command in commands(wanted):
            try:
                client.admin.command(command)
            except OperationFailure as refused:
                if refused.code not in updates:
                    raise
                create, update = updates[refused.code]
                client.admin.command({update: command.pop(create), **command})


def influxdb_1(at: Address, wanted: GrantsFor, password: str) -> None:
    """Make the administrator and the database, which the other engines' images do, and run the script."""
    client = influxdb.InfluxDBClient(at.host, at.port, "root", password, timeout=3, retries=1)
    try:
        users = client.get_list_users()
    except InfluxDBClientError as refused:
        if "create admin user first" not in str(refused):
            raise
        client.query(f"CREATE USER root WITH PASSWORD {literal(password)} WITH ALL PRIVILEGES", method="POST")
        users = []
    client.query(f"CREATE DATABASE {identifier(at.database)}", method="POST")
    if any(user["user"] == wanted.user for user in users):
        # CREATE USER, with which the script begins, refuses an account that has since become an administrator.
        client.set_user_password(wanted.user, wanted.password)
    else:
        client.query(GRANTS["influxdb"](wanted), method="POST")


MAKE: dict[str, Callable[[Address, GrantsFor, str], None]] = {
    "postgresql": postgresql,
    "mysql": mysql,
    "mongodb": mongodb,
    "influxdb": influxdb_1,
}
NOT_YET = (psycopg.OperationalError, pymysql.err.OperationalError, ConnectionFailure, requests.RequestException)


def make_account(engine: str, deadline: float) -> None:
    """Make the account of one engine as soon as it lets its administrator in."""
    url = (SECRETS / f"{engine}_url").read_text().strip()
    password = (SECRETS / f"{engine}_admin_password").read_text().strip()
    at = parse_address(url, installed_engines()[engine].default_port)
    wanted = GrantsFor(user=at.user or "", database=at.database, password=at.password)
    while True:
        try:
            MAKE[engine](at, wanted, password)
        except NOT_YET as problem:
            if time.monotonic() > deadline:
                sys.exit(f"accounts: {engine}: not within {WAIT_SECONDS} s: {problem}")
            time.sleep(0.5)
        else:
            print(f"accounts: {at.user} can use {engine}", flush=True)
            return


def main() -> None:
    """Make one for each URL there is."""
    deadline = time.monotonic() + WAIT_SECONDS
    for engine in MAKE:
        if (SECRETS / f"{engine}_url").exists():
            make_account(engine, deadline)


main()
