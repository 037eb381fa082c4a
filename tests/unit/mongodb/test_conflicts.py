"""What another client does in the same moment: no live test can time that, so the server here is told by a script."""

from types import SimpleNamespace
from typing import Any

import pytest

from engines.engine import perform
from engines.errors import Conflict, EngineError, InvalidParams, PrivilegeMissing
from engines.mongodb import ENGINE
from engines.mongodb.databases import PLACEHOLDER
from engines.mongodb.reset import empty


class Undone:
    """A server on which nothing that is written stays."""

    address = SimpleNamespace(database="app")

    def __init__(self, *names: str) -> None:
        self.names = names
        self.written: list[dict[str, Any]] = []

    async def read(self, database: str, command: dict[str, Any]) -> dict[str, Any]:
        assert (database, "listDatabases" in command) == ("admin", True)
        return {"databases": [{"name": name} for name in self.names]}

    async def write(self, database: str, command: dict[str, Any]) -> dict[str, Any]:
        self.written.append({"in": database, **command})
        return {}


async def attempt(server: Any, name: str, database: str) -> None:
    action = ENGINE.actions[name]
    await perform(server, action, action.validate({"database_name": database}))


async def test_created_and_dropped_by_somebody_else_at_once_is_a_conflict() -> None:
    server = Undone("app")
    with pytest.raises(Conflict, match="created and is gone again"):
        await attempt(server, "create-database", "custom")
    assert [each["in"] for each in server.written] == ["custom"]


async def test_deleted_and_filled_by_somebody_else_at_once_is_a_conflict() -> None:
    server = Undone("app", "custom")
    with pytest.raises(Conflict, match="deleted and is there again"):
        await attempt(server, "delete-database", "custom")
    assert server.written == [{"in": "custom", "dropDatabase": 1}]


class Undroppable:
    """A server that deletes functions, as many as there are, and refuses to drop a collection."""

    engine = ENGINE
    address = SimpleNamespace(user="valet", database="app", options={})

    def __init__(self, functions: int, refusal: EngineError) -> None:
        self.functions = functions
        self.refusal = refusal

    async def read(self, database: str, command: dict[str, Any]) -> dict[str, Any]:
        if "collStats" in command:
            return {"count": 0, "nindexes": 1}
        assert "listCollections" in command
        names = (PLACEHOLDER, "kept", "system.js")
        return {"cursor": {"firstBatch": [{"name": name, "type": "collection", "options": {}} for name in names]}}

    async def write(self, database: str, command: dict[str, Any]) -> dict[str, Any]:
        if "delete" in command:
            return {"n": self.functions}
        assert command == {"drop": "kept"}
        raise self.refusal


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (PrivilegeMissing("MongoDB refused"), r"removed, then: MongoDB refused\. Missing: dropCollection"),
        (InvalidParams({"database_name": ["odd"]}), r"removed, then: database_name: odd\. Then doing it again"),
    ],
)
async def test_a_reset_that_is_refused_is_a_refusal_only_when_nothing_was_removed(
    refusal: EngineError, told: str
) -> None:
    nothing: Any = Undroppable(0, refusal)
    with pytest.raises(type(refusal)):
        await empty(nothing, "custom")
    some: Any = Undroppable(2, refusal)
    with pytest.raises(Conflict, match=told):
        await empty(some, "custom")
