"""A MongoDB with the account that the grants script makes, and the bare driver beside it."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from engines.address import parse_address
from engines.engine import GrantsFor, perform
from engines.mongodb import ENGINE
from engines.mongodb.backup import MongoBackups
from engines.mongodb.grants import grants
from engines.mongodb.server import MongoServer
from tests.live.images import EngineImage, newest
from tests.live.mongodb.shell import run_script
from tests.live.servers import LiveServer

Document = dict[str, Any]
Root = pymongo.MongoClient[Document]
Act = Callable[..., Awaitable[Any]]

USER, PASSWORD = "valet", 'it\'s "50%" \\ of:it/@'


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "newest_mongodb: on the newest version only, as no version differs in it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [
        item
        for item in items
        if item.get_closest_marker("newest_mongodb")
        and isinstance(item, pytest.Function)
        and isinstance(image := item.callspec.params.get("mongodb"), EngineImage)
        and image != newest("mongodb")
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def root(mongodb: LiveServer) -> Iterator[Root]:
    """The bare driver with the account that may do everything."""
    with Root(mongodb.url()) as client:
        yield client


@pytest.fixture(scope="session")
def account(mongodb: LiveServer, root: Root) -> Callable[[str], str]:
    """Run the grants script; give the URL of a logical database as that account sees it."""
    run_script(root, grants(GrantsFor(user=USER, password=PASSWORD)))
    return lambda database: mongodb.url(USER, PASSWORD, database)


def connect(url: str) -> MongoServer:
    server = ENGINE.connect(parse_address(url, ENGINE.default_port))
    assert isinstance(server, MongoServer)
    return server


@pytest.fixture(scope="session")
async def server(account: Callable[[str], str]) -> AsyncIterator[MongoServer]:
    """The server whose own logical database is `app`."""
    connected = connect(account("app"))
    yield connected
    await connected.close()


async def act(server: MongoServer, name: str, database_name: object = None) -> Any:
    """Run an action as the service does."""
    action = ENGINE.actions[name]
    if not action.takes_params:
        return await perform(server, action)
    return await perform(server, action, action.validate({"database_name": database_name}))


_numbers = itertools.count(1)


@pytest.fixture
def fresh(root: Root) -> Iterator[str]:
    """The name of a logical database that is not there; whatever a test makes of it goes away."""
    name = f"fresh_{next(_numbers)}"
    yield name
    root.drop_database(name)


@pytest.fixture
def other(root: Root) -> Iterator[str]:
    """A logical database that no test may change."""
    name = f"other_{next(_numbers)}"
    root[name]["kept"].insert_one({"_id": 1})
    yield name
    assert [*root[name]["kept"].find()] == [{"_id": 1}]
    root.drop_database(name)


@pytest.fixture
async def backups(mongodb: LiveServer, root: Root, fresh: str) -> AsyncIterator[MongoBackups]:
    """Backups of a fresh logical database, by the account of the grants script with its optional part."""
    script = grants(GrantsFor(user=USER, password=PASSWORD, database=fresh))
    run_script(root, script.replace("const backups = false;", "const backups = true;"))
    server = connect(mongodb.url(USER, PASSWORD, fresh))
    yield MongoBackups(server)
    await server.close()


def quiet(percent: float, words: str) -> None:
    """Be told of progress."""
    assert 0 <= percent <= 100
    assert words


def sizes_in(folder: Path) -> dict[str, int]:
    """Give the files that a folder holds, with their sizes."""
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def names_in(root: Root) -> set[str]:
    return set(root.list_database_names())


def catalogue(root: Root) -> dict[str, Any]:
    """Everything there is: collections with their options, indexes and documents, functions, users, roles."""
    return {
        name: {
            collection["name"]: (
                collection["type"],
                repr(collection["options"]),
                sorted(root[name][collection["name"]].index_information())
                if collection["type"] == "collection"
                else [],
                repr(sorted(map(repr, root[name][collection["name"]].find()))),
            )
            for collection in root[name].list_collections()
            # Nobody may read it; what it holds is in the list.
            if collection["name"] != "system.views"
        }
        for name in names_in(root) - {"local", "config"}
    }
