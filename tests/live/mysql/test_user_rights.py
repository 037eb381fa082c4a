"""Accounts whose rights are not their own: by roles, by PROXY, by wildcards. Who may more than a user is left alone."""

from collections.abc import AsyncIterator, Iterator
from typing import cast

import pymysql
import pytest

from engines.errors import Precondition, PrivilegeMissing, Protected
from engines.mysql.facts import Flavour
from engines.mysql.user_rights import user_grants
from engines.mysql.users import MySQLUsers
from engines.users import User, change_password, create_user, delete_user, find_user, made_password
from tests.live.mysql.conftest import Root, connect
from tests.live.servers import LiveServer

VALET = "valet_of_rights"
PLAIN = "pass-of-the-valet-0123"
APP = "app_of_rights"
ROLES = ("role_one", "role_two", "role_three")


@pytest.fixture
def rights(mysql: LiveServer, root: Root, other: str) -> Iterator[list[str]]:
    """What lets an account manage users, which it has not yet; users and roles of the test go away."""
    assert other
    gone = [f"DROP USER IF EXISTS {VALET}", f"DROP USER IF EXISTS {APP}", f"DROP ROLE IF EXISTS {', '.join(ROLES)}"]
    root.run(*gone, f"CREATE USER {VALET} IDENTIFIED BY '{PLAIN}'", f"GRANT SELECT ON app.* TO {VALET}")
    root.run(*(f"CREATE ROLE {role}" for role in ROLES), f"CREATE USER {APP} IDENTIFIED BY '{PLAIN}'")
    yield user_grants(f"'{VALET}'@'%'", "app", cast("Flavour", mysql.flavour), mysql.version_tuple)
    root.run(*gone)


@pytest.fixture
async def users(mysql: LiveServer, rights: list[str], root: Root) -> AsyncIterator[MySQLUsers]:
    root.run(*rights)
    server = connect(mysql.url(VALET, PLAIN, "app"))
    yield MySQLUsers(server)
    await server.close()


def log_in(mysql: LiveServer, password: str = PLAIN) -> "pymysql.connections.Connection[pymysql.cursors.Cursor]":
    return pymysql.connect(
        host=mysql.host,
        port=mysql.port,
        user=APP,
        password=password,
        autocommit=True,
        ssl={"check_hostname": False} if mysql.flavour == "mysql" else None,
    )


async def is_left_alone(users: MySQLUsers, mysql: LiveServer) -> User:
    """Neither its password nor itself is touched."""
    shown = await find_user(users, APP)
    assert shown.protected
    with pytest.raises(Protected):
        await change_password(users, APP, made_password())
    with pytest.raises(Protected):
        await delete_user(users, APP)
    log_in(mysql).close()
    return shown


MORE_BY_A_ROLE = {
    "an administrator": ["GRANT ALL ON *.* TO role_one", f"GRANT role_one TO {APP}"],
    "an administrator of users": ["GRANT CREATE USER ON *.* TO role_one", f"GRANT role_one TO {APP}"],
    "a reader of everything": ["GRANT SELECT ON *.* TO role_one", f"GRANT role_one TO {APP}"],
    "of another database": ["GRANT SELECT ON {other}.* TO role_one", f"GRANT role_one TO {APP}"],
    "of a table of another": ["GRANT SELECT ON {other}.kept TO role_one", f"GRANT role_one TO {APP}"],
    "of a column of another": ["GRANT SELECT (id) ON {other}.kept TO role_one", f"GRANT role_one TO {APP}"],
    "of a routine of another": [
        "CREATE PROCEDURE {other}.made() SELECT 1",
        "GRANT EXECUTE ON PROCEDURE {other}.made TO role_one",
        f"GRANT role_one TO {APP}",
    ],
    "three roles deep": [
        "GRANT SELECT ON app.* TO role_one",
        "GRANT SUPER ON *.* TO role_three",
        "GRANT role_three TO role_two",
        "GRANT role_two TO role_one",
        f"GRANT role_one TO {APP}",
    ],
    "with a right of its own too": [
        f"GRANT SELECT ON app.* TO {APP}",
        "GRANT INSERT ON {other}.* TO role_two",
        "GRANT role_two TO role_one",
        f"GRANT role_one TO {APP}",
    ],
}


@pytest.mark.parametrize("grants", MORE_BY_A_ROLE.values(), ids=MORE_BY_A_ROLE)
async def test_who_may_more_by_a_role_is_left_alone(
    users: MySQLUsers, mysql: LiveServer, root: Root, other: str, grants: list[str]
) -> None:
    root.run(*(each.format(other=other) for each in grants))
    await is_left_alone(users, mysql)


async def test_a_role_that_is_not_active_at_login_counts_as_it_can_be_taken_on(
    users: MySQLUsers, mysql: LiveServer, root: Root, other: str
) -> None:
    root.run(f"GRANT SELECT ON app.* TO {APP}", f"GRANT ALL ON {other}.* TO role_one", f"GRANT role_one TO {APP}")
    with log_in(mysql) as session, session.cursor() as cursor:
        with pytest.raises(pymysql.MySQLError):
            cursor.execute(f"INSERT INTO {other}.kept VALUES (2)")
        cursor.execute("SET ROLE role_one")
        cursor.execute(f"INSERT INTO {other}.kept VALUES (2)")
        cursor.execute(f"DELETE FROM {other}.kept WHERE id = 2")
    assert not (await is_left_alone(users, mysql)).read_only


@pytest.mark.parametrize(("privileges", "read_only"), [("SELECT, SHOW VIEW", True), ("SELECT, INSERT", False)])
async def test_who_has_its_rights_on_the_deployments_database_by_a_role_is_a_user(
    users: MySQLUsers, mysql: LiveServer, root: Root, privileges: str, read_only: bool
) -> None:
    root.run(f"GRANT {privileges} ON app.* TO role_two", "GRANT role_two TO role_one", f"GRANT role_one TO {APP}")
    shown = await find_user(users, APP)
    assert (shown.protected, shown.read_only) == (False, read_only)
    second = made_password()
    await change_password(users, APP, second)
    log_in(mysql, second).close()
    await delete_user(users, APP)
    with pytest.raises(pymysql.MySQLError):
        log_in(mysql, second)
    assert root.value("SELECT COUNT(*) FROM mysql.user WHERE User = 'role_one'") == 1


async def test_a_role_is_no_user_while_others_have_it(users: MySQLUsers, root: Root) -> None:
    root.run("GRANT SELECT ON app.* TO role_one", f"GRANT role_one TO {APP}")
    listed = {user.name: user for user in await users.all()}
    if root.is_mariadb:
        assert "role_one" not in listed
        return
    assert listed["role_one"].protected
    with pytest.raises(Protected):
        await delete_user(users, "role_one")


async def test_who_may_log_in_as_another_is_left_alone(users: MySQLUsers, mysql: LiveServer, root: Root) -> None:
    root.run(f"GRANT SELECT ON app.* TO {APP}", f"GRANT PROXY ON 'root'@'%' TO {APP}")
    assert not (await is_left_alone(users, mysql)).read_only


async def test_a_wildcard_that_reaches_the_servers_own_schema_makes_more_than_a_user(
    users: MySQLUsers, mysql: LiveServer, root: Root
) -> None:
    root.run(f"GRANT SELECT ON app.* TO {APP}", f"GRANT SELECT, INSERT ON `%`.* TO {APP}")
    with log_in(mysql) as session, session.cursor() as cursor:
        assert cursor.execute("SELECT User FROM mysql.user")
    await is_left_alone(users, mysql)


async def test_a_percent_sign_in_the_name_of_a_database_is_none_in_a_grant_on_its_table(
    users: MySQLUsers, mysql: LiveServer, root: Root
) -> None:
    root.run("CREATE DATABASE `a%`", "CREATE TABLE `a%`.t (id INT)")
    try:
        root.run(f"GRANT SELECT ON `a%`.t TO {APP}")
        await is_left_alone(users, mysql)
    finally:
        root.drop("a%")


async def test_who_holds_nothing_has_nothing_to_do_with_the_deployment(users: MySQLUsers, mysql: LiveServer) -> None:
    await is_left_alone(users, mysql)


async def test_who_dbvalet_has_made_is_a_user_beside_all_these(
    users: MySQLUsers, mysql: LiveServer, root: Root
) -> None:
    root.run("GRANT ALL ON *.* TO role_one", f"DROP USER {APP}")
    for read_only in (True, False):
        made = await create_user(users, APP, made_password(), read_only=read_only)
        assert (made.protected, made.read_only) == (False, read_only)
        await change_password(users, APP, made_password())
        await delete_user(users, APP)


async def test_an_account_that_is_not_shown_what_others_hold_manages_none(
    users: MySQLUsers, rights: list[str], root: Root
) -> None:
    root.run(f"GRANT SUPER ON *.* TO {APP}", f"GRANT SELECT ON app.* TO {APP}")
    # Without SELECT on the whole schema, information_schema shows an account no grants but its own.
    tables = [
        row[0] for row in root.rows("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'mysql'")
    ]
    root.run(
        f"REVOKE SELECT ON mysql.* FROM {VALET}", *(f"GRANT SELECT ON mysql.`{each}` TO {VALET}" for each in tables)
    )
    with pytest.raises(PrivilegeMissing, match=r"GRANT SELECT ON mysql\.\*"):
        await users.all()
    with pytest.raises(PrivilegeMissing, match=r"GRANT SELECT ON mysql\.\*"):
        await change_password(users, APP, made_password())
    root.run(*rights)
    assert (await find_user(users, APP)).protected


@pytest.fixture
def everybody(root: Root) -> Iterator[str]:
    """A role that everybody has."""
    if not root.is_mariadb:
        root.run("SET GLOBAL mandatory_roles = 'role_three'")
        yield "role_three"
        root.run("SET GLOBAL mandatory_roles = ''")
        return
    if root.live.version_tuple < (10, 11):
        pytest.skip("MariaDB has PUBLIC since 10.11")
    yield "PUBLIC"
    root.run("REVOKE ALL PRIVILEGES ON app.* FROM PUBLIC")


async def test_no_reader_is_made_where_everybody_writes(
    users: MySQLUsers, mysql: LiveServer, root: Root, everybody: str
) -> None:
    root.run(f"GRANT SELECT ON app.* TO {everybody}", f"DROP USER {APP}")
    assert (await create_user(users, APP, PLAIN + "45", read_only=True)).read_only
    root.run(f"GRANT INSERT ON app.* TO {everybody}", "CREATE TABLE app.of_everybody (n INT)")
    try:
        with log_in(mysql, PLAIN + "45") as session, session.cursor() as cursor:
            if not root.is_mariadb:
                cursor.execute("SET ROLE ALL")
            cursor.execute("INSERT INTO app.of_everybody VALUES (1)")
        shown = await find_user(users, APP)
        assert not shown.read_only
        assert not shown.protected, "who may what everybody may is no more than that"
        await delete_user(users, APP)
        with pytest.raises(Precondition, match="PUBLIC" if root.is_mariadb else "mandatory_roles"):
            await create_user(users, APP, made_password(), read_only=True)
        assert not root.value("SELECT COUNT(*) FROM mysql.user WHERE User = %s", APP)
        made = await create_user(users, APP, made_password(), read_only=False)
        assert (made.read_only, made.protected) == (False, False)
    finally:
        root.run("DROP TABLE app.of_everybody")
