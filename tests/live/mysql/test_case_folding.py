"""Where the server folds the case of names, a name is the one that the server keeps."""

from collections.abc import AsyncIterator, Iterator
from typing import cast

import pytest

from engines.errors import AlreadyExists, LogicalDatabaseNotFound, Protected
from engines.mysql.facts import Flavour
from engines.mysql.server import MySQLServer
from engines.mysql.user_rights import user_grants
from engines.mysql.users import MySQLUsers
from engines.users import change_password, create_user, delete_user, find_user, made_password
from tests.live.mysql.conftest import PASSWORD, USER, Root, act, act_on, connect, make_account
from tests.live.servers import LiveServer, spawn

pytestmark = pytest.mark.one_mariadb


@pytest.fixture(scope="module")
def folding(mysql: LiveServer) -> Iterator[LiveServer]:
    """A server that keeps names in lower case, as on Windows."""
    with spawn(mysql.flavour, mysql.version, options=["--lower-case-table-names=1"]) as live:
        make_account(live)
        yield live


@pytest.fixture
async def server(folding: LiveServer) -> AsyncIterator[MySQLServer]:
    """dbvalet, whose URL writes the name of its own database in another case."""
    connected = connect(folding.url(USER, PASSWORD, "App"))
    yield connected
    await connected.close()


async def test_names(server: MySQLServer, folding: LiveServer) -> None:
    assert await act(server, "list-databases") == [{"name": "app", "protected": True}]
    assert await act_on(server, "create-database", "Custom-DB") == {"name": "custom-db", "protected": False}
    for taken in ("custom-db", "CUSTOM-DB", "MySQL", "APP"):
        with pytest.raises(AlreadyExists):
            await act_on(server, "create-database", taken)
    root = Root(folding)
    before = root.names()
    for other in ("Custom-DB", "CUSTOM-db"):
        with pytest.raises(LogicalDatabaseNotFound):
            await act_on(server, "delete-database", other)
        with pytest.raises(LogicalDatabaseNotFound):
            await act_on(server, "reset-database", other)
    for kept in ("app", "mysql"):
        with pytest.raises(Protected):
            await act_on(server, "delete-database", kept)
    assert root.names() == before
    root.run("CREATE TABLE App.T (id INT)")
    await act_on(server, "reset-database", "app")
    assert root.rows("SHOW TABLES FROM app") == []
    await act_on(server, "delete-database", "custom-db")
    assert root.names() == before - {"custom-db"}
    root.close()


async def test_users_of_the_deployment_are_told_in_whatever_case_it_is_written(
    server: MySQLServer, folding: LiveServer
) -> None:
    root = Root(folding)
    root.run(*user_grants(f"'{USER}'@'%'", "App", cast("Flavour", folding.flavour), folding.version_tuple))
    root.run("CREATE USER of_two", "GRANT SELECT ON `ap%`.* TO of_two")
    users = MySQLUsers(server)
    made = await create_user(users, "writer", made_password(), read_only=False)
    assert not made.protected
    assert not (await find_user(users, "of_two")).protected
    server.others = lambda: {"APPENDIX"}
    assert (await find_user(users, "of_two")).protected
    assert not (await find_user(users, "writer")).protected
    await change_password(users, "writer", made_password())
    await delete_user(users, "writer")
    root.close()
