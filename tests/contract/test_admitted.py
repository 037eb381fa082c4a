"""Whatever goes to the engine for a request is counted: every route of the table, asked while the database is full.

No list says which routes those are. A route that reaches the engine of a database that is not full must be shed by one
that is, and then not have reached it.
"""

import inspect
from contextvars import ContextVar
from functools import wraps
from typing import Any

import httpx
import pytest

from agent.databases import Database
from engines.action import Effect
from tests.contract.test_every_route import CASES, Case, ask
from tests.fakes.backups import FakeBackups
from tests.fakes.driver import FakeServer
from tests.fakes.health import FakeHealth
from tests.fakes.recovery import FakeRecovery
from tests.fakes.service import TOKENS, Valet, running
from tests.fakes.users import FakeUsers
from tests.planted import plant

touched: ContextVar[list[str] | None] = ContextVar("touched", default=None)
"""What the engine was asked for by a request and the tasks that it began; None where nobody counts."""

ADMIN = f"Bearer {TOKENS['admin']}"

PARTS = (FakeServer, FakeHealth, FakeUsers, FakeBackups, FakeRecovery)

LINKED = {"/api/backups/{backup_id}/download": "/backups/{backup_id}/archive", "/api/logs/{log_id}": "/logs"}
"""Where one gets the link by which a route lets in."""


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Note each call of the engine, but for the look: it is one for all, and ends after two seconds."""
    for part in PARTS:
        for name, function in inspect.getmembers(part, inspect.iscoroutinefunction):
            monkeypatch.setattr(part, name, noted(function, f"{part.__name__}.{name}"))
    look = Database._look  # pyright: ignore[reportPrivateUsage]

    async def unnoted(database: Database) -> None:
        touched.set(None)
        await look(database)

    monkeypatch.setattr(Database, "_look", unnoted)


def noted(function: Any, name: str) -> Any:
    @wraps(function)
    async def call(*given: Any, **named: Any) -> Any:
        seen = touched.get()
        if seen is not None:
            seen.append(name)
        return await function(*given, **named)

    return call


async def opened(valet: Valet, case: Case) -> Case:
    """Give the case with the link that it takes, if it takes one."""
    if (link := LINKED.get(case[1])) is None:
        return case
    given = (await ask(valet, ("GET", f"/api/databases/{{database_id}}{link}", ""), ADMIN)).json()
    return case[0], next(iter(given.values())).replace("http://dbvalet", ""), ""


async def reached(valet: Valet, case: Case) -> tuple[httpx.Response, list[str]]:
    """Ask a route; give its answer, and what was asked of the engine for it."""
    seen: list[str] = []
    counting = touched.set(seen)
    answer = await ask(valet, case, ADMIN)
    touched.reset(counting)
    return answer, seen


@pytest.mark.parametrize("case", CASES, ids=[" ".join(each).strip() for each in CASES])
async def test_a_route_that_reaches_the_engine_is_shed_while_the_database_is_full(case: Case) -> None:
    async with running(limits={"concurrent": 1}) as valet:
        await plant(valet)
        await valet.database().look()
        case = await opened(valet, case)
        with valet.database().admitted(Effect.READ), valet.database().admitted(Effect.WRITE):
            full, while_full = await reached(valet, case)
        _, while_free = await reached(valet, case)
    assert while_full == []
    shed = full.status_code == 503 and full.json()["code"] == "overloaded"
    assert shed is bool(while_free), f"of the engine was asked: {while_free}"
