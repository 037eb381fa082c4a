"""Logical databases are listed, created and deleted."""

from collections.abc import Iterator

import pytest

from engines.errors import AlreadyExists, Conflict, InvalidParams, LogicalDatabaseNotFound, Protected
from engines.mysql.server import MySQLServer
from tests.live.mysql.conftest import Root, act, act_on, quote

ODD_NAMES = (
    "two words",
    "back`tick",
    "``",
    "dot.ted",
    "semi;colon",
    "quote'\"",
    "per%cent_",
    "ünïcödé",
    "数据库",
    "-",
    "$1",
    "a/b",
)

SYSTEM = ("information_schema", "mysql", "performance_schema", "sys")


@pytest.fixture
def odd(root: Root) -> Iterator[tuple[str, ...]]:
    for name in ODD_NAMES:
        root.run(f"CREATE DATABASE {quote(name)}", f"CREATE TABLE {quote(name)}.t (id INT)")
    yield ODD_NAMES
    root.drop(*ODD_NAMES)


async def test_list_is_sorted_without_system_schemas_and_the_own_is_protected(
    server: MySQLServer, root: Root, odd: tuple[str, ...]
) -> None:
    listed = await act(server, "list-databases")
    assert [each["name"] for each in listed] == sorted(root.names() - set(SYSTEM))
    assert [each["name"] for each in listed if each["protected"]] == ["app"]
    assert {each["name"] for each in listed} >= {*odd, "app"}


async def test_a_name_that_looks_like_a_system_schema_is_ordinary(server: MySQLServer, root: Root) -> None:
    assert root.value("SELECT @@lower_case_table_names") == 0
    try:
        created = await act_on(server, "create-database", "MYSQL")
        assert created == {"name": "MYSQL", "protected": False}
        assert {"name": "MYSQL", "protected": False} in await act(server, "list-databases")
        await act_on(server, "delete-database", "MYSQL")
        assert "MYSQL" not in root.names()
        assert "mysql" in root.names()
    finally:
        root.drop("MYSQL")


async def test_create_makes_an_empty_database_for_utf8mb4(server: MySQLServer, root: Root, fresh: str) -> None:
    assert await act_on(server, "create-database", fresh) == {"name": fresh, "protected": False}
    assert fresh in root.names()
    assert root.rows(f"SHOW TABLES FROM {fresh}") == []
    charset = "SELECT DEFAULT_CHARACTER_SET_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s"
    assert root.value(charset, fresh) == "utf8mb4"


async def test_the_documented_name_is_created_listed_and_deleted(server: MySQLServer, root: Root) -> None:
    try:
        assert await act_on(server, "create-database", "custom-db") == {"name": "custom-db", "protected": False}
        assert {"name": "custom-db", "protected": False} in await act(server, "list-databases")
        assert await act_on(server, "delete-database", "custom-db") is None
        assert "custom-db" not in root.names()
    finally:
        root.drop("custom-db")


async def test_create_refuses_a_name_that_is_taken_and_leaves_what_is_there(
    server: MySQLServer, root: Root, filled: str
) -> None:
    with pytest.raises(AlreadyExists, match=filled):
        await act_on(server, "create-database", filled)
    assert root.rows(f"SELECT * FROM {filled}.t") == [(1,)]


@pytest.mark.parametrize("name", [*SYSTEM, "INFORMATION_SCHEMA", "Information_Schema"])
async def test_create_refuses_the_names_of_system_schemas(server: MySQLServer, root: Root, name: str) -> None:
    before = root.names()
    with pytest.raises(AlreadyExists):
        await act_on(server, "create-database", name)
    assert root.names() == before


async def test_names_that_differ_in_case_are_different_here(server: MySQLServer, root: Root, filled: str) -> None:
    upper = filled.upper()
    try:
        await act_on(server, "create-database", upper)
        assert {filled, upper} <= root.names()
        await act_on(server, "delete-database", upper)
        assert filled in root.names()
        assert upper not in root.names()
    finally:
        root.drop(upper)


@pytest.mark.parametrize(
    "params", [None, {}, {"database_name": ""}, {"database_name": 1}, {"database_name": "x", "y": 1}]
)
@pytest.mark.parametrize("action", ["create-database", "delete-database", "reset-database"])
async def test_wrong_params_are_refused(server: MySQLServer, root: Root, action: str, params: object) -> None:
    before = root.names()
    with pytest.raises(InvalidParams):
        await act(server, action, params)
    assert root.names() == before


async def test_list_takes_no_params(server: MySQLServer) -> None:
    with pytest.raises(InvalidParams):
        await act(server, "list-databases", {"database_name": "x"})


async def test_delete_removes_the_database_with_all_in_it_and_nothing_else(
    server: MySQLServer, root: Root, filled: str, other: str
) -> None:
    before = root.names()
    assert await act_on(server, "delete-database", filled) is None
    assert root.names() == before - {filled}
    assert other in root.names()


async def test_delete_removes_odd_names(server: MySQLServer, root: Root, odd: tuple[str, ...]) -> None:
    before = root.names()
    for name in odd:
        await act_on(server, "delete-database", name)
    assert root.names() == before - set(odd)


async def test_delete_of_an_absent_name_is_not_found(server: MySQLServer, root: Root, filled: str) -> None:
    before = root.names()
    for name in ("absent", filled.upper(), f"{filled} ", f" {filled}", f"{filled}\0", f"{filled}.t", "x" * 100):
        with pytest.raises(LogicalDatabaseNotFound):
            await act_on(server, "delete-database", name)
    assert root.names() == before


@pytest.mark.parametrize("name", SYSTEM)
async def test_delete_refuses_system_schemas(server: MySQLServer, root: Root, name: str) -> None:
    before = root.names()
    with pytest.raises(Protected):
        await act_on(server, "delete-database", name)
    assert root.names() == before


async def test_delete_refuses_the_deployments_own(server: MySQLServer, root: Root) -> None:
    with pytest.raises(Protected, match="app"):
        await act_on(server, "delete-database", "app")
    assert "app" in root.names()


async def test_delete_leaves_everything_when_another_database_refers_to_it(
    server: MySQLServer, root: Root, filled: str, fresh: str
) -> None:
    root.run(f"CREATE TABLE {filled}.a (id INT PRIMARY KEY)", f"CREATE TABLE {filled}.z (id INT PRIMARY KEY)")
    root.run(
        f"CREATE DATABASE {fresh}", f"CREATE TABLE {fresh}.c (id INT, FOREIGN KEY (id) REFERENCES {filled}.t (id))"
    )
    tables = root.rows(f"SHOW TABLES FROM {filled}")
    with pytest.raises(Conflict, match=fresh):
        await act_on(server, "delete-database", filled)
    assert root.rows(f"SHOW TABLES FROM {filled}") == tables
    # The one that refers can go, and then the other.
    await act_on(server, "delete-database", fresh)
    await act_on(server, "delete-database", filled)
    assert not {fresh, filled} & root.names()


async def test_delete_does_not_mind_foreign_keys_inside(server: MySQLServer, root: Root, filled: str) -> None:
    root.run(f"CREATE TABLE {filled}.a (id INT, FOREIGN KEY (id) REFERENCES {filled}.t (id))")
    await act_on(server, "delete-database", filled)
    assert filled not in root.names()
