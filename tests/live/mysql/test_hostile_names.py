"""No name, however it is written, touches anything but the logical database of exactly that name."""

import re
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from engines.errors import AlreadyExists, InvalidParams, LogicalDatabaseNotFound, Protected
from engines.mysql.server import MySQLServer
from tests.live.hostile_names import hostile_names
from tests.live.mysql.conftest import Root, act, act_on, quote

pytestmark = pytest.mark.each_flavour

KNOWN = ("mysql", "sys", "information_schema", "performance_schema", "app", "victim_one", "Victim-Two", "back`tick")
VICTIMS = KNOWN[4:]
RULE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
BATCH = 200


@pytest.fixture(autouse=True)
def victims(root: Root) -> Iterator[None]:
    root.drop(*VICTIMS[1:])
    for name in VICTIMS:
        base = quote(name)
        root.run(
            f"CREATE DATABASE IF NOT EXISTS {base}",
            f"DROP TABLE IF EXISTS {base}.t",
            f"DROP PROCEDURE IF EXISTS {base}.p",
        )
        root.run(
            f"CREATE TABLE {base}.t (id INT)",
            f"INSERT INTO {base}.t VALUES (1)",
            f"CREATE PROCEDURE {base}.p() SELECT 1",
        )
    yield
    root.drop(*VICTIMS[1:])
    root.run("DROP TABLE app.t", "DROP PROCEDURE app.p")


def catalogue(root: Root) -> dict[str, Any]:
    """Everything there is: databases, tables, routines, rows of the victims, the SQL mode."""
    return {
        "databases": root.names(),
        "tables": set(root.rows("SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES")),
        "routines": set(root.rows("SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES")),
        "accounts": set(root.rows("SELECT User, Host FROM mysql.user")),
        "rows": {name: root.rows(f"SELECT * FROM {quote(name)}.t") for name in VICTIMS if name in root.names()},
        "mode": root.value("SELECT @@GLOBAL.sql_mode"),
    }


async def test_create_makes_that_name_or_nothing(server: MySQLServer, root: Root) -> None:
    names = hostile_names(KNOWN, 1_000)
    assert len(names) >= 1_000
    before = catalogue(root)
    created = 0
    for number, name in enumerate(names):
        try:
            answer = await act_on(server, "create-database", name)
        except (AlreadyExists, InvalidParams, Protected):
            assert not RULE.fullmatch(name) or name.lower() in KNOWN
        else:
            assert RULE.fullmatch(name)
            assert answer == {"name": name, "protected": False}
            assert root.names() == before["databases"] | {name}
            root.drop(name)
            created += 1
        if number % BATCH == 0:
            assert catalogue(root) == before, name
    assert catalogue(root) == before
    assert created > 5


@pytest.mark.parametrize("action", ["delete-database", "reset-database"])
async def test_delete_and_reset_touch_nothing_of_another_name(server: MySQLServer, root: Root, action: str) -> None:
    names = hostile_names(KNOWN, 1_000)
    before = catalogue(root)
    for number, name in enumerate(names):
        with pytest.raises((LogicalDatabaseNotFound, InvalidParams)):
            await act_on(server, action, name)
        if number % BATCH == 0:
            assert catalogue(root) == before, name
    assert catalogue(root) == before


async def test_hostile_names_that_are_there_are_deleted_and_reset_alone(server: MySQLServer, root: Root) -> None:
    before = catalogue(root)
    done = 0
    for name in hostile_names(KNOWN, 1_000):
        try:
            root.run(f"CREATE DATABASE {quote(name)}")
        except pymysql.MySQLError:
            # Too long, with a space at its end, or with a character that MySQL does not take.
            continue
        [there] = root.names() - before["databases"]
        if there != name:
            # The server took a question mark for what it cannot write.
            assert "?" in there
            with pytest.raises(LogicalDatabaseNotFound):
                await act_on(server, "delete-database", name)
        else:
            if name.lower() != "performance_schema":
                # MariaDB takes that name in upper case, but no table into it.
                root.run(f"CREATE TABLE {quote(name)}.{quote(name)} (id INT)")
            await act_on(server, "reset-database", name)
            assert root.rows(f"SHOW TABLES FROM {quote(name)}") == []
            assert root.names() == before["databases"] | {name}
            await act_on(server, "delete-database", name)
        root.drop(there)
        assert root.names() == before["databases"]
        done += 1
        if done == BATCH // 2:
            break
    assert catalogue(root) == before
    assert done > 50


async def test_hostile_modes_change_nothing(server: MySQLServer, root: Root) -> None:
    before = catalogue(root)
    for number, text in enumerate(hostile_names(("ANSI", "TRADITIONAL", "ORACLE"), 150)):
        if text.strip(" ,\t\r\n").upper() in ("ANSI", "TRADITIONAL", "ORACLE"):
            continue
        with pytest.raises(InvalidParams):
            await act(server, "set-sqlmode", text)
        if number % BATCH == 0:
            assert catalogue(root) == before, text
    assert catalogue(root) == before
