"""A connection that is cut under a command: a read is sent again, a write never."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from engines.errors import Conflict, ConnectionLost
from engines.mongodb.server import MongoServer
from tests.live.cutting_proxy import CuttingProxy, cutting_proxy
from tests.live.mongodb.conftest import USER, Root, act, connect, names_in
from tests.live.servers import LiveServer


@pytest.fixture
async def proxy(mongodb: LiveServer) -> AsyncIterator[CuttingProxy]:
    async with cutting_proxy(mongodb.host, mongodb.port) as proxy:
        yield proxy


@pytest.fixture
async def server(mongodb: LiveServer, account: Callable[[str], str], proxy: CuttingProxy) -> AsyncIterator[MongoServer]:
    connected = connect(account("app").replace(f"{mongodb.host}:{mongodb.port}", f"127.0.0.1:{proxy.port}"))
    await connected.describe()
    yield connected
    await connected.close()


LOSE: dict[str, Callable[[CuttingProxy, bytes], Any]] = {
    "request": CuttingProxy.lose_request,
    "answer": CuttingProxy.lose_answer,
}


@pytest.mark.parametrize("lost", LOSE)
async def test_a_read_is_sent_once_more_in_silence(server: MongoServer, proxy: CuttingProxy, lost: str) -> None:
    LOSE[lost](proxy, b"listDatabases")
    assert {"name": "app", "protected": True} in await act(server, "list-databases")
    assert proxy.is_done


async def test_a_read_is_not_sent_a_third_time(server: MongoServer, proxy: CuttingProxy) -> None:
    for _ in range(2):
        proxy.lose_request(b"listDatabases")
    with pytest.raises(ConnectionLost):
        await act(server, "list-databases")
    assert {"name": "app", "protected": True} in await act(server, "list-databases")


async def test_a_write_that_did_not_arrive_is_told_as_lost_and_not_sent_again(
    server: MongoServer, root: Root, proxy: CuttingProxy, fresh: str
) -> None:
    proxy.lose_request(b"\x02create\0")
    with pytest.raises(ConnectionLost):
        await act(server, "create-database", fresh)
    assert fresh not in names_in(root)
    root[fresh]["x"].insert_one({})
    proxy.lose_request(b"dropDatabase")
    with pytest.raises(ConnectionLost):
        await act(server, "delete-database", fresh)
    assert fresh in names_in(root)
    assert proxy.is_done


async def test_a_write_whose_answer_was_lost_is_found_done(
    server: MongoServer, root: Root, proxy: CuttingProxy, fresh: str
) -> None:
    proxy.lose_answer(b"\x02create\0")
    assert await act(server, "create-database", fresh) == {"name": fresh, "protected": False}
    assert fresh in names_in(root)
    proxy.lose_answer(b"dropDatabase")
    await act(server, "delete-database", fresh)
    assert fresh not in names_in(root)
    assert proxy.is_done


@pytest.mark.parametrize(
    ("acknowledged", "told"), [(False, "whether it finished is not known"), (True, "said that it is done")]
)
async def test_when_it_cannot_look_it_tells_what_is_known(
    server: MongoServer,
    proxy: CuttingProxy,
    fresh: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    acknowledged: bool,
    told: str,
) -> None:
    if not acknowledged:
        proxy.lose_answer(b"\x02create\0")
    # The look before goes through; both tries of the one after do not.
    read = server.read
    looks = 0

    async def read_and_cut_later(database: str, command: dict[str, Any]) -> dict[str, Any]:
        nonlocal looks
        looks += 1
        if looks == 2:
            for _ in range(2):
                proxy.lose_request(b"listDatabases")
        return await read(database, command)

    monkeypatch.setattr(server, "read", read_and_cut_later)
    with pytest.raises(ConnectionLost, match=told):
        await act(server, "create-database", fresh)
    assert proxy.is_done


@pytest.mark.parametrize("acknowledged", [False, True])
async def test_what_was_done_is_no_refusal_when_the_account_may_not_look_any_more(
    server: MongoServer,
    root: Root,
    proxy: CuttingProxy,
    fresh: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    acknowledged: bool,
) -> None:
    write = server.write

    async def write_and_revoke(database: str, command: dict[str, Any]) -> dict[str, Any]:
        if not acknowledged:
            proxy.lose_answer(b"\x02create\0")
        try:
            return await write(database, command)
        finally:
            root.admin.command("revokeRolesFromUser", USER, roles=["dbvalet"])

    monkeypatch.setattr(server, "write", write_and_revoke)
    try:
        with pytest.raises(Conflict if acknowledged else ConnectionLost) as told:
            await act(server, "create-database", fresh)
        text = "MongoDB said that it is done" if acknowledged else "whether it finished is not known"
        assert text in told.value.message
        assert fresh in names_in(root)
    finally:
        root.admin.command("grantRolesToUser", USER, roles=["dbvalet"])


async def test_reset_that_was_cut_is_completed_by_doing_it_again(
    server: MongoServer, root: Root, proxy: CuttingProxy, fresh: str
) -> None:
    for name in ("a", "b", "c"):
        root[fresh][name].insert_one({})
    for lose in LOSE.values():
        lose(proxy, b"\x02drop\0")
        with pytest.raises(ConnectionLost):
            await act(server, "reset-database", fresh)
        assert fresh in names_in(root)
    await act(server, "reset-database", fresh)
    assert root[fresh].list_collection_names() == ["dbvalet_placeholder"]
