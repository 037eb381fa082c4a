"""The SQL mode is read, replaced, checked by the server, and kept over a restart of the server."""

from collections.abc import Iterator

import pytest

from engines.aftermath import Goal, Verdict, judge
from engines.engine import ForgetfulMemory, look
from engines.errors import EngineUnavailable, InvalidParams, Precondition
from engines.mysql import ENGINE, sql_mode
from engines.mysql.server import MySQLServer
from tests.live.mysql.conftest import Root, act, connect, make_account
from tests.live.servers import LiveServer

DOCUMENTED = "NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO"


@pytest.fixture(autouse=True)
def put_back(root: Root) -> Iterator[None]:
    before = global_mode(root)
    yield
    if not root.is_mariadb:
        root.run("RESET PERSIST IF EXISTS sql_mode")
    root.rows("SET GLOBAL sql_mode = %s", before)


def global_mode(root: Root) -> str:
    return root.value("SELECT @@GLOBAL.sql_mode")


def as_set(mode: str) -> set[str]:
    return set(mode.split(","))


@pytest.mark.parametrize("mode", ["", "STRICT_ALL_TABLES", "ANSI", "TRADITIONAL,NO_BACKSLASH_ESCAPES"])
async def test_get_tells_the_global_mode_whoever_set_it(server: MySQLServer, root: Root, mode: str) -> None:
    root.rows("SET GLOBAL sql_mode = %s", mode)
    assert await act(server, "get-sqlmode") == global_mode(root)


async def test_set_replaces_the_mode_for_new_sessions(server: MySQLServer, root: Root) -> None:
    root.run("SET GLOBAL sql_mode = 'STRICT_ALL_TABLES'")
    with root.another() as open_before:
        kept = open_before.value("SELECT @@SESSION.sql_mode")
        assert await act(server, "set-sqlmode", DOCUMENTED) is None
        assert open_before.value("SELECT @@SESSION.sql_mode") == kept
    assert global_mode(root) == DOCUMENTED
    assert await act(server, "get-sqlmode") == DOCUMENTED
    with root.another() as opened_after:
        assert opened_after.value("SELECT @@SESSION.sql_mode") == DOCUMENTED


async def test_the_empty_string_clears_the_mode(server: MySQLServer, root: Root) -> None:
    await act(server, "set-sqlmode", "")
    assert global_mode(root) == ""
    assert await act(server, "get-sqlmode") == ""


@pytest.mark.parametrize("text", ["ANSI", "ansi", "ANSI,", " Ansi , ansi", "ANSI\n"])
async def test_a_combination_is_written_in_any_way_that_is_plain(server: MySQLServer, root: Root, text: str) -> None:
    root.run("SET SESSION sql_mode = 'ANSI'")
    ansi = root.value("SELECT @@SESSION.sql_mode")
    root.run("SET SESSION sql_mode = DEFAULT")
    await act(server, "set-sqlmode", text)
    assert global_mode(root) == ansi


@pytest.mark.parametrize(
    "text",
    [
        "NOPE",
        "ANSI,NOPE",
        "NOT_USED",
        "ANSI TRADITIONAL",
        "3",
        "an\u017fi",
        "ANSI\0",
        "' OR 1",
        "DEFAULT",
        "A" * 300,
        "\U0001f600",
    ],
)
async def test_an_unknown_mode_is_refused_with_those_of_this_server(server: MySQLServer, root: Root, text: str) -> None:
    before = global_mode(root)
    with pytest.raises(InvalidParams) as refused:
        await act(server, "set-sqlmode", text)
    assert global_mode(root) == before
    [told] = refused.value.errors["params"]
    for known in ("ANSI", "TRADITIONAL", "STRICT_TRANS_TABLES", "NO_BACKSLASH_ESCAPES"):
        assert f" {known}" in told
    assert (" ORACLE," in told) == root.is_mariadb
    assert "NOT_USED," not in told.partition("It knows")[2]


async def test_every_mode_that_the_refusal_names_is_accepted(server: MySQLServer, root: Root) -> None:
    with pytest.raises(InvalidParams) as refused:
        await act(server, "set-sqlmode", "NOPE")
    names = refused.value.errors["params"][0].partition("It knows ")[2].rstrip(".").split(", ")
    assert len(names) > 15
    await act(server, "set-sqlmode", ",".join(names))
    assert as_set(global_mode(root)) == set(names)


async def test_a_mode_that_mysql_removed_is_refused_there(server: MySQLServer, root: Root) -> None:
    if root.is_mariadb:
        await act(server, "set-sqlmode", "NO_AUTO_CREATE_USER")
        assert global_mode(root) == "NO_AUTO_CREATE_USER"
    else:
        with pytest.raises(InvalidParams, match="NO_AUTO_CREATE_USER"):
            await act(server, "set-sqlmode", "NO_AUTO_CREATE_USER")


@pytest.mark.parametrize("params", [None, {}, 1, ["ANSI"], {"mode": "ANSI"}, " ", ",", "A" * 3000])
async def test_wrong_params_are_refused(server: MySQLServer, root: Root, params: object) -> None:
    before = global_mode(root)
    with pytest.raises(InvalidParams):
        await act(server, "set-sqlmode", params)
    assert global_mode(root) == before


async def test_the_statements_of_dbvalet_do_not_depend_on_the_mode(server: MySQLServer, root: Root, fresh: str) -> None:
    for mode in ("ANSI_QUOTES,NO_BACKSLASH_ESCAPES", "ANSI,TRADITIONAL", "PAD_CHAR_TO_FULL_LENGTH,IGNORE_SPACE"):
        await act(server, "set-sqlmode", mode)
        again = connect(server.address.url)
        for action in ("create-database", "reset-database", "delete-database"):
            await act(again, action, {"database_name": fresh})
        assert as_set(mode) <= as_set(await act(again, "get-sqlmode"))
        await again.close()


# On a server of the test's own, as it is restarted.


async def test_the_mode_survives_a_restart_of_the_server(private: LiveServer, private_server: MySQLServer) -> None:
    before = await private_server.describe()
    await act(private_server, "set-sqlmode", DOCUMENTED)
    private.restart()
    # Nobody has described the server since: the first read notices by itself.
    assert await act(private_server, "get-sqlmode") == DOCUMENTED
    root = Root(private)
    assert global_mode(root) == DOCUMENTED
    root.close()
    after = await private_server.describe()
    assert after.started_at > before.started_at
    assert (after.resource_id, after.created_at) == (before.resource_id, before.created_at)


async def test_a_cleared_mode_survives_a_restart_of_the_server_and_of_dbvalet(private: LiveServer) -> None:
    url, memory = make_account(private), ForgetfulMemory()
    first = connect(url, memory)
    await act(first, "set-sqlmode", "")
    await first.close()
    private.restart()
    second = connect(url, memory)
    await second.restarted(await second.describe())
    root = Root(private)
    assert global_mode(root) == ""
    # What somebody sets afterwards on the same run of the server is left alone.
    root.run("SET GLOBAL sql_mode = 'IGNORE_SPACE'")
    await second.restarted(await second.describe())
    await second.close()
    third = connect(url, memory)
    assert await act(third, "get-sqlmode") == "IGNORE_SPACE"
    await third.close()
    root.close()


class Failing(ForgetfulMemory):
    """A memory that cannot be written at first."""

    fails = True

    async def remember(self, key: str, value: object) -> None:
        if self.fails:
            self.fails = False
            raise Precondition("The disk is full.")
        await super().remember(key, value)


@pytest.mark.one_mariadb
async def test_a_mode_that_could_not_be_remembered_is_told_and_set_again_by_the_retry(private: LiveServer) -> None:
    server = connect(make_account(private), Failing())
    setting = ENGINE.actions["set-sqlmode"]

    async def seen() -> list[str]:
        return list(await look(server, setting, DOCUMENTED) or [])

    await act(server, "get-sqlmode")
    before = await seen()
    with pytest.raises(EngineUnavailable, match=r"set until the server's next restart.*The disk is full"):
        await act(server, "set-sqlmode", DOCUMENTED)
    assert judge(Goal.THERE, before, await seen()) is Verdict.NOT_DONE
    await act(server, "set-sqlmode", DOCUMENTED)
    assert judge(Goal.THERE, before, await seen()) is Verdict.DONE
    private.restart()
    assert await act(server, "get-sqlmode") == DOCUMENTED
    await server.close()


async def test_mysql_keeps_it_itself_and_mariadb_is_remembered(account: str, root: Root) -> None:
    memory = ForgetfulMemory()
    server = connect(account, memory)
    await act(server, "set-sqlmode", "ANSI_QUOTES")
    remembered = await memory.recall("sql_mode")
    if root.is_mariadb:
        assert remembered == {"mode": "ANSI_QUOTES", "started_at": server.facts.started_at.isoformat()}
    else:
        assert remembered is None
        kept = "SELECT VARIABLE_VALUE FROM performance_schema.persisted_variables WHERE VARIABLE_NAME = 'sql_mode'"
        assert root.value(kept) == "ANSI_QUOTES"
    await server.close()


@pytest.mark.newest_mysql
async def test_a_mysql_that_does_not_load_what_it_persists_is_remembered(
    account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_mode, "KEPT", sql_mode.KEPT.replace("@@GLOBAL.persisted_globals_load", "0"))
    memory = ForgetfulMemory()
    server = connect(account, memory)
    await act(server, "set-sqlmode", "ANSI_QUOTES")
    assert (await memory.recall("sql_mode"))["mode"] == "ANSI_QUOTES"
    monkeypatch.undo()
    await act(server, "set-sqlmode", "ANSI_QUOTES")
    assert await memory.recall("sql_mode") is None
    await server.close()
