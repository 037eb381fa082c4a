"""Users whose making or deletion is refused half-way: told as it is, nothing left behind, nobody else cut off."""

from collections.abc import AsyncIterator, Iterator
from typing import cast

import pymysql
import pytest

from engines.errors import Conflict, ConnectionLost, PrivilegeMissing, Protected
from engines.mysql.driver import Session
from engines.mysql.facts import Flavour
from engines.mysql.user_rights import user_grants
from engines.mysql.users import MySQLUsers
from engines.users import change_password, create_user, delete_user, made_password
from tests.live.mysql.conftest import Root, connect
from tests.live.servers import LiveServer

pytestmark = pytest.mark.each_flavour

VALET = "valet_of_users"
PLAIN = "pass-of-the-valet-0123"
APP = "app_of_users"


@pytest.fixture
def rights(mysql: LiveServer, root: Root) -> Iterator[list[str]]:
    """What lets an account manage users, which it has not yet; users of the test go away."""
    names = (f"'{VALET}'@'%'", f"'{APP}'@'%'", f"'{APP}'@'10.9.9.9'")
    root.run(*(f"DROP USER IF EXISTS {name}" for name in names))
    root.run(f"CREATE USER {VALET} IDENTIFIED BY '{PLAIN}'", f"GRANT SELECT ON app.* TO {VALET}")
    yield user_grants(f"'{VALET}'@'%'", "app", cast("Flavour", mysql.flavour), mysql.version_tuple)
    root.run(*(f"DROP USER IF EXISTS {name}" for name in names))


@pytest.fixture
async def users(mysql: LiveServer, rights: list[str]) -> AsyncIterator[MySQLUsers]:
    assert rights
    server = connect(mysql.url(VALET, PLAIN, "app"))
    yield MySQLUsers(server)
    await server.close()


def accounts(root: Root, user: str = APP) -> list[str]:
    return [row[0] for row in root.rows("SELECT Host FROM mysql.user WHERE User = %s ORDER BY Host", user)]


async def test_an_account_that_may_not_make_users_is_told_the_grant(
    users: MySQLUsers, rights: list[str], root: Root
) -> None:
    root.run(*(each.replace("CREATE USER, ", "") for each in rights))
    root.run(f"CREATE USER {APP} IDENTIFIED BY 'x'", f"GRANT SELECT ON app.* TO {APP}")
    with pytest.raises(PrivilegeMissing, match="GRANT CREATE USER"):
        await create_user(users, "another_one", made_password(), read_only=True)
    with pytest.raises(PrivilegeMissing, match="GRANT CREATE USER"):
        await change_password(users, APP, made_password())
    with pytest.raises(PrivilegeMissing, match="GRANT CREATE USER"):
        await delete_user(users, APP)
    assert accounts(root) == ["%"]
    assert accounts(root, "another_one") == []


async def test_a_user_that_may_not_be_given_its_privileges_is_not_made(
    users: MySQLUsers, rights: list[str], root: Root
) -> None:
    root.run(*(each.replace(" WITH GRANT OPTION", "") for each in rights))
    with pytest.raises(PrivilegeMissing, match="WITH GRANT OPTION"):
        await create_user(users, APP, made_password(), read_only=True)
    assert accounts(root) == []


async def test_a_user_whose_grant_was_cut_is_not_left_without_privileges(
    users: MySQLUsers, rights: list[str], root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.run(*rights)
    execute = Session.execute

    def cut_at_the_grant(self: Session, statement: str, *args: object) -> object:
        if statement.startswith("GRANT"):
            self.close()
        return execute(self, statement, *args)

    monkeypatch.setattr(Session, "execute", cut_at_the_grant)
    with pytest.raises(ConnectionLost):
        await create_user(users, APP, made_password(), read_only=True)
    assert accounts(root) == []


async def test_a_user_that_stays_without_its_privileges_is_told_with_what_takes_it_away(
    users: MySQLUsers, rights: list[str], root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.run(*(each.replace(" WITH GRANT OPTION", "") for each in rights))
    execute = Session.execute

    def cut_at_the_end(self: Session, statement: str, *args: object) -> object:
        if statement.startswith("DROP USER"):
            self.close()
        return execute(self, statement, *args)

    monkeypatch.setattr(Session, "execute", cut_at_the_end)
    with pytest.raises(Conflict, match=f"DROP USER '{APP}'@'%';"):
        await create_user(users, APP, made_password(), read_only=True)
    monkeypatch.undo()
    # It holds nothing: an administrator's it is now.
    with pytest.raises(Protected):
        await delete_user(users, APP)


async def test_a_session_of_an_account_of_the_same_name_is_left_alone(
    mysql: LiveServer, users: MySQLUsers, rights: list[str], root: Root
) -> None:
    root.run(*rights)
    for host in ("%", "10.9.9.9"):
        root.run(f"CREATE USER '{APP}'@'{host}' IDENTIFIED BY '{PLAIN}'", f"GRANT SELECT ON app.* TO '{APP}'@'{host}'")
    application = pymysql.connect(host=mysql.host, port=mysql.port, user=APP, password=PLAIN)
    with application, application.cursor() as cursor:
        for name in (f"{APP}@10.9.9.9", APP):
            with pytest.raises(Conflict, match="the same user name"):
                await delete_user(users, name)
            assert cursor.execute("SELECT 1")
    assert accounts(root) == ["%", "10.9.9.9"]
    # Without the other, the one can go.
    root.run(f"DROP USER '{APP}'@'%'")
    await delete_user(users, f"{APP}@10.9.9.9")
    assert accounts(root) == []
