"""An account that may not do it is told what is missing and the GRANT, and the GRANT is enough."""

import re
from collections.abc import AsyncIterator, Iterator

import pytest

from engines.engine import GrantsFor, lacking
from engines.errors import Conflict, PrivilegeMissing
from engines.mysql import ENGINE
from engines.mysql.server import MySQLServer
from tests.live.admins import as_admin
from tests.live.mysql.conftest import Root, act, act_on, connect, make_account
from tests.live.servers import LiveServer

PLAIN = "little"
PLAIN_PASSWORD = "of little rights"


@pytest.fixture
def little(mysql: LiveServer, root: Root) -> Iterator[str]:
    """The URL of an account that may use tables of `app` and nothing else."""
    root.run(f"DROP USER IF EXISTS {PLAIN}", f"CREATE USER {PLAIN} IDENTIFIED BY '{PLAIN_PASSWORD}'")
    root.run(f"GRANT SELECT ON app.* TO {PLAIN}")
    yield mysql.url(PLAIN, PLAIN_PASSWORD)
    root.run(f"DROP USER {PLAIN}")


@pytest.fixture
async def refused(little: str) -> AsyncIterator[MySQLServer]:
    connected = connect(little)
    yield connected
    await connected.close()


async def comes_through(server: MySQLServer, root: Root, action: str, params: object) -> set[str]:
    """Try, apply each GRANT that the refusal gives, and try again on the same connections; give the privileges."""
    granted: set[str] = set()
    for _ in range(8):
        try:
            await act(server, action, params)
        except PrivilegeMissing as missing:
            assert missing.privilege
            remedies = re.findall(r"Missing: (.+?)\. Remedy: (GRANT (.+?) ON \*\.\* TO 'little'@'%';)", missing.message)
            assert remedies, missing.message
            for name, remedy, privilege in remedies:
                assert privilege in name
                root.run(remedy)
                granted.add(privilege)
        else:
            return granted
    raise AssertionError(f"{action} is refused after {granted}")


async def test_list_is_refused_when_it_would_leave_some_out(refused: MySQLServer, root: Root, other: str) -> None:
    assert await comes_through(refused, root, "list-databases", None) == {"SHOW DATABASES"}
    assert {"name": other, "protected": False} in await act(refused, "list-databases")


async def test_the_first_list_after_a_grant_leaves_none_out(refused: MySQLServer, root: Root, other: str) -> None:
    with pytest.raises(PrivilegeMissing):
        await act(refused, "list-databases")
    root.run(f"GRANT SHOW DATABASES ON *.* TO {PLAIN}")
    # The session is of before: it still sees less.
    assert {"name": other, "protected": False} in await act(refused, "list-databases")


async def test_create(refused: MySQLServer, root: Root, fresh: str) -> None:
    with pytest.raises(PrivilegeMissing, match="CREATE"):
        await act_on(refused, "create-database", fresh)
    assert fresh not in root.names()
    assert await comes_through(refused, root, "create-database", {"database_name": fresh}) == {"CREATE"}
    assert fresh in root.names()


async def test_delete(refused: MySQLServer, root: Root, filled: str) -> None:
    # The account cannot even see whether it is there.
    for name in (filled, "absent"):
        with pytest.raises(PrivilegeMissing, match="GRANT DROP ON"):
            await act_on(refused, "delete-database", name)
    assert root.rows(f"SELECT * FROM {filled}.t") == [(1,)]
    assert await comes_through(refused, root, "delete-database", {"database_name": filled}) == {"DROP"}
    assert filled not in root.names()


async def test_reset(refused: MySQLServer, root: Root, filled: str) -> None:
    root.run(
        f"CREATE PROCEDURE {filled}.p() SELECT 1",
        f"CREATE EVENT {filled}.e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
        f"CREATE VIEW {filled}.v AS SELECT 1",
    )
    needed = {"DROP", "ALTER ROUTINE", "EVENT"} | (set() if root.is_mariadb else {"SYSTEM_USER"})
    assert await comes_through(refused, root, "reset-database", {"database_name": filled}) == needed
    assert root.rows(f"SHOW TABLES FROM {filled}") == []
    for table, column in (("ROUTINES", "ROUTINE"), ("EVENTS", "EVENT")):
        assert root.value(f"SELECT COUNT(*) FROM information_schema.{table} WHERE {column}_SCHEMA = %s", filled) == 0


@pytest.mark.parametrize("given", [("DROP",), ("DROP", "EVENT"), ("DROP", "ALTER ROUTINE"), ("ALTER ROUTINE", "EVENT")])
async def test_reset_never_says_that_it_is_done_while_something_is_hidden(
    refused: MySQLServer, root: Root, filled: str, given: tuple[str, ...]
) -> None:
    root.run(f"GRANT {', '.join(given)} ON *.* TO {PLAIN}")
    root.run(
        f"CREATE PROCEDURE {filled}.p() SELECT 1",
        f"CREATE EVENT {filled}.e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
    )
    missing = {"DROP", "ALTER ROUTINE", "EVENT"} - set(given)
    with pytest.raises(PrivilegeMissing) as told:
        await act_on(refused, "reset-database", filled)
    for privilege in missing:
        assert f"GRANT {privilege} ON" in told.value.message


@pytest.mark.newest_mysql
async def test_a_reset_that_is_refused_has_removed_nothing_or_says_what(
    refused: MySQLServer, root: Root, filled: str
) -> None:
    root.run(
        f"GRANT DROP, ALTER ROUTINE, EVENT ON *.* TO {PLAIN}",
        f"CREATE PROCEDURE {filled}.b() SELECT 1",
        f"CREATE VIEW {filled}.v AS SELECT 1",
        f"CREATE FUNCTION {filled}.f() RETURNS INT DETERMINISTIC RETURN 1",
    )
    for _ in range(2):
        # Whichever root has defined: what the server refuses comes before the tables, which it does not.
        with pytest.raises(PrivilegeMissing, match="GRANT SYSTEM_USER"):
            await act_on(refused, "reset-database", filled)
        assert root.rows(f"SELECT * FROM {filled}.t") == [(1,)]
        root.run(f"DROP VIEW IF EXISTS {filled}.v")
    root.run(f"CREATE DEFINER = {PLAIN} PROCEDURE {filled}.a() SELECT 1")
    with pytest.raises(Conflict, match=r"1 object was removed.*GRANT SYSTEM_USER.*again completes it"):
        await act_on(refused, "reset-database", filled)
    assert root.rows(f"SELECT * FROM {filled}.t") == [(1,)]
    root.run(f"GRANT SYSTEM_USER ON *.* TO {PLAIN}")
    await act_on(refused, "reset-database", filled)
    assert root.rows(f"SHOW TABLES FROM {filled}") == []


async def test_get_sqlmode_needs_nothing(refused: MySQLServer, root: Root) -> None:
    assert await act(refused, "get-sqlmode") == root.value("SELECT @@GLOBAL.sql_mode")


async def test_set_sqlmode(refused: MySQLServer, root: Root) -> None:
    before = root.value("SELECT @@GLOBAL.sql_mode")
    with pytest.raises(PrivilegeMissing):
        await act(refused, "set-sqlmode", "ANSI")
    assert root.value("SELECT @@GLOBAL.sql_mode") == before
    needed = {"SUPER"} if root.is_mariadb else {"SYSTEM_VARIABLES_ADMIN"}
    assert await comes_through(refused, root, "set-sqlmode", before) == needed


async def test_privileges_by_a_role_count(refused: MySQLServer, root: Root) -> None:
    root.run("DROP ROLE IF EXISTS keeper", "CREATE ROLE keeper")
    root.run("GRANT CREATE, DROP ON *.* TO keeper", f"GRANT keeper TO {PLAIN}")
    root.run(f"SET DEFAULT ROLE keeper {'FOR' if root.is_mariadb else 'TO'} {PLAIN}")
    await refused.log_in()
    listed = await act(refused, "list-databases")
    assert "app" in {each["name"] for each in listed}
    assert await lacking(refused, ("SHOW DATABASES", "CREATE", "DROP")) == []
    assert await lacking(refused, ("EVENT",)) == ["Missing: EVENT. Remedy: GRANT EVENT ON *.* TO 'little'@'%';"]
    root.run("DROP ROLE keeper")


async def test_the_account_of_the_script_lacks_nothing(server: MySQLServer) -> None:
    for action in ENGINE.actions.values():
        assert await lacking(server, action.privileges + action.settings) == []


async def test_root_lacks_nothing(mysql: LiveServer) -> None:
    with as_admin("it is about root itself"):
        server = connect(mysql.url())
    for action in ENGINE.actions.values():
        assert await lacking(server, action.privileges) == []
    await server.close()


async def test_the_script_can_be_run_again_and_sets_the_password(mysql: LiveServer, root: Root) -> None:
    odd = "odd'na\\me"
    url = make_account(mysql, odd)
    root.rows("ALTER USER %s IDENTIFIED BY 'forgotten'", odd)
    make_account(mysql, odd)
    server = connect(url)
    assert (await server.log_in()).account == "'odd''na\\\\me'@'%'"
    assert await act(server, "list-databases")
    await server.close()
    root.rows("DROP USER %s", odd)


@pytest.mark.newest_mysql
async def test_what_the_script_says_of_partial_revokes_holds(mysql: LiveServer, root: Root, filled: str) -> None:
    url = make_account(mysql, "without_system")
    script = ENGINE.grants(GrantsFor(user="without_system"))
    revokes = re.findall(r"^--   (REVOKE .+;)$", script, flags=re.MULTILINE)
    assert len(revokes) == 2
    root.run("SET GLOBAL partial_revokes = ON", *revokes)
    server = connect(url)
    try:
        for action in ENGINE.actions.values():
            assert await lacking(server, action.privileges) == []
        assert {"name": filled, "protected": False} in await act(server, "list-databases")
        await act_on(server, "reset-database", filled)
        await act_on(server, "delete-database", filled)
        assert (await server.describe()).created_at is None
        with pytest.raises(PrivilegeMissing):
            await server.fetch("DROP TABLE mysql.plugin")
    finally:
        await server.close()
        root.run("DROP USER without_system", "SET GLOBAL partial_revokes = OFF")


async def test_the_account_of_the_script_reads_and_changes_no_row(account: str, root: Root, filled: str) -> None:
    server = connect(account)
    for statement in (f"SELECT * FROM {filled}.t", "SELECT * FROM mysql.user"):
        with pytest.raises(PrivilegeMissing):
            await server.fetch(statement)
    await server.close()
    assert root.rows(f"SELECT * FROM {filled}.t") == [(1,)]


async def test_privileges_on_one_database_are_enough_to_reset_it(refused: MySQLServer, root: Root, other: str) -> None:
    near = "app_x"
    root.run(f"CREATE DATABASE {near}", f"CREATE TABLE {near}.t (id INT)", "CREATE DATABASE appzx")
    root.run("CREATE PROCEDURE app.p() SQL SECURITY INVOKER SELECT 1", "CREATE TABLE app.t (id INT)")
    try:
        root.run(f"GRANT ALL ON app.* TO {PLAIN}", rf"GRANT DROP, ALTER ROUTINE, EVENT ON `app\_x`.* TO {PLAIN}")
        if not root.is_mariadb:
            root.run(f"GRANT SYSTEM_USER ON *.* TO {PLAIN}")
        # The names in SHOW GRANTS are quoted as the session's mode says.
        root.run("SET GLOBAL sql_mode = 'ANSI_QUOTES'")
        await act_on(refused, "reset-database", "app")
        await act_on(refused, "reset-database", near)
        assert root.rows("SHOW TABLES FROM app") == root.rows(f"SHOW TABLES FROM {near}") == []
        for hidden in ("appzx", other):
            with pytest.raises(PrivilegeMissing):
                await act_on(refused, "reset-database", hidden)
    finally:
        root.run("SET GLOBAL sql_mode = DEFAULT")
        root.drop(near, "appzx")
