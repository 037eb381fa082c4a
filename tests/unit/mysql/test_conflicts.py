"""What another client does in the same moment: no live test can time that, so the server here is told by a script."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engines.engine import perform
from engines.errors import Conflict, EngineError, InvalidParams, PrivilegeMissing
from engines.mysql import ENGINE
from engines.mysql.databases import CREATE, LIST
from engines.mysql.driver import LOCK_LIMIT
from engines.mysql.reset import DROP, ROUNDS, TABLES
from engines.mysql.sql_mode import GET, SET, TRIED
from engines.mysql.swap import REFERENCES, references_from_elsewhere


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
        self.executed.append(LOCK_LIMIT)

    def close(self) -> None: ...


async def attempt(server: Any, name: str, params: object) -> None:
    action = ENGINE.actions[name]
    await perform(server, action, action.validate(params))


async def test_a_logical_database_that_is_filled_again_and_again_is_a_conflict() -> None:
    server = Told({LIST: [("custom",)], TABLES: [("filled", "BASE TABLE")]})
    with pytest.raises(Conflict, match=f"1 are there after {ROUNDS} rounds"):
        await attempt(server, "reset-database", {"database_name": "custom"})
    assert server.executed.count(DROP["BASE TABLE"]) == ROUNDS == 3


async def test_a_reset_waits_for_the_locks_of_others_no_longer_than_it_may() -> None:
    """The server gives up by itself: a statement that nobody waits for any more would drop a table minutes later."""
    server = Told({LIST: [("custom",)], TABLES: [("filled", "BASE TABLE")]})
    with pytest.raises(Conflict):
        await attempt(server, "reset-database", {"database_name": "custom"})
    assert server.executed.index(LOCK_LIMIT) < server.executed.index(DROP["BASE TABLE"])


async def test_a_mode_that_somebody_else_sets_at_once_is_a_conflict() -> None:
    server = Told({TRIED: [("ANSI",)], GET: [("STRICT_ALL_TABLES",)]})
    with pytest.raises(Conflict, match=r"set to 'STRICT_ALL_TABLES' by somebody else"):
        await attempt(server, "set-sqlmode", "ANSI")
    assert server.executed.count(SET) == 1


class Refusing(Told):
    """A session that refuses a statement after it was carried out so many times."""

    def __init__(self, rows: dict[str, list[tuple[Any, ...]]], refused: str, times: int, refusal: EngineError) -> None:
        super().__init__(rows)
        self.facts.folds_case = False
        self._refused, self._times, self._refusal = refused, times, refusal

    def execute(self, statement: str, *args: object) -> list[tuple[Any, ...]]:
        if statement == self._refused and self.executed.count(statement) == self._times:
            raise self._refusal
        return super().execute(statement, *args)

    fetch = execute


class Served:
    """A server with one session."""

    engine = ENGINE
    account = "'valet'@'%'"

    def __init__(self, session: Refusing) -> None:
        self.session = session
        self.facts = session.facts

    async def write(self, job: Callable[[Told], Any]) -> Any:
        return job(self.session)

    read = write

    async def fetch(self, statement: str) -> Any:
        return self.session.fetch(statement)

    async def privileges(self) -> frozenset[str]:
        return frozenset()


@pytest.mark.parametrize("dropped", [0, 1])
@pytest.mark.parametrize("refusal", [PrivilegeMissing("no"), InvalidParams({"params": ["no"]})], ids=str)
async def test_a_reset_that_is_refused_is_a_refusal_only_when_nothing_was_removed(
    dropped: int, refusal: EngineError
) -> None:
    rows = {LIST: [("custom",)], TABLES: [("one", "BASE TABLE"), ("two", "BASE TABLE")]}
    server = Served(Refusing(rows, DROP["BASE TABLE"], dropped, refusal))
    with pytest.raises(Conflict if dropped else type(refusal)) as raised:
        await attempt(server, "reset-database", {"database_name": "custom"})
    assert ("1 object was removed" in str(raised.value)) == bool(dropped)


async def test_what_was_done_and_may_not_be_looked_at_is_no_refusal() -> None:
    server = Served(Refusing({}, LIST, 1, PrivilegeMissing("no")))
    with pytest.raises(Conflict, match=r"said that it is done, but .* Missing: SHOW DATABASES"):
        await attempt(server, "create-database", {"database_name": "custom"})
    assert CREATE in server.session.executed


def test_a_foreign_key_into_a_namesake_of_another_case_is_no_reference_to_this_one() -> None:
    """The server compares names without regard to case here, whatever its own are."""
    here = ("elsewhere", "child", "into_this", "parent")
    session = Told({REFERENCES: [(*here, "app"), ("elsewhere", "child", "into_that", "parent", "App")]})
    assert references_from_elsewhere(cast(Any, session), cast(Any, SimpleNamespace(database="app"))) == [here]
