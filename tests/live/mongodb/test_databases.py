"""list-databases, create-database and delete-database do to MongoDB what they say."""

import asyncio
from typing import Any

import pytest

from engines.errors import AlreadyExists, InvalidParams, LogicalDatabaseNotFound, Protected
from engines.mongodb.server import MongoServer
from tests.live.mongodb.conftest import Root, act, catalogue, connect, names_in

ODD = "a*b<c>|d?:'`{}%s;--\u00e9\u4e2d"


async def test_the_deployments_own_is_listed_and_protected_while_it_holds_nothing(
    server: MongoServer, root: Root
) -> None:
    root.drop_database("app")
    assert "app" not in names_in(root)
    assert {"name": "app", "protected": True} in await act(server, "list-databases")


async def test_the_list_is_sorted_and_whole_and_without_system_databases(
    server: MongoServer, root: Root, fresh: str
) -> None:
    for name in (fresh, f"{fresh}_B", f"{fresh}_a"):
        root[name]["x"].insert_one({})
    try:
        listed = await act(server, "list-databases")
        there = names_in(root)
    finally:
        for suffix in ("_B", "_a"):
            root.drop_database(fresh + suffix)
    assert {"admin", "local"} <= there
    assert [database["name"] for database in listed] == sorted({*there, "app"} - {"admin", "local", "config"})
    assert [database["name"] for database in listed if database["protected"]] == ["app"]


async def test_an_odd_name_is_listed_and_deleted(server: MongoServer, root: Root, other: str) -> None:
    root[ODD]["x"].insert_one({})
    assert {"name": ODD, "protected": False} in await act(server, "list-databases")
    assert await act(server, "delete-database", ODD) is None
    assert ODD not in names_in(root)


async def test_create_makes_a_logical_database_that_is_really_there(
    server: MongoServer, root: Root, fresh: str
) -> None:
    assert await act(server, "create-database", fresh) == {"name": fresh, "protected": False}
    assert fresh in names_in(root)
    (collection,) = root[fresh].list_collection_names()
    assert root[fresh][collection].count_documents({}) == 0
    assert {"name": fresh, "protected": False} in await act(server, "list-databases")


async def test_create_takes_63_characters_and_not_64(server: MongoServer, root: Root) -> None:
    name = "n" * 63
    try:
        await act(server, "create-database", name)
        assert name in names_in(root)
    finally:
        root.drop_database(name)
    with pytest.raises(InvalidParams, match="at most 63"):
        await act(server, "create-database", "n" * 64)


@pytest.mark.parametrize("name", ["", "9a", "-a", "a b", "a.b", "a/b", "a$", "\u00e9", "a\n", 7, None, ["a"]])
async def test_create_refuses_what_the_rule_for_new_names_does_not_allow(
    server: MongoServer, root: Root, name: object
) -> None:
    before = names_in(root)
    with pytest.raises(InvalidParams) as refused:
        await act(server, "create-database", name)
    assert [*refused.value.errors] == ["database_name"]
    assert names_in(root) == before


async def test_create_refuses_a_name_that_is_there_in_any_case(server: MongoServer, root: Root, fresh: str) -> None:
    root[fresh]["x"].insert_one({"_id": 1})
    before = catalogue(root)
    with pytest.raises(AlreadyExists):
        await act(server, "create-database", fresh)
    with pytest.raises(AlreadyExists, match="only in case"):
        await act(server, "create-database", fresh.upper())
    assert catalogue(root) == before


async def test_create_refuses_the_deployments_own_while_it_holds_nothing(server: MongoServer, root: Root) -> None:
    root.drop_database("app")
    for name in ("app", "App"):
        with pytest.raises(AlreadyExists):
            await act(server, "create-database", name)
    assert not {"app", "App"} & names_in(root)


async def test_create_refuses_system_names_and_what_would_stand_in_their_way(server: MongoServer, root: Root) -> None:
    before = names_in(root)
    for name in ("admin", "local", "config"):
        with pytest.raises(Protected):
            await act(server, "create-database", name)
        # A `Config` would keep MongoDB from ever making its `config`.
        with pytest.raises(AlreadyExists):
            await act(server, "create-database", name.title())
    assert names_in(root) == before


async def test_of_creations_at_the_same_time_one_succeeds(server: MongoServer, root: Root, fresh: str) -> None:
    outcomes: list[Any] = await asyncio.gather(
        *(act(server, "create-database", name) for name in (fresh, fresh.title()) * 4), return_exceptions=True
    )
    assert sum(isinstance(outcome, dict) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == 7
    assert len(names_in(root) & {fresh, fresh.title()}) == 1
    root.drop_database(fresh.title())


async def test_delete_removes_all_of_it_and_nothing_else(
    server: MongoServer, root: Root, fresh: str, other: str
) -> None:
    root[fresh]["x"].insert_one({})
    root[fresh].command({"create": "v", "viewOn": "x", "pipeline": []})
    root[fresh]["system.js"].insert_one({"_id": "f", "value": "x"})
    assert await act(server, "delete-database", fresh) is None
    assert fresh not in names_in(root)
    assert root[fresh].list_collection_names() == []


async def test_delete_keeps_the_users(server: MongoServer, root: Root, fresh: str) -> None:
    root[fresh]["x"].insert_one({})
    root[fresh].command({"createUser": "u", "pwd": "p", "roles": []})
    try:
        await act(server, "delete-database", fresh)
        assert len(root[fresh].command({"usersInfo": "u"})["users"]) == 1
    finally:
        root[fresh].command({"dropUser": "u"})


async def test_delete_and_reset_say_that_an_absent_one_is_not_there(
    server: MongoServer, root: Root, fresh: str
) -> None:
    root[fresh]["x"].insert_one({})
    before = catalogue(root)
    for name in ("absent", fresh.upper(), fresh + " ", " " + fresh, fresh + "\0", "a.b", "/", "x" * 5_000, "$external"):
        for action in ("delete-database", "reset-database"):
            with pytest.raises(LogicalDatabaseNotFound):
                await act(server, action, name)
    assert catalogue(root) == before


async def test_delete_refuses_the_deployments_own_and_system_ones(server: MongoServer, root: Root) -> None:
    root["app"]["x"].insert_one({})
    before = names_in(root)
    for name in ("app", "admin", "local", "config"):
        with pytest.raises(Protected):
            await act(server, "delete-database", name)
    assert names_in(root) == before
    root.drop_database("app")


@pytest.mark.parametrize("action", ["delete-database", "reset-database"])
@pytest.mark.parametrize("name", ["", 7, None, {"$ne": ""}])
async def test_delete_and_reset_refuse_what_is_no_name(server: MongoServer, action: str, name: object) -> None:
    with pytest.raises(InvalidParams):
        await act(server, action, name)


async def test_a_deployment_whose_own_is_a_system_one_lists_it_and_leaves_it_alone(account: Any, root: Root) -> None:
    server = connect(account("admin"))
    try:
        assert {"name": "admin", "protected": True} in await act(server, "list-databases")
        for action in ("delete-database", "reset-database"):
            with pytest.raises(Protected):
                await act(server, action, "admin")
    finally:
        await server.close()
    assert "admin" in names_in(root)
