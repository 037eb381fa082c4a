"""What another client does in the same moment: no live test can time that, so the server here is told by a script."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from engines.engine import perform
from engines.errors import Conflict
from engines.mysql import ENGINE
from engines.mysql.databases import LIST
from engines.mysql.reset import DROP, ROUNDS, TABLES
from engines.mysql.sql_mode import GET, SET, TRIED


class Told:
    """Server and session in one: statements have the rows that the test gives them, and none otherwise."""

    def __init__(self, rows: dict[str, list[tuple[Any, ...]]]) -> None:
        self.rows = rows
        self.executed: list[str] = []
        self.sql_mode_lock = asyncio.Lock()
        self.facts = SimpleNamespace(
            flavour="mariadb", version=(10, 11), grants=("GRANT ALL PRIVILEGES ON *.* TO `valet`@`%`",)
        )

    async def write(self, job: Callable[["Told"], Any]) -> Any:
        return job(self)

    def execute(self, statement: str, *_: object) -> list[tuple[Any, ...]]:
        self.executed.append(statement)
        return self.rows.get(statement, [])

    fetch = execute

    def prepare_to_write(self) -> None:
        pass

    close = prepare_to_write


async def attempt(server: Any, name: str, params: object) -> None:
    action = ENGINE.actions[name]
    await perform(server, action, action.validate(params))


async def test_a_logical_database_that_is_filled_again_and_again_is_a_conflict() -> None:
    server = Told({LIST: [("custom",)], TABLES: [("filled", "BASE TABLE")]})
    with pytest.raises(Conflict, match=f"1 are there after {ROUNDS} rounds"):
        await attempt(server, "reset-database", {"database_name": "custom"})
    assert server.executed.count(DROP["BASE TABLE"]) == ROUNDS == 3


async def test_a_mode_that_somebody_else_sets_at_once_is_a_conflict() -> None:
    server = Told({TRIED: [("ANSI",)], GET: [("STRICT_ALL_TABLES",)]})
    with pytest.raises(Conflict, match=r"set to 'STRICT_ALL_TABLES' by somebody else"):
        await attempt(server, "set-sqlmode", "ANSI")
    assert server.executed.count(SET) == 1
