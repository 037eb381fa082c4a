"""reset-database leaves nothing of before, whatever it was and wherever it is interrupted."""

from collections.abc import Callable
from typing import Any

import pytest

from engines import deadline
from engines.errors import Conflict, ConnectionLost, DeadlineExceeded, PrivilegeMissing, Protected
from engines.mongodb.databases import PLACEHOLDER
from engines.mongodb.reset import reset_database
from engines.mongodb.server import MongoServer
from engines.names import ExistingLogicalDatabase
from tests.live.mongodb.conftest import Document, Root, act, catalogue, connect, names_in
from tests.live.servers import LiveServer


def fill(root: Root, name: str, *, time_series: bool) -> None:
    """Make one of everything that a logical database can hold."""
    database = root[name]
    database["plain"].insert_many([{"x": number} for number in range(10)])
    database["plain"].create_index("x", name="by_x")
    database.create_collection("capped", capped=True, size=4096)
    database.create_collection("checked", validator={"x": {"$type": "int"}})
    database["a.b"].insert_one({})
    database["\u00e9 'odd'; {}"].insert_one({})
    database.command({"create": "view", "viewOn": "plain", "pipeline": []})
    database.command({"create": "view_on_view", "viewOn": "view", "pipeline": [{"$limit": 1}]})
    database.command({"create": "view_on_nothing", "viewOn": "absent", "pipeline": []})
    database["system.js"].insert_many([{"_id": "f", "value": "x"}, {"_id": "g", "value": "y"}])
    database.command({"profile": 2, "slowms": 100})
    database["plain"].find_one({"x": "a secret in a query"})
    database.command({"profile": 0, "slowms": 100})
    if time_series:
        database.create_collection("weather", timeseries={"timeField": "at"})
        # What is left when making one is cut short: its buckets without itself.
        database.command({"create": "system.buckets.orphan", "clusteredIndex": True, "timeseries": {"timeField": "t"}})
    database.command({"createUser": "user_of_it", "pwd": "p", "roles": ["readWrite"]})


def assert_nothing_of_before(root: Root, name: str) -> None:
    database = root[name]
    assert name in names_in(root)
    ordinary = []
    for collection in database.list_collections():
        if collection["name"] not in ("system.js", "system.views"):
            assert (collection["type"], collection["options"]) == ("collection", {})
            assert [*database[collection["name"]].index_information()] == ["_id_"]
            ordinary.append(collection["name"])
        if collection["name"] == "system.views":
            # Nobody may read it; what it holds is in the list.
            continue
        assert database[collection["name"]].count_documents({}) == 0
    assert len(ordinary) == 1 and ordinary[0].startswith(PLACEHOLDER)


@pytest.fixture
def full(root: Root, mongodb: LiveServer, fresh: str) -> Any:
    fill(root, fresh, time_series=mongodb.version_tuple >= (5, 0))
    yield fresh
    root[fresh].command({"dropAllUsersFromDatabase": 1})


async def test_reset_leaves_nothing_but_an_empty_collection_and_the_users(
    server: MongoServer, root: Root, full: str, other: str
) -> None:
    before = {name: held for name, held in catalogue(root).items() if name != full}
    assert await act(server, "reset-database", full) is None
    assert_nothing_of_before(root, full)
    assert [user["user"] for user in root[full].command({"usersInfo": 1})["users"]] == ["user_of_it"]
    assert {name: held for name, held in catalogue(root).items() if name != full} == before
    assert {"name": full, "protected": False} in await act(server, "list-databases")


async def test_reset_is_allowed_on_the_deployments_own(account: Callable[[str], str], root: Root, full: str) -> None:
    server = connect(account(full))
    try:
        await act(server, "reset-database", full)
        assert_nothing_of_before(root, full)
        root.drop_database(full)
        # Listed while it holds nothing, so it is there to be reset.
        await act(server, "reset-database", full)
        assert_nothing_of_before(root, full)
    finally:
        await server.close()


async def test_reset_refuses_system_databases(server: MongoServer, root: Root) -> None:
    before = catalogue(root)
    for name in ("admin", "local", "config"):
        with pytest.raises(Protected):
            await act(server, "reset-database", name)
    assert catalogue(root) == before


async def test_reset_again_and_after_create_changes_nothing(server: MongoServer, root: Root, fresh: str) -> None:
    await act(server, "create-database", fresh)
    identity = [collection["info"]["uuid"] for collection in root[fresh].list_collections()]
    await act(server, "reset-database", fresh)
    await act(server, "reset-database", fresh)
    assert [collection["info"]["uuid"] for collection in root[fresh].list_collections()] == identity


@pytest.mark.parametrize(
    "taken",
    [
        lambda database: database[PLACEHOLDER].insert_one({}),
        lambda database: database[PLACEHOLDER].create_index("x"),
        lambda database: database.create_collection(PLACEHOLDER, capped=True, size=4096),
        lambda database: database.create_collection(PLACEHOLDER, validator={"x": 1}),
        lambda database: database.command({"create": PLACEHOLDER, "viewOn": "x", "pipeline": []}),
        lambda database: [database[f"{PLACEHOLDER}{suffix}"].insert_one({}) for suffix in ("", "_2", "_3")],
    ],
    ids=["document", "index", "capped", "validator", "view", "several"],
)
async def test_a_placeholder_that_somebody_used_goes_too(
    server: MongoServer, root: Root, fresh: str, taken: Callable[[Any], object]
) -> None:
    taken(root[fresh])
    await act(server, "reset-database", fresh)
    assert_nothing_of_before(root, fresh)


async def test_interrupted_after_any_step_it_is_still_there_and_doing_it_again_completes_it(
    account: Callable[[str], str], root: Root, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = connect(account("app"))
    write = server.write
    left = 0

    async def cut_later(database: str, command: Document) -> Document:
        nonlocal left
        if left == 0:
            raise ConnectionLost
        left -= 1
        return await write(database, command)

    monkeypatch.setattr(server, "write", cut_later)
    held = set[int]()
    for step in range(60):
        left = min(step, 2)
        try:
            await act(server, "reset-database", full)
        except ConnectionLost:
            assert full in names_in(root)
            held.add(len(root[full].list_collection_names()))
        else:
            break
    assert_nothing_of_before(root, full)
    assert len(held) > 5
    await server.close()


async def test_while_profiling_is_on_its_collection_stays(server: MongoServer, root: Root, full: str) -> None:
    root[full].command({"profile": 2, "slowms": 100})
    try:
        await act(server, "reset-database", full)
    finally:
        left = root[full].list_collection_names()
        root[full].command({"profile": 0, "slowms": 100})
    assert sorted(set(left) - {"system.js", "system.views"}) == [PLACEHOLDER, "system.profile"]


async def test_a_client_that_goes_on_creating_collections_is_told_of(
    account: Callable[[str], str], root: Root, fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = connect(account("app"))
    write = server.write
    root[fresh]["x"].insert_one({})

    async def busy_application(database: str, command: Document) -> Document:
        reply = await write(database, command)
        root[fresh]["x"].insert_one({})
        return reply

    monkeypatch.setattr(server, "write", busy_application)
    with pytest.raises(Conflict, match="go on appearing"):
        await act(server, "reset-database", fresh)
    await server.close()


async def test_when_its_time_is_up_it_says_that_a_part_may_be_done(server: MongoServer, root: Root, full: str) -> None:
    root.admin.command({"fsync": 1, "lock": True})
    try:
        with deadline.within(0.5), pytest.raises(DeadlineExceeded, match="doing it again completes it"):
            await reset_database(server, ExistingLogicalDatabase(database_name=full))
    finally:
        root.admin.command({"fsyncUnlock": 1})
    await act(server, "reset-database", full)
    assert_nothing_of_before(root, full)


async def test_a_reset_that_is_refused_half_way_is_no_refusal_of_all(
    mongodb: LiveServer, root: Root, fresh: str
) -> None:
    root.admin.command(
        {
            "createRole": "half_way",
            "privileges": [
                {"resource": {"cluster": True}, "actions": ["listDatabases"]},
                {"resource": {"db": fresh, "collection": ""}, "actions": ["collStats", "listCollections"]},
                {"resource": {"db": fresh, "collection": PLACEHOLDER}, "actions": ["createCollection"]},
                *({"resource": {"db": fresh, "collection": each}, "actions": ["dropCollection"]} for each in "ab"),
            ],
            "roles": [],
        }
    )
    root.admin.command({"createUser": "half", "pwd": "p", "roles": ["half_way"]})
    for each in "abcd":
        root[fresh][each].insert_one({})
    server = connect(mongodb.url("half", "p", "app"))
    try:
        with pytest.raises(Conflict) as told:
            await act(server, "reset-database", fresh)
        assert "2 collections were removed, then: MongoDB refused: not authorized" in told.value.message
        assert "Missing: dropCollection. Remedy: db.getSiblingDB(" in told.value.message
        assert "Missing: remove" not in told.value.message
        assert told.value.message.endswith("Then doing it again completes it.")
        assert set(root[fresh].list_collection_names()) == {PLACEHOLDER, "c", "d"}
        with pytest.raises(PrivilegeMissing):
            await act(server, "reset-database", fresh)
        assert set(root[fresh].list_collection_names()) == {PLACEHOLDER, "c", "d"}
    finally:
        await server.close()
        root.admin.command({"dropUser": "half"})
        root.admin.command({"dropRole": "half_way"})
