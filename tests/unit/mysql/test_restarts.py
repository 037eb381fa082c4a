"""A restart of the server that a read is the first to notice: what it lost is put back, and the read done again."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engines.address import parse_address
from engines.errors import EngineError, EngineUnavailable, PrivilegeMissing
from engines.mysql import sql_mode
from engines.mysql.server import MySQLServer

STARTED = datetime(2026, 1, 1, tzinfo=UTC)


class Pool:
    """Runs a job at once."""

    def __init__(self, modes: list[str]) -> None:
        self._modes = modes

    async def read(self, job: Any) -> Any:
        return job(self._modes)


@pytest.fixture
def modes() -> list[str]:
    """The mode of a server that has lost the one it was set to."""
    return ["lost"]


@pytest.fixture
def server(modes: list[str]) -> MySQLServer:
    made = MySQLServer(parse_address("mysql://valet:pass-of-the-valet@127.0.0.1/app", 3306), cast(Any, None))
    made._pool = cast(Any, Pool(modes))
    made._facts = cast(Any, SimpleNamespace(started_at=STARTED))
    return made


async def test_a_read_shows_what_was_put_back_and_a_restart_puts_it_back_once(
    server: MySQLServer, modes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    restarts: list[datetime] = []

    async def restore(_: MySQLServer, started_at: datetime) -> bool:
        restarts.append(started_at)
        modes[0] = "put back"
        return True

    monkeypatch.setattr(sql_mode, "restore", restore)
    assert await server.read(lambda shown: cast(Any, shown)[0]) == "put back"
    assert await server.read(lambda shown: cast(Any, shown)[0]) == "put back"
    assert restarts == [STARTED]
    server._facts = cast(Any, SimpleNamespace(started_at=STARTED + timedelta(days=1)))
    await server.read(lambda shown: cast(Any, shown)[0])
    assert restarts == [STARTED, STARTED + timedelta(days=1)]


@pytest.mark.parametrize(("failure", "tries"), [(EngineUnavailable(), 2), (PrivilegeMissing(), 1)])
async def test_a_read_does_not_fail_for_what_cannot_be_put_back(
    server: MySQLServer, failure: EngineError, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarts: list[datetime] = []

    async def restore(_: MySQLServer, started_at: datetime) -> bool:
        restarts.append(started_at)
        raise failure

    monkeypatch.setattr(sql_mode, "restore", restore)
    for _ in range(2):
        assert await server.read(lambda shown: cast(Any, shown)[0]) == "lost"
    assert len(restarts) == tries
