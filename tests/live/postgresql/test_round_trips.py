"""How often the server is asked for one answer."""

import pytest

from engines.postgresql.driver.connection import Connection
from tests.live.postgresql.deployment import Deployment, new_deployment

ASCII_DATABASE = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"


async def test_only_a_write_asks_beforehand_whether_its_session_answers(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs a round trip, as much as the usual read itself, which can be done again instead."""
    asked: list[Connection] = []
    answers = Connection.answers

    async def ask(connection: Connection) -> bool:
        asked.append(connection)
        return await answers(connection)

    monkeypatch.setattr(Connection, "answers", ask)
    assert await deployment.server.read("SELECT 1 AS one") == [{"one": 1}]
    assert not asked
    assert await deployment.server.write("SELECT 1 AS one") == [{"one": 1}]
    assert len(asked) == 1
    # Read anew, by then without a conversion.
    async with new_deployment(deployment.live, options=ASCII_DATABASE) as odd:
        rows = await odd.server.read("SELECT pg_catalog.convert_from('caf\\351', 'SQL_ASCII') AS odd")
        assert rows == [{"odd": "caf\ufffd"}]
    assert len(asked) == 1
