"""An InfluxDB with the account that the grants script makes, and the bare driver beside it."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import influxdb as bare
import pytest

from engines.address import parse_address
from engines.engine import GrantsFor, perform
from engines.influxdb import ENGINE
from engines.influxdb.backup import InfluxBackups
from engines.influxdb.grants import grants
from engines.influxdb.influxql import identifier, literal
from engines.influxdb.server import InfluxServer
from tests.live.servers import LiveServer

USER, PASSWORD = 'val"et', "it's \\ \u00e9\u4e2d %40:/@"

Policy = dict[str, Any]


def bare_client(server: LiveServer, user: str | None = None, password: str | None = None) -> bare.InfluxDBClient:
    account = (user or server.admin, password or server.password)
    # In MessagePack, the driver's default, 1.6 cuts the answer to SHOW DIAGNOSTICS short.
    return bare.InfluxDBClient(server.host, server.port, *account, retries=1, headers={"Accept": "application/json"})


@pytest.fixture(scope="session")
def root(influxdb: LiveServer) -> Iterator[bare.InfluxDBClient]:
    """The bare driver with the account that may do everything."""
    client = bare_client(influxdb)
    yield client
    client.close()


def connect(url: str) -> InfluxServer:
    server = ENGINE.connect(parse_address(url, ENGINE.default_port))
    assert isinstance(server, InfluxServer)
    return server


@pytest.fixture(scope="session")
def account(influxdb: LiveServer, root: bare.InfluxDBClient) -> Callable[[str], str]:
    """Run the grants script; give the URL of a logical database as that account sees it."""
    run_script(root, grants(GrantsFor(user=USER, password=PASSWORD)))
    return lambda database: influxdb.url(USER, PASSWORD, database)


def run_script(root: bare.InfluxDBClient, script: str) -> None:
    """Run a script as the influx client does with one on its standard input: as one request."""
    root.query(script, method="POST")


_numbers = itertools.count(1)


@pytest.fixture
def database(root: bare.InfluxDBClient) -> Iterator[str]:
    """A fresh logical database, of a name that has to be quoted."""
    name = f'fresh "{next(_numbers)}"; -- \u00e9'
    root.query(f"CREATE DATABASE {identifier(name)}", method="POST")
    yield name
    root.query(f"DROP DATABASE {identifier(name)}", method="POST")


@pytest.fixture
async def server(account: Callable[[str], str], database: str) -> AsyncIterator[InfluxServer]:
    """The server whose logical database is the fresh one."""
    connected = connect(account(database))
    yield connected
    await connected.close()


@pytest.fixture
async def backups(server: InfluxServer) -> InfluxBackups:
    """Backups of the fresh logical database, by the account of the grants script."""
    return InfluxBackups(server)


def quiet(percent: float, words: str) -> None:
    """Be told of progress."""
    assert 0 <= percent <= 100
    assert words


def sizes_in(folder: Path) -> dict[str, int]:
    """Give the files that a folder holds, with their sizes."""
    return {path.name: path.stat().st_size for path in folder.iterdir()}


async def act(server: InfluxServer, action_name: str, /, **params: object) -> Any:
    """Run an action as the service does."""
    action = ENGINE.actions[action_name]
    if not action.takes_params:
        return await perform(server, action)
    return await perform(server, action, action.validate(params))


def policies(root: bare.InfluxDBClient, database: str) -> dict[str, Policy]:
    """Ask the bare driver for the retention policies of a logical database, by name."""
    rows = root.query(f"SHOW RETENTION POLICIES ON {identifier(database)}").get_points()
    return {row["name"]: row for row in rows}


def catalogue(root: bare.InfluxDBClient) -> dict[str, Any]:
    """Everything there is but the server's own figures: policies and measurements of every database, and users."""
    databases = [row["name"] for row in root.query("SHOW DATABASES").get_points() if row["name"] != "_internal"]
    return {
        "users": [*root.query("SHOW USERS").get_points()],
        **{
            name: (policies(root, name), [*root.query("SHOW MEASUREMENTS", database=name).get_points()])
            for name in databases
        },
    }


def create_user(root: bare.InfluxDBClient, user: str, grant: str | None = None, on: str = "app") -> None:
    root.query(f"CREATE USER {identifier(user)} WITH PASSWORD {literal('p')}", method="POST")
    if grant is not None:
        root.query(f"GRANT {grant} ON {identifier(on)} TO {identifier(user)}", method="POST")


def drop_user(root: bare.InfluxDBClient, user: str) -> None:
    root.query(f"DROP USER {identifier(user)}", method="POST")
