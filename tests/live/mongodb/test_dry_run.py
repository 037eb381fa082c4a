"""A dry run changes nothing, names what the action then changes, and refuses in the words of the action."""

from typing import Any

import pytest

from engines.engine import perform, preview
from engines.errors import EngineError
from engines.mongodb import ENGINE
from engines.mongodb.databases import PLACEHOLDER
from engines.mongodb.server import MongoServer
from engines.preview import Preview
from tests.live.admins import as_admin
from tests.live.mongodb.conftest import Root, act, catalogue, connect, names_in
from tests.live.servers import LiveServer

pytestmark = pytest.mark.newest_version


async def attempt(server: MongoServer, root: Root, name: str, database: str) -> Preview:
    action = ENGINE.actions[name]
    before = catalogue(root)
    try:
        return await preview(server, action, action.validate({"database_name": database}))
    finally:
        assert catalogue(root) == before


async def refused_alike(server: MongoServer, root: Root, name: str, database: str) -> EngineError:
    action = ENGINE.actions[name]
    with pytest.raises(EngineError) as dry:
        await attempt(server, root, name, database)
    before = catalogue(root)
    with pytest.raises(EngineError) as real:
        await perform(server, action, action.validate({"database_name": database}))
    assert catalogue(root) == before
    assert (type(dry.value), dry.value.message) == (type(real.value), real.value.message)
    return dry.value


def objects(root: Root, name: str) -> set[str]:
    """Collections and views, without the collections that hold others."""
    found = {each["name"] for each in root[name].list_collections()}
    return {each for each in found if each != "system.views" and not each.startswith("system.buckets.")}


def fill(root: Root, name: str) -> None:
    """Make one of everything."""
    root[name]["plain"].insert_many([{"_id": number} for number in range(3)])
    root[name].command({"create": "view", "viewOn": "plain", "pipeline": []})
    root[name]["system.js"].insert_one({"_id": "f", "value": "x"})
    root[name].command({"create": "series", "timeseries": {"timeField": "at"}})


async def test_create(server: MongoServer, root: Root, fresh: str, other: str) -> None:
    told = await attempt(server, root, "create-database", fresh)
    before = names_in(root)
    await act(server, "create-database", fresh)
    assert names_in(root) - before == {each.name for each in told.objects if each.kind == "logical database"}
    assert objects(root, fresh) == {each.name for each in told.objects if each.kind == "collection"}
    for taken in (fresh, other.upper(), "admin", "local", "app", "APP"):
        await refused_alike(server, root, "create-database", taken)


async def test_delete(server: MongoServer, root: Root, fresh: str) -> None:
    fill(root, fresh)
    told = await attempt(server, root, "delete-database", fresh)
    assert {each.name for each in told.objects} == {fresh, *objects(root, fresh)}
    assert f"(collections and views: {len(objects(root, fresh))})" in told.would
    (plain,) = [each for each in told.objects if each.name == "plain"]
    assert (plain.rows, plain.kind) == (3, "collection")
    assert plain.bytes
    before = names_in(root)
    await act(server, "delete-database", fresh)
    assert before - names_in(root) == {fresh}
    for name in (fresh, "app", "admin", "absent", "a.b"):
        await refused_alike(server, root, "delete-database", name)


async def test_users_stay(server: MongoServer, mongodb: LiveServer, root: Root, fresh: str) -> None:
    root[fresh]["x"].insert_one({})
    root[fresh].command({"createUser": "somebody", "pwd": "p", "roles": []})
    told = await attempt(server, root, "delete-database", fresh)
    assert told.keeps == ["the users that are defined in it"]
    with as_admin("users are named to who may see them"):
        with_all = connect(mongodb.url())
    told = await attempt(with_all, root, "delete-database", fresh)
    assert told.keeps == ["the user somebody"]
    await act(with_all, "delete-database", fresh)
    assert [each["user"] for each in root[fresh].command({"usersInfo": 1})["users"]] == ["somebody"]
    await with_all.close()
    root[fresh].command({"dropUser": "somebody"})


async def test_reset(server: MongoServer, root: Root, fresh: str) -> None:
    fill(root, fresh)
    told = await attempt(server, root, "reset-database", fresh)
    removed = {each.name for each in told.objects if each.change == "remove"}
    created = {each.name for each in told.objects if each.change == "create"}
    assert next(each.rows for each in told.objects if each.name == "system.js") == 1
    before = objects(root, fresh)
    await act(server, "reset-database", fresh)
    # system.js cannot be dropped, but there is nothing in it any more.
    assert root[fresh]["system.js"].count_documents({}) == 0
    assert before - (objects(root, fresh) - {"system.js"}) == removed == {"plain", "view", "series", "system.js"}
    assert objects(root, fresh) - before == created == {PLACEHOLDER}
    again = await attempt(server, root, "reset-database", fresh)
    assert (again.objects, again.total) == ([], 0)
    assert f"the collection {PLACEHOLDER}, which is empty" in again.keeps


@pytest.mark.parametrize("level", [0, 2])
async def test_the_profile_goes_or_stays_as_told(mongodb: LiveServer, root: Root, fresh: str, level: int) -> None:
    root[fresh].command({"profile": 2})
    root[fresh]["x"].insert_one({})
    root[fresh].command({"profile": level})
    with as_admin("whether the profiler is on is told to who may ask"):
        with_all = connect(mongodb.url())
    action = ENGINE.actions["reset-database"]
    told = await preview(with_all, action, action.validate({"database_name": fresh}))
    named = {each.name for each in told.objects if each.change == "remove"}
    await act(with_all, "reset-database", fresh)
    assert ("system.profile" in named) == ("system.profile" not in objects(root, fresh)) == (level == 0)
    await with_all.close()
    root[fresh].command({"profile": 0})


async def test_reset_is_refused_alike(server: MongoServer, root: Root) -> None:
    for name in ("admin", "config", "absent", "a.b", "a$"):
        await refused_alike(server, root, "reset-database", name)
    assert "app" in (await attempt(server, root, "reset-database", "app")).would


@pytest.mark.parametrize("action", ["create-database", "delete-database", "reset-database"])
@pytest.mark.parametrize("role", [None, "read", "readAnyDatabase", "clusterMonitor"])
async def test_what_is_missing_is_told_alike(
    mongodb: LiveServer, root: Root, action: str, role: str | None, other: str
) -> None:
    roles: list[Any] = [] if role is None else [{"role": role, "db": "admin"}]
    root.admin.command({"createUser": "dry", "pwd": "p", "roles": roles})
    server = connect(mongodb.url("dry", "p", "app"))
    try:
        told = await refused_alike(server, root, action, "new" if action == "create-database" else other)
        assert told.code == "privilege_missing"
        assert 'grantRolesToUser("dry"' in told.message
    finally:
        await server.close()
        root.admin.command({"dropUser": "dry"})


async def test_a_role_on_one_database_is_enough(mongodb: LiveServer, root: Root, fresh: str) -> None:
    lists = {"role": "clusterMonitor", "db": "admin"}
    roles = [lists, {"role": "dbAdmin", "db": fresh}, {"role": "readWrite", "db": fresh}]
    root.admin.command({"createUser": "dry", "pwd": "p", "roles": roles})
    server = connect(mongodb.url("dry", "p", "app"))
    try:
        for action in ("create-database", "reset-database", "delete-database"):
            await attempt(server, root, action, fresh)
            await act(server, action, fresh)
        assert fresh not in names_in(root)
    finally:
        await server.close()
        root.admin.command({"dropUser": "dry"})


ANY_COLLECTION = {"db": "", "collection": ""}


@pytest.mark.parametrize("name", ["create-database", "delete-database", "reset-database"])
async def test_a_role_on_another_database_is_not(
    mongodb: LiveServer, root: Root, name: str, fresh: str, other: str
) -> None:
    roles = [{"role": "clusterMonitor", "db": "admin"}, {"role": "dbOwner", "db": other}]
    roles.append({"role": "readAnyDatabase", "db": "admin"})
    root.admin.command({"createUser": "dry", "pwd": "p", "roles": roles})
    if name != "create-database":
        root[fresh]["x"].insert_one({})
    server = connect(mongodb.url("dry", "p", "app"))
    try:
        assert (await refused_alike(server, root, name, fresh)).code == "privilege_missing"
    finally:
        await server.close()
        root.admin.command({"dropUser": "dry"})


async def test_a_right_on_all_collections_is_none_on_the_functions(mongodb: LiveServer, root: Root, fresh: str) -> None:
    actions = ["listCollections", "collStats", "createCollection", "dropCollection", "remove"]
    privileges = [
        {"resource": {"cluster": True}, "actions": ["listDatabases"]},
        {"resource": ANY_COLLECTION, "actions": actions},
    ]
    root.admin.command({"createRole": "dry", "privileges": privileges, "roles": []})
    root.admin.command({"createUser": "dry", "pwd": "p", "roles": ["dry"]})
    root[fresh][PLACEHOLDER].insert_one({})
    root[fresh][PLACEHOLDER].delete_many({})
    root[fresh]["system.js"].insert_one({"_id": "f", "value": "x"})
    server = connect(mongodb.url("dry", "p", "app"))
    try:
        told = await refused_alike(server, root, "reset-database", fresh)
        assert "Missing: remove." in told.message
    finally:
        await server.close()
        root.admin.command({"dropUser": "dry"})
        root.admin.command({"dropRole": "dry"})
