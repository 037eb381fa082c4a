"""A MySQL or MariaDB with the account that the grants script makes, and the bare driver beside it."""

import asyncio
import io
import itertools
import shlex
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest

from engines.address import parse_address
from engines.engine import ForgetfulMemory, GrantsFor, Memory, perform
from engines.mysql import ENGINE
from engines.mysql.server import MySQLServer
from tests.live.images import EngineImage, newest
from tests.live.servers import LiveServer, spawn

USER, PASSWORD = "valet", 'it\'s "50%" \\ of:it/@ü€'


ONLY_ON = {
    "newest_mysql": ("on MySQL only, as it is of that alone", {newest("mysql").key}),
    "one_mariadb": ("on one MariaDB only, which starts fast, as no server differs in it", {"mariadb:10.5"}),
    "each_flavour": (
        "on one MySQL and one MariaDB, as no version differs in it",
        {newest("mysql").key, "mariadb:10.5"},
    ),
}


def pytest_configure(config: pytest.Config) -> None:
    for marker, (meaning, _) in ONLY_ON.items():
        config.addinivalue_line("markers", f"{marker}: {meaning}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [
        item
        for item in items
        if isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and isinstance(image := item.callspec.params.get("mysql"), EngineImage)
        and any(item.get_closest_marker(marker) and image.key not in keys for marker, (_, keys) in ONLY_ON.items())
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


class Root:
    """The bare driver with the account that may do everything."""

    def __init__(self, live: LiveServer) -> None:
        self.live = live
        self.connection = pymysql.connect(
            host=live.host,
            port=live.port,
            user=live.admin,
            password=live.password,
            autocommit=True,
            charset="utf8mb4",
        )

    def rows(self, statement: str, *args: object) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, args or None)
            return list(cursor.fetchall())

    def value(self, statement: str, *args: object) -> Any:
        return self.rows(statement, *args)[0][0]

    def run(self, *statements: str) -> None:
        for statement in statements:
            self.rows(statement)

    def names(self) -> set[str]:
        return {row[0] for row in self.rows("SHOW DATABASES")}

    def drop(self, *names: str) -> None:
        self.run("SET foreign_key_checks = 0")
        for name in names:
            self.run(f"DROP DATABASE IF EXISTS {quote(name)}")
        self.run("SET foreign_key_checks = 1")

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def another(self) -> "Iterator[Root]":
        """Log in once more, for a session that waits or holds a lock."""
        other = Root(self.live)
        try:
            yield other
        finally:
            other.close()

    @property
    def is_mariadb(self) -> bool:
        return self.live.flavour == "mariadb"


def quote(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def run_script(live: LiveServer, script: str) -> None:
    """Run a script as an administrator does: through the client program, which takes statements apart itself."""
    container = live.container.get_wrapped_container()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("script.sql")
        entry.size = len(script.encode())
        archive.addfile(entry, io.BytesIO(script.encode()))
    assert container.put_archive("/tmp", packed.getvalue())
    client = f"{live.flavour} --user=root --password={shlex.quote(live.password)} --default-character-set=utf8mb4"
    result = container.exec_run(["sh", "-c", f"{client} < /tmp/script.sql"])
    assert result.exit_code == 0, result.output


def make_account(live: LiveServer, user: str = USER) -> str:
    """Run the grants script; give the URL of the account that it makes."""
    script = ENGINE.grants(GrantsFor(user=user, password=PASSWORD, flavour=live.flavour, version=live.version_tuple))
    run_script(live, script)
    return live.url(user, PASSWORD)


def connect(url: str, memory: Memory | None = None) -> MySQLServer:
    server = ENGINE.connect(parse_address(url, ENGINE.default_port), memory)
    assert isinstance(server, MySQLServer)
    return server


@pytest.fixture(scope="session")
def root(mysql: LiveServer) -> Iterator[Root]:
    """The bare driver with the account that may do everything."""
    connected = Root(mysql)
    yield connected
    connected.close()


@pytest.fixture(scope="session")
def account(mysql: LiveServer) -> str:
    """The URL of the account that the grants script makes; its own logical database is `app`."""
    return make_account(mysql)


@pytest.fixture
async def server(account: str) -> AsyncIterator[MySQLServer]:
    """dbvalet's server, whose own logical database is `app`."""
    connected = connect(account)
    yield connected
    await connected.close()


@pytest.fixture(scope="session")
def private(mysql: LiveServer) -> Iterator[LiveServer]:
    """A server of the same version that a test may freeze, stop and kill."""
    with spawn(mysql.flavour, mysql.version) as live:
        yield live


@pytest.fixture
async def private_server(private: LiveServer) -> AsyncIterator[MySQLServer]:
    """dbvalet's server on the private one."""
    connected = connect(make_account(private), ForgetfulMemory())
    yield connected
    await connected.close()


async def act(server: MySQLServer, name: str, params: object = None) -> Any:
    """Run an action as the service does, and hold the result against the declared model."""
    action = ENGINE.actions[name]
    result = await perform(server, action, action.validate(params))
    action.result.validate_python(result)
    return result


async def act_on(server: MySQLServer, name: str, database: object) -> Any:
    return await act(server, name, {"database_name": database})


_numbers = itertools.count(1)


@pytest.fixture
def fresh(root: Root) -> Iterator[str]:
    """The name of a logical database that is not there; what a test makes of it goes away."""
    name = f"fresh_{next(_numbers)}"
    yield name
    root.drop(name)


@pytest.fixture
def filled(root: Root) -> Iterator[str]:
    """A logical database with a table of one row."""
    name = f"filled_{next(_numbers)}"
    root.run(
        f"CREATE DATABASE {name}", f"CREATE TABLE {name}.t (id INT PRIMARY KEY)", f"INSERT INTO {name}.t VALUES (1)"
    )
    yield name
    root.drop(name)


@pytest.fixture
def other(root: Root) -> Iterator[str]:
    """A logical database that no test may change."""
    name = f"other_{next(_numbers)}"
    root.run(f"CREATE DATABASE {name}", f"CREATE TABLE {name}.kept (id INT PRIMARY KEY)")
    root.run(f"INSERT INTO {name}.kept VALUES (1)")
    yield name
    assert root.rows(f"SELECT * FROM {name}.kept") == [(1,)]
    root.drop(name)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Poll until a condition holds."""
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, f"not within {seconds} s: {condition}"
        await asyncio.sleep(0.005)


def sessions_of(root: Root, user: str = USER) -> list[tuple[int, str | None]]:
    """The connections of an account, each with the statement it runs."""
    return [(row[0], row[7]) for row in root.rows("SHOW FULL PROCESSLIST") if row[1] == user]


def with_option(url: str, **options: str) -> str:
    """Add options to a URL that has none."""
    assert not urlsplit(url).query
    return url + "?" + "&".join(f"{key}={value}" for key, value in options.items())
