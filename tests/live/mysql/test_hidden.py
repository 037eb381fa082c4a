"""What an account is not shown any more is never taken for what is not there."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from engines.engine import look
from engines.errors import ConnectionLost
from engines.mysql import ENGINE
from engines.mysql.server import MySQLServer
from tests.live.mysql.conftest import PASSWORD, Root, act_on, connect, make_account, sessions_of, until
from tests.live.servers import LiveServer

PASSING = "passing"


@pytest.fixture
async def passing(mysql: LiveServer, root: Root) -> AsyncIterator[MySQLServer]:
    """A server by an account of its own, which keeps the right to log in whatever is taken from it."""
    root.run(f"DROP USER IF EXISTS {PASSING}")
    connected = connect(make_account(mysql, PASSING))
    root.run(f"GRANT SELECT ON app.* TO {PASSING}")
    yield connected
    await connected.close()
    root.run(f"DROP USER {PASSING}")


def take_all(root: Root) -> None:
    root.run(f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {PASSING}", f"GRANT SELECT ON app.* TO {PASSING}")


async def test_whether_it_was_done_is_not_told_by_what_is_hidden(
    passing: MySQLServer, mysql: LiveServer, root: Root, filled: str
) -> None:
    async def looks(server: MySQLServer) -> list[object]:
        actions = (ENGINE.actions[name] for name in ("create-database", "delete-database", "reset-database"))
        return [await look(server, action, action.validate({"database_name": filled})) for action in actions]

    assert all(await looks(passing))
    take_all(root)
    later = connect(mysql.url(PASSING, PASSWORD))
    assert await looks(later) == [None, None, None]
    root.run(f"GRANT SELECT ON {filled}.* TO {PASSING}")
    whether_there, inside, content = await looks(later)
    assert (whether_there, bool(inside), content) == (["as asked"], True, None)
    await later.close()


@pytest.mark.parametrize("action", ["delete-database", "reset-database"])
async def test_what_was_cut_is_not_said_to_be_done_by_what_is_hidden(
    passing: MySQLServer, root: Root, filled: str, action: str
) -> None:
    def dropping() -> list[int]:
        return [number for number, text in sessions_of(root, PASSING) if text and text.startswith("DROP")]

    with root.another() as holder:
        holder.run("BEGIN", f"SELECT * FROM {filled}.t")
        task = asyncio.ensure_future(act_on(passing, action, filled))
        await until(lambda: bool(dropping()))
        take_all(root)
        for number in dropping():
            root.run(f"KILL {number}")
        with pytest.raises(ConnectionLost):
            await task
        holder.run("COMMIT")
    assert root.rows(f"SELECT * FROM {filled}.t") == [(1,)]
