"""What no live server does on demand: the server here is told by a script."""

from typing import Any

import pytest

from engines.engine import perform
from engines.errors import Conflict
from engines.postgresql import ENGINE
from engines.postgresql.statements import FEW_CALLS, FIND_EXTENSION


class Unmoved:
    """A server whose statistics nothing resets: `calls` of the statement that was called most, at each look."""

    def __init__(self, *calls: int) -> None:
        self.calls = list(calls)
        self.written: list[str] = []

    async def read(self, statement: str) -> list[dict[str, Any]]:
        if statement == FIND_EXTENSION:
            return [{"version": "1.12", "schema": "public", "preloaded": True, "may_read": True}]
        return [{"calls": self.calls.pop(0)}]

    async def write(self, statement: str) -> None:
        self.written.append(statement)


async def reset(server: Any) -> None:
    await perform(server, ENGINE.actions["pg-stat-statements-reset"])


async def test_a_reset_after_which_everything_is_as_before_is_a_conflict() -> None:
    server = Unmoved(FEW_CALLS + 1, FEW_CALLS + 2)
    with pytest.raises(Conflict, match="the statistics are as before"):
        await reset(server)
    (statement,) = server.written
    assert "pg_stat_statements_reset(0, oid, 0)" in statement


async def test_a_few_calls_counted_anew_are_none() -> None:
    await reset(Unmoved(FEW_CALLS + 1, FEW_CALLS))
    await reset(Unmoved(FEW_CALLS, FEW_CALLS))
