"""What MongoDB or the network refuses is told as what it is, in time, and harms nothing."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engines import deadline
from engines.engine import GrantsFor
from engines.errors import ConnectionLost, DeadlineExceeded, EngineUnavailable, PrivilegeMissing
from engines.mongodb import ENGINE
from engines.mongodb.grants import grants
from engines.mongodb.server import CONNECTIONS, MongoServer
from tests.live.accounts import account_on
from tests.live.mongodb.conftest import PASSWORD, USER, Document, Root, act, catalogue, connect, names_in
from tests.live.mongodb.shell import run_script
from tests.live.servers import LiveServer, spawn

ACTIONS = ["list-databases", "create-database", "delete-database", "reset-database"]
MOST = 4.0
"""Seconds after which an unreachable server is given up, with something to spare on a slow machine."""


@pytest.fixture(scope="session")
async def reader(mongodb: LiveServer, root: Root) -> AsyncIterator[MongoServer]:
    """The server as an account sees it that may only read one logical database."""
    root.admin.command({"createUser": "reader", "pwd": "p", "roles": [{"role": "read", "db": "app"}]})
    connected = connect(mongodb.url("reader", "p", "app"))
    yield connected
    await connected.close()
    root.admin.command({"dropUser": "reader"})


@contextmanager
def locked(root: Root) -> Iterator[None]:
    """Keep every write waiting, as a backup of the files does."""
    root.admin.command({"fsync": 1, "lock": True})
    try:
        yield
    finally:
        root.admin.command({"fsyncUnlock": 1})


def operations_of_dbvalet(root: Root) -> list[Document]:
    found = root.admin.aggregate(
        [{"$currentOp": {"allUsers": True}}, {"$match": {"appName": "dbvalet", "active": True}}]
    )
    # The monitor's own hello is always there in some versions.
    return [operation for operation in found if {"create", "drop", "dropDatabase"} & {*operation.get("command", {})}]


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_missing_privilege_is_named_with_its_grant(reader: MongoServer, root: Root, action: str) -> None:
    root["victim"]["x"].insert_one({})
    before = catalogue(root)
    with pytest.raises(PrivilegeMissing) as refused:
        await act(reader, action, "new" if action == "create-database" else "victim")
    assert catalogue(root) == before
    for privilege in ENGINE.actions[action].privileges:
        assert f"Missing: {privilege}" in refused.value.message
    assert 'db.getSiblingDB("admin").grantRolesToUser("reader"' in refused.value.message
    root.drop_database("victim")


async def test_the_grants_that_a_refusal_names_are_the_ones_that_help(
    mongodb: LiveServer, root: Root, fresh: str
) -> None:
    root.admin.command({"createUser": "poor", "pwd": "p", "roles": []})
    root[fresh]["system.js"].insert_one({"_id": "f", "value": "x"})
    for action in ("delete-database", "reset-database"):
        server = connect(mongodb.url("poor", "p", "app"))
        with pytest.raises(PrivilegeMissing) as refused:
            await act(server, action, fresh)
        for remedy in re.findall(r"Remedy: (db\..+?\));", refused.value.message):
            run_script(root, remedy)
        await server.close()
    server = connect(mongodb.url("poor", "p", "app"))
    await act(server, "reset-database", fresh)
    await act(server, "delete-database", fresh)
    assert fresh not in names_in(root)
    await server.close()
    root.admin.command({"dropUser": "poor"})


async def test_the_account_of_the_script_meets_every_requirement_and_reads_no_document(
    account: Callable[[str], str], root: Root, fresh: str
) -> None:
    server = connect(account("app"))
    assert all([await requirement.met(server) for requirement in ENGINE.requirements.values()])
    await server.close()
    root[fresh]["x"].insert_one({"secret": 1})
    with Root(account("app")) as client:
        for command in (
            {"find": "x"},
            {"insert": "x", "documents": [{}]},
            {"aggregate": "x", "pipeline": [], "cursor": {}},
        ):
            with pytest.raises(Exception, match="not authorized"):
                client[fresh].command(command)


async def test_the_reader_meets_no_requirement(reader: MongoServer) -> None:
    met = {name for name, requirement in ENGINE.requirements.items() if await requirement.met(reader)}
    assert met == set()


def test_the_script_can_be_run_again(root: Root, account: object) -> None:
    again = run_script(root, grants(GrantsFor(user=USER, password=PASSWORD)))
    assert "updateRole" in again and "updateUser" in again and not {"createRole", "createUser"} & {*again}


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_wrong_password_is_an_unavailable_engine_at_once(mongodb: LiveServer, action: str) -> None:
    server = connect(mongodb.url(USER, "wrong", "app"))
    started = time.monotonic()
    with pytest.raises(EngineUnavailable, match="refuses the account") as refused:
        await act(server, action, "name")
    assert time.monotonic() - started < MOST
    assert "wrong" not in refused.value.message.replace("wrong user, password", "")
    await server.close()


@pytest.mark.newest_mongodb
@pytest.mark.parametrize(
    ("host", "cause"), [("{host}:1", "connection refused"), ("no.such.host.invalid", "host name cannot be resolved")]
)
async def test_an_unreachable_server_is_told_with_its_cause(mongodb: LiveServer, host: str, cause: str) -> None:
    server = connect(f"mongodb://valet:s3cret@{host.format(host=mongodb.host)}/app")
    started = time.monotonic()
    outcomes = await asyncio.gather(
        *(act(server, action, "name") for action in ACTIONS), server.describe(), return_exceptions=True
    )
    assert time.monotonic() - started < MOST
    for outcome in outcomes:
        assert isinstance(outcome, EngineUnavailable)
        assert cause in outcome.message and "s3cret" not in outcome.message
    await server.close()


@pytest.mark.newest_mongodb
async def test_a_server_without_tls_is_told_when_the_url_wants_it(mongodb: LiveServer) -> None:
    server = connect(account_on(mongodb, tls="true"))
    with pytest.raises(EngineUnavailable, match="TLS"):
        await act(server, "list-databases")
    await server.close()


@pytest.mark.parametrize("url", ["mongodb://u:s3cret@h:x/app", "mongodb://u:s3%cret@h/app", "mongodb://u@[::1/app"])
async def test_a_url_that_the_driver_cannot_read_is_not_quoted(url: str) -> None:
    address = ENGINE.connect(_address(url)).address
    server = ENGINE.connect(address)
    with pytest.raises(EngineUnavailable) as refused:
        await server.describe()
    assert "cret" not in refused.value.message


def _address(url: str) -> Any:
    from engines.address import Address

    return Address(scheme="mongodb", host="h", port=27017, user="u", database="app", url=url)


async def test_without_a_login_it_is_told_which_privileges_are_missing(mongodb: LiveServer) -> None:
    server = connect(f"mongodb://{mongodb.host}:{mongodb.port}/app")
    with pytest.raises(PrivilegeMissing, match="Missing: listDatabases"):
        await act(server, "list-databases")
    await server.close()


@pytest.mark.parametrize("action", ["create-database", "delete-database", "reset-database"])
async def test_a_write_that_waits_for_a_lock_stops_in_the_server_when_its_time_is_up(
    server: MongoServer, root: Root, fresh: str, action: str
) -> None:
    if action != "create-database":
        root[fresh]["x"].insert_one({"_id": 1})
    before = catalogue(root)
    with locked(root):
        started = time.monotonic()
        with deadline.within(0.6), pytest.raises(DeadlineExceeded, match="MongoDB stopped what it was doing"):
            await act(server, action, fresh)
        assert 0.5 < time.monotonic() - started < 0.6 + deadline.GRACE
        assert operations_of_dbvalet(root) == []
    assert catalogue(root) == before
    assert server.pool_use().in_use == 0


async def test_a_read_is_answered_while_writes_wait(server: MongoServer, root: Root) -> None:
    with locked(root):
        assert {"name": "app", "protected": True} in await act(server, "list-databases")


async def test_a_cancelled_task_leaves_no_connection_behind_and_its_command_ends(
    account: Callable[[str], str], root: Root, fresh: str
) -> None:
    server = connect(account("app"))
    await server.describe()
    with locked(root):
        for _ in range(2 * CONNECTIONS):
            with deadline.within(2):
                waiting = asyncio.create_task(act(server, "create-database", fresh))
            await until(lambda: server.pool_use().in_use == 1 and len(operations_of_dbvalet(root)) > 0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert server.pool_use().in_use == 0
        assert {"name": "app", "protected": True} in await act(server, "list-databases")
        # The deadline was pushed into the server, so it holds there although nobody waits for it.
        await until(lambda: operations_of_dbvalet(root) == [])
    assert fresh not in names_in(root)
    await server.close()


async def test_when_every_connection_is_in_use_the_next_is_told_so_in_time(
    account: Callable[[str], str], root: Root, fresh: str
) -> None:
    server = connect(account("app"))
    await server.describe()
    with locked(root), deadline.within(6):
        waiting = [asyncio.create_task(act(server, "create-database", f"{fresh}_{n}")) for n in range(CONNECTIONS)]
        await until(lambda: server.pool_use().in_use == CONNECTIONS)
        started = time.monotonic()
        with pytest.raises(EngineUnavailable, match="connections to MongoDB are in use"):
            await act(server, "list-databases")
        assert time.monotonic() - started < MOST
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert server.pool_use().in_use == 0
    for n in range(CONNECTIONS):
        root.drop_database(f"{fresh}_{n}")
    await server.close()


async def until(met: Callable[[], bool], seconds: float = 5) -> None:
    ends_at = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < ends_at
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def private(mongodb: LiveServer) -> Iterator[LiveServer]:
    """A server to harm, of the same version."""
    with spawn("mongodb", mongodb.version) as server:
        yield server


@pytest.mark.newest_mongodb
@pytest.mark.parametrize("action", ACTIONS)
async def test_a_frozen_server_is_given_up_in_time(private: LiveServer, action: str) -> None:
    server = connect(account_on(private))
    await act(server, "list-databases")
    with private.paused():
        started = time.monotonic()
        with deadline.within(0.7), pytest.raises(DeadlineExceeded, match="does not answer"):
            await act(server, action, "name")
        assert time.monotonic() - started < 0.7 + deadline.GRACE
        assert server.pool_use().in_use == 0
    await act(server, "list-databases")
    with Root(private.url()) as root:
        assert "name" not in names_in(root)
    await server.close()


@pytest.mark.newest_mongodb
async def test_a_write_on_a_server_that_the_monitor_gives_up_is_told_as_unknown(private: LiveServer) -> None:
    server = connect(account_on(private, heartbeatFrequencyMS="500"))
    await act(server, "list-databases")
    with private.paused(), deadline.within(6), pytest.raises(ConnectionLost, match="is not known"):
        await server.write("late", {"create": "x"})
    await server.close()
    with Root(private.url()) as root:
        root.drop_database("late")


@pytest.mark.newest_mongodb
async def test_a_server_that_was_frozen_before_the_first_call_is_given_up_in_time(private: LiveServer) -> None:
    server = connect(account_on(private))
    with private.paused():
        started = time.monotonic()
        with pytest.raises((DeadlineExceeded, EngineUnavailable)):
            await server.describe()
        assert time.monotonic() - started < 2 + deadline.GRACE
    assert {"name": "app", "protected": True} in await act(server, "list-databases")
    await server.close()


def kill_and_start(server: LiveServer) -> None:
    # MongoDB writes its journal ten times a second: what was done just before is lost otherwise.
    with Root(server.url()) as root:
        root.admin.command("fsync")
    server.kill()
    server.start()


@pytest.mark.newest_mongodb
async def test_a_restart_between_two_calls_is_no_error_for_anybody(private: LiveServer) -> None:
    server = connect(account_on(private))
    before = await server.describe()
    for harm in (private.restart, lambda: kill_and_start(private)):
        harm()
        assert {"name": "app", "protected": True} in await act(server, "list-databases")
        harm()
        assert await act(server, "create-database", "after") == {"name": "after", "protected": False}
        harm()
        await act(server, "delete-database", "after")
    after = await server.describe()
    assert after.started_at > before.started_at
    assert (after.created_at, after.version) == (before.created_at, before.version)
    await server.close()


@pytest.mark.newest_mongodb
async def test_a_stopped_server_is_unavailable_and_comes_back(private: LiveServer) -> None:
    server = connect(account_on(private))
    await act(server, "list-databases")
    private.stop()
    try:
        started = time.monotonic()
        with pytest.raises(EngineUnavailable):
            await act(server, "list-databases")
        assert time.monotonic() - started < MOST
        with pytest.raises(EngineUnavailable):
            await act(server, "create-database", "name")
    finally:
        private.start()
    assert {"name": "app", "protected": True} in await act(server, "list-databases")
    await server.close()
