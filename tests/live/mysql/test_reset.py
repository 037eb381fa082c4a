"""A logical database is emptied object by object, and is never lost."""

import asyncio
from typing import Any

import pytest

from engines import deadline
from engines.errors import ConnectionLost, DeadlineExceeded, LogicalDatabaseNotFound, Protected
from engines.mysql.server import MySQLServer
from tests.live.mysql.conftest import Root, act_on, quote, sessions_of, until

ODD = ("back`tick", "two words", "dot.ted", "ünï数", "quote'\"", "T", "t", "per%cent", ";--")

OBJECTS = """
    SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %(name)s
     UNION ALL SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %(name)s
     UNION ALL SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %(name)s
     UNION ALL SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %(name)s"""


def objects(root: Root, name: str) -> set[str]:
    found = {row[0] for row in root.rows(OBJECTS.replace("%(name)s", f"'{name}'"))}
    if root.live.flavour == "mysql":
        found |= {
            row[0]
            for row in root.rows(
                f"SELECT LIBRARY_NAME FROM information_schema.LIBRARIES WHERE LIBRARY_SCHEMA = '{name}'"
            )
        }
    return found


def fill(root: Root, name: str) -> set[str]:
    """Make one of everything that the server has, by root; give the names."""
    root.run(
        f"CREATE TABLE {name}.t (id INT PRIMARY KEY)",
        f"CREATE TABLE {name}.child (id INT, FOREIGN KEY (id) REFERENCES {name}.t (id))",
        f"CREATE VIEW {name}.v AS SELECT id FROM {name}.t",
        f"CREATE VIEW {name}.v_of_v AS SELECT id FROM {name}.v",
        f"CREATE TABLE {name}.gone (id INT)",
        f"CREATE VIEW {name}.v_of_gone AS SELECT id FROM {name}.gone",
        f"DROP TABLE {name}.gone",
        f"CREATE PROCEDURE {name}.p() SELECT 1",
        f"CREATE FUNCTION {name}.f() RETURNS INT DETERMINISTIC RETURN 1",
        f"CREATE EVENT {name}.e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
        f"CREATE TRIGGER {name}.trg BEFORE INSERT ON {name}.t FOR EACH ROW SET NEW.id = NEW.id",
        f"CREATE TABLE {name}.part (id INT) PARTITION BY HASH (id) PARTITIONS 2",
    )
    made = {"t", "child", "v", "v_of_v", "v_of_gone", "p", "f", "e", "trg", "part"}
    if root.is_mariadb:
        root.run(
            f"CREATE SEQUENCE {name}.s",
            f"CREATE TABLE {name}.versioned (id INT) WITH SYSTEM VERSIONING",
            f"CREATE TABLE {name}.by_sequence (id INT DEFAULT NEXTVAL({name}.s))",
            "SET sql_mode = 'ORACLE'",
            f"CREATE PACKAGE {name}.pkg AS PROCEDURE p1; END;",
            f"CREATE PACKAGE BODY {name}.pkg AS PROCEDURE p1 AS BEGIN NULL; END; END;",
            f"CREATE PACKAGE {name}.without_body AS PROCEDURE p1; END;",
            "SET sql_mode = DEFAULT",
        )
        made |= {"s", "versioned", "by_sequence", "pkg", "without_body"}
    else:
        root.run(
            f"CREATE LIBRARY {name}.lib LANGUAGE JAVASCRIPT AS $$ export function f(n) {{ return n }} $$",
            f"CREATE JSON DUALITY VIEW {name}.dual AS SELECT JSON_DUALITY_OBJECT('_id': id) FROM {name}.t",
        )
        made |= {"lib", "dual"}
    assert objects(root, name) == made
    return made


def settings(root: Root, name: str) -> list[tuple[Any, ...]]:
    return root.rows(f"SHOW CREATE DATABASE {name}")


async def test_reset_leaves_nothing_and_keeps_the_database_as_it_was(
    server: MySQLServer, root: Root, fresh: str, other: str
) -> None:
    root.run(
        f"CREATE DATABASE {fresh} CHARACTER SET latin1 COLLATE latin1_german1_ci",
        "DROP USER IF EXISTS somebody",
        "CREATE USER somebody",
        f"GRANT SELECT ON {fresh}.* TO somebody",
    )
    fill(root, fresh)
    root.run(f"GRANT INSERT ON {fresh}.t TO somebody")
    before, grants = settings(root, fresh), root.rows("SHOW GRANTS FOR somebody")
    assert await act_on(server, "reset-database", fresh) is None
    assert objects(root, fresh) == set()
    assert settings(root, fresh) == before
    assert root.rows("SHOW GRANTS FOR somebody") == grants
    assert objects(root, other) == {"kept"}
    root.run("DROP USER somebody")


async def test_an_emptied_database_can_be_used_and_reset_again(server: MySQLServer, root: Root, filled: str) -> None:
    await act_on(server, "reset-database", filled)
    await act_on(server, "reset-database", filled)
    root.run(f"CREATE TABLE {filled}.t (id INT PRIMARY KEY)")
    await act_on(server, "reset-database", filled)
    assert objects(root, filled) == set()


async def test_the_deployments_own_can_be_reset(server: MySQLServer, root: Root) -> None:
    root.run("CREATE TABLE app.t (id INT)")
    await act_on(server, "reset-database", "app")
    assert "app" in root.names()
    assert objects(root, "app") == set()


@pytest.mark.parametrize("name", ["information_schema", "mysql", "performance_schema", "sys"])
async def test_system_schemas_are_refused(server: MySQLServer, root: Root, name: str) -> None:
    before = root.rows("SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES ORDER BY 1, 2")
    with pytest.raises(Protected):
        await act_on(server, "reset-database", name)
    assert root.rows("SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES ORDER BY 1, 2") == before


async def test_an_absent_name_is_not_found_and_not_made(server: MySQLServer, root: Root, filled: str) -> None:
    before = root.names()
    for name in ("absent", filled.upper(), f"{filled} ", f"{filled}\0"):
        with pytest.raises(LogicalDatabaseNotFound):
            await act_on(server, "reset-database", name)
    assert root.names() == before
    assert objects(root, filled) == {"t"}


async def test_odd_names_of_databases_and_objects(server: MySQLServer, root: Root) -> None:
    name = "odd `data'base"
    root.drop(name)
    root.run(f"CREATE DATABASE {quote(name)}")
    try:
        for odd in ODD:
            root.run(f"CREATE TABLE {quote(name)}.{quote(odd)} (id INT)")
        for odd in ODD[:-3]:
            root.run(
                f"CREATE PROCEDURE {quote(name)}.{quote(odd)}() SELECT 1",
                f"CREATE EVENT {quote(name)}.{quote(odd)} ON SCHEDULE EVERY 1 DAY DO SELECT 1",
                f"CREATE VIEW {quote(name)}.{quote('view of ' + odd)} AS SELECT 1",
            )
        await act_on(server, "reset-database", name)
        assert root.rows(f"SHOW TABLES FROM {quote(name)}") == []
        routines = root.rows("SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s", name)
        events = root.rows("SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s", name)
        assert (routines, events) == ([], [])
    finally:
        root.drop(name)


async def test_the_database_whose_name_differs_in_case_is_left_alone(
    server: MySQLServer, root: Root, fresh: str
) -> None:
    upper = fresh.upper()
    root.run(f"CREATE DATABASE {fresh}", f"CREATE DATABASE {upper}")
    try:
        fill(root, fresh)
        for name in (fresh, upper):
            root.run(f"CREATE PROCEDURE {name}.same() SELECT 1")
        root.run(f"CREATE EVENT {upper}.same ON SCHEDULE EVERY 1 DAY DO SELECT 1")
        await act_on(server, "reset-database", fresh)
        exact = "SELECT COUNT(*) FROM information_schema.{} WHERE BINARY {}_SCHEMA = %s"
        for table, column in (("ROUTINES", "ROUTINE"), ("EVENTS", "EVENT")):
            assert root.value(exact.format(table, column), upper) == 1
            assert root.value(exact.format(table, column), fresh) == 0
    finally:
        root.drop(upper)


async def test_tables_that_other_databases_refer_to_go_too(
    server: MySQLServer, root: Root, filled: str, fresh: str
) -> None:
    root.run(
        f"CREATE DATABASE {fresh}",
        f"CREATE TABLE {fresh}.there (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES {filled}.t (id))",
        f"CREATE TABLE {filled}.back (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES {fresh}.there (id))",
        f"INSERT INTO {fresh}.there VALUES (1)",
    )
    await act_on(server, "reset-database", filled)
    assert objects(root, filled) == set()
    assert root.rows(f"SELECT * FROM {fresh}.there") == [(1,)]
    # As it was before, so that the application can make its tables again.
    root.run(f"CREATE TABLE {filled}.t (id INT PRIMARY KEY)", f"INSERT INTO {filled}.t VALUES (1)")
    await act_on(server, "reset-database", fresh)
    assert objects(root, fresh) == set()


async def test_what_other_accounts_have_defined_goes_too(server: MySQLServer, root: Root, fresh: str) -> None:
    root.run(f"CREATE DATABASE {fresh}", f"CREATE TABLE {fresh}.t (id INT)")
    for account in ("another", "vanished"):
        root.run(f"DROP USER IF EXISTS {account}", f"CREATE USER {account}")
        root.run(
            f"CREATE DEFINER = {account} PROCEDURE {fresh}.p_{account}() SELECT 1",
            f"CREATE DEFINER = {account} FUNCTION {fresh}.f_{account}() RETURNS INT DETERMINISTIC RETURN 1",
            f"CREATE DEFINER = {account} VIEW {fresh}.v_{account} AS SELECT 1",
            f"CREATE DEFINER = {account} EVENT {fresh}.e_{account} ON SCHEDULE EVERY 1 DAY DO SELECT 1",
            f"CREATE DEFINER = {account} TRIGGER {fresh}.t_{account} BEFORE INSERT ON {fresh}.t"
            " FOR EACH ROW SET NEW.id = NEW.id",
        )
    root.run("DROP USER vanished")
    await act_on(server, "reset-database", fresh)
    assert objects(root, fresh) == set()
    root.run("DROP USER another")


async def test_killed_between_two_objects_it_says_so_and_doing_it_again_completes_it(
    server: MySQLServer, root: Root, fresh: str
) -> None:
    root.run(f"CREATE DATABASE {fresh}")
    made = fill(root, fresh)
    # It waits for the lock on a table that comes after some others and before some.
    with root.another() as holder:
        holder.run("SET lock_wait_timeout = 30", f"LOCK TABLES {fresh}.part WRITE")
        reset = asyncio.create_task(act_on(server, "reset-database", fresh))

        def waiting() -> list[int]:
            return [number for number, statement in sessions_of(root) if statement and "`part`" in statement]

        await until(lambda: bool(waiting()))
        for number in waiting():
            root.run(f"KILL {number}")
        with pytest.raises(ConnectionLost, match="doing it again completes it"):
            await reset
        left = objects(root, fresh)
        assert "part" in left
        assert left < made
        assert fresh in root.names()
        holder.run("UNLOCK TABLES")
    await act_on(server, "reset-database", fresh)
    assert objects(root, fresh) == set()
    assert fresh in root.names()


async def test_a_lock_that_is_not_released_in_time_is_told_and_what_could_be_dropped_is_dropped(
    server: MySQLServer, root: Root, fresh: str
) -> None:
    root.run(f"CREATE DATABASE {fresh}", f"CREATE TABLE {fresh}.a (id INT)", f"CREATE TABLE {fresh}.b (id INT)")
    with root.another() as holder:
        holder.run("BEGIN", f"SELECT * FROM {fresh}.b")
        with pytest.raises(DeadlineExceeded, match="1 tables and views are left"), deadline.within(3):
            await act_on(server, "reset-database", fresh)
        assert objects(root, fresh) == {"b"}
        # Nothing of it waits on.
        await until(lambda: not [statement for _, statement in sessions_of(root) if statement], 5)
        holder.run("COMMIT")
    await act_on(server, "reset-database", fresh)
    assert objects(root, fresh) == set()
