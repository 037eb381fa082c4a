"""A dry run changes nothing, names what the action then changes, and refuses in the words of the action."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from engines import deadline
from engines.engine import perform, preview
from engines.errors import EngineError
from engines.mysql import ENGINE
from engines.mysql.server import MySQLServer
from engines.preview import Preview
from tests.live.admins import as_admin
from tests.live.mysql.conftest import Root, act, act_on, connect
from tests.live.mysql.test_reset import fill, objects
from tests.live.servers import LiveServer

pytestmark = pytest.mark.each_flavour

PLAIN, PLAIN_PASSWORD = "dry", "of little rights"


def catalogue(root: Root) -> Any:
    """Everything there is: databases, what is in them, the rows of our tables, grants and the mode."""
    names = sorted(root.names())
    users = [name for name in names if name not in ("information_schema", "mysql", "performance_schema", "sys")]
    tables = [
        (name, row[0])
        for name in users
        for row in root.rows(f"SHOW FULL TABLES FROM `{name}` WHERE Table_type = 'BASE TABLE'")
    ]
    return (
        [(name, sorted(objects(root, name))) for name in users],
        [(where, root.rows(f"SELECT * FROM `{where[0]}`.`{where[1]}`")) for where in tables],
        root.rows(
            "SELECT GRANTEE, TABLE_SCHEMA, PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES ORDER BY 1, 2, 3"
        ),
        root.value("SELECT @@GLOBAL.sql_mode"),
    )


async def attempt(server: MySQLServer, root: Root, name: str, params: object) -> Preview:
    """Run an action dry, and make sure that nothing is changed."""
    action = ENGINE.actions[name]
    before = catalogue(root)
    try:
        return await preview(server, action, action.validate(params))
    finally:
        assert catalogue(root) == before


async def refused_alike(server: MySQLServer, root: Root, name: str, params: object) -> EngineError:
    """Make sure that the dry run and the action are refused with the same class and text."""
    action = ENGINE.actions[name]
    with pytest.raises(EngineError) as dry:
        await attempt(server, root, name, params)
    before = catalogue(root)
    with pytest.raises(EngineError) as real:
        await perform(server, action, action.validate(params))
    assert catalogue(root) == before
    assert (type(dry.value), dry.value.message) == (type(real.value), real.value.message)
    return dry.value


@pytest.fixture
def little(mysql: LiveServer, root: Root) -> Iterator[str]:
    root.run(f"DROP USER IF EXISTS {PLAIN}", f"CREATE USER {PLAIN} IDENTIFIED BY '{PLAIN_PASSWORD}'")
    root.run(f"GRANT SELECT ON app.* TO {PLAIN}")
    yield mysql.url(PLAIN, PLAIN_PASSWORD)
    root.run(f"DROP USER {PLAIN}")


@pytest.fixture
async def refused(little: str) -> AsyncIterator[MySQLServer]:
    connected = connect(little)
    yield connected
    await connected.close()


async def test_create(server: MySQLServer, root: Root, fresh: str, filled: str) -> None:
    told = await attempt(server, root, "create-database", {"database_name": fresh})
    before = root.names()
    await act_on(server, "create-database", fresh)
    assert {each.name for each in told.objects} == root.names() - before
    assert [each.change for each in told.objects] == ["create"]
    for taken in (filled, "mysql", "information_schema", "app"):
        await refused_alike(server, root, "create-database", {"database_name": taken})


async def test_delete(server: MySQLServer, root: Root, filled: str, other: str) -> None:
    fill_like = f"CREATE VIEW {filled}.v AS SELECT 1", f"CREATE PROCEDURE {filled}.p() SELECT 1"
    root.run(*fill_like)
    there = objects(root, filled)
    told = await attempt(server, root, "delete-database", {"database_name": filled})
    assert {each.name for each in told.objects} == {filled, *there}
    assert len(told.objects) == told.total == 1 + len(there)
    (table,) = [each for each in told.objects if each.kind == "table"]
    assert (table.name, table.rows) == ("t", 1)
    assert table.bytes
    databases = root.names()
    await act_on(server, "delete-database", filled)
    assert databases - root.names() == {filled}
    for name in (filled, "app", "mysql", "sys", "absent"):
        await refused_alike(server, root, "delete-database", {"database_name": name})


async def test_delete_of_one_that_another_refers_to(server: MySQLServer, root: Root, filled: str, fresh: str) -> None:
    root.run(f"CREATE DATABASE {fresh}")
    root.run(f"CREATE TABLE {fresh}.child (id INT, FOREIGN KEY (id) REFERENCES {filled}.t (id))")
    told = await refused_alike(server, root, "delete-database", {"database_name": filled})
    assert told.code == "conflict"
    root.drop(fresh)


async def test_the_grants_that_stay_are_told(server: MySQLServer, root: Root, filled: str, mysql: LiveServer) -> None:
    root.run("DROP USER IF EXISTS stays", "CREATE USER stays", f"GRANT SELECT ON {filled}.* TO stays")
    with as_admin("the grants of others are shown to who may read the server's own schema"):
        with_all = connect(mysql.url())
    told = await attempt(with_all, root, "delete-database", {"database_name": filled})
    assert told.keeps == ["the grants of 'stays'@'%' on it"]
    await act_on(with_all, "delete-database", filled)
    assert f"`{filled}`" in repr(root.rows("SHOW GRANTS FOR stays"))
    await with_all.close()
    root.run("DROP USER stays")


async def test_reset_names_one_of_everything(server: MySQLServer, root: Root, fresh: str, mysql: LiveServer) -> None:
    root.run(f"CREATE DATABASE {fresh}")
    there = fill(root, fresh)
    root.run(f"INSERT INTO {fresh}.t VALUES (1), (2), (3)")
    # The account of the script is not shown the triggers, which go with their tables.
    told = await attempt(server, root, "reset-database", {"database_name": fresh})
    assert {each.name for each in told.objects} == there - {"trg"}
    assert ["TRIGGER" in each for each in told.warnings] == [True]
    with as_admin("triggers are shown to who has TRIGGER on every table"):
        with_all = connect(mysql.url())
    told = await attempt(with_all, root, "reset-database", {"database_name": fresh})
    await with_all.close()
    assert {each.name for each in told.objects} == there
    assert len({(each.kind, each.name) for each in told.objects}) == told.total
    assert {each.change for each in told.objects} == {"remove"}
    assert next(each.rows for each in told.objects if each.name == "t") == 3
    assert told.warnings == []
    await act_on(server, "reset-database", fresh)
    assert objects(root, fresh) == set()
    again = await attempt(server, root, "reset-database", {"database_name": fresh})
    assert (again.objects, again.total) == ([], 0)


async def test_reset_is_refused_alike(server: MySQLServer, root: Root) -> None:
    for name in ("mysql", "absent", "performance_schema", "Absent`"):
        await refused_alike(server, root, "reset-database", {"database_name": name})
    assert "app" in (await attempt(server, root, "reset-database", {"database_name": "app"})).would


async def test_more_than_are_named_are_counted(server: MySQLServer, root: Root, fresh: str) -> None:
    root.run(f"CREATE DATABASE {fresh}", *(f"CREATE VIEW {fresh}.v{number} AS SELECT 1" for number in range(103)))
    told = await attempt(server, root, "reset-database", {"database_name": fresh})
    assert (len(told.objects), told.total, told.truncated) == (100, 103, True)


@pytest.mark.parametrize("mode", ["ANSI", "", "no_zero_date, ANSI_QUOTES"])
async def test_set_sqlmode(server: MySQLServer, root: Root, mode: str) -> None:
    root.run("SET GLOBAL sql_mode = 'STRICT_TRANS_TABLES'")
    try:
        told = await attempt(server, root, "set-sqlmode", mode)
        assert told.before == "STRICT_TRANS_TABLES"
        await act(server, "set-sqlmode", mode)
        assert told.after == root.value("SELECT @@GLOBAL.sql_mode")
        again = await attempt(server, root, "set-sqlmode", mode)
        assert (again.objects, again.before) == ([], again.after)
        for wrong in ("NO_SUCH_MODE", "ANSI;", ","):
            assert (await refused_alike(server, root, "set-sqlmode", wrong)).code == "invalid_params"
    finally:
        root.run("SET GLOBAL sql_mode = DEFAULT")
        if not root.is_mariadb:
            root.run("RESET PERSIST IF EXISTS sql_mode")


async def test_what_is_missing_is_told_alike(refused: MySQLServer, root: Root, filled: str, fresh: str) -> None:
    for name, params in (
        ("create-database", {"database_name": fresh}),
        ("delete-database", {"database_name": filled}),
        ("delete-database", {"database_name": "absent"}),
        ("reset-database", {"database_name": filled}),
        ("reset-database", {"database_name": "app"}),
        ("set-sqlmode", "ANSI"),
    ):
        told = await refused_alike(refused, root, name, params)
        assert told.code == "privilege_missing"
        assert f"TO '{PLAIN}'@'%'" in told.message
    # It sees them all then, and may still not drop one.
    root.run(f"GRANT SHOW DATABASES ON *.* TO {PLAIN}")
    await refused.log_in()
    for name in ("delete-database", "reset-database"):
        assert (await refused_alike(refused, root, name, {"database_name": filled})).code == "privilege_missing"


async def test_a_privilege_on_one_database_is_enough(refused: MySQLServer, root: Root, filled: str, fresh: str) -> None:
    root.run(f"GRANT CREATE, DROP ON {fresh}.* TO {PLAIN}", f"GRANT DROP ON {filled}.* TO {PLAIN}")
    root.run(f"GRANT SHOW DATABASES ON *.* TO {PLAIN}")
    told = await attempt(refused, root, "create-database", {"database_name": fresh})
    assert [each.name for each in told.objects] == [fresh]
    await act_on(refused, "create-database", fresh)
    told = await attempt(refused, root, "delete-database", {"database_name": filled})
    assert told.warnings, "it is not shown routines and events"
    await act_on(refused, "delete-database", filled)
    assert filled not in root.names()


@pytest.mark.parametrize("locking", [["BEGIN", "INSERT INTO {}.t VALUES (2)"], ["LOCK TABLES {}.t WRITE"]])
async def test_a_dry_run_waits_for_no_lock_of_others(
    server: MySQLServer, root: Root, filled: str, locking: list[str]
) -> None:
    with root.another() as holder:
        holder.run(*(each.format(filled) for each in locking))
        for name in ("reset-database", "delete-database"):
            action = ENGINE.actions[name]
            with deadline.within(3):
                told = await preview(server, action, action.validate({"database_name": filled}))
            assert "t" in {each.name for each in told.objects}
        holder.run(f"INSERT INTO {filled}.t VALUES (3)", "ROLLBACK", "UNLOCK TABLES")
