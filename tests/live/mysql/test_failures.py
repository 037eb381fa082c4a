"""Servers that are away, frozen, full or killed: a clear cause in time, nothing left running, nothing done twice."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager

import pymysql
import pytest

from engines import deadline
from engines.errors import ConnectionLost, DeadlineExceeded, EngineError, EngineUnavailable, Precondition
from engines.mysql import ENGINE
from engines.mysql.server import MySQLServer
from tests.live.mysql.conftest import PASSWORD, USER, Root, act, act_on, connect, make_account, sessions_of, until
from tests.live.servers import LiveServer, free_port

CALLS: dict[str, object] = {
    "list-databases": None,
    "create-database": {"database_name": "never"},
    "delete-database": {"database_name": "never"},
    "reset-database": {"database_name": "never"},
    "get-sqlmode": None,
    "set-sqlmode": "ANSI",
}


@contextmanager
def answered_within(seconds: float) -> Generator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def waits_for_a_lock(root: Root) -> bool:
    return any(statement for _, statement in sessions_of(root))


def test_every_action_is_tried() -> None:
    assert set(CALLS) == set(ENGINE.actions)


@pytest.mark.parametrize("action", CALLS)
async def test_a_closed_port(action: str) -> None:
    port = free_port()
    server = connect(f"mysql://{USER}:secret-word@127.0.0.1:{port}/app")
    with answered_within(3), pytest.raises(EngineUnavailable, match=f"127.0.0.1:{port}.*nothing listens") as told:
        await act(server, action, CALLS[action])
    assert "secret-word" not in str(told.value)
    await server.close()


@pytest.mark.parametrize("action", CALLS)
async def test_a_wrong_password(mysql: LiveServer, account: str, action: str) -> None:
    assert account
    server = connect(mysql.url(USER, "secret-word"))
    with answered_within(3), pytest.raises(EngineUnavailable, match=r"refuses the login.*1045") as told:
        await act(server, action, CALLS[action])
    assert "secret-word" not in str(told.value)
    await server.close()


async def test_a_host_that_has_no_address() -> None:
    server = connect(f"mysql://{USER}:secret-word@no-such-host.invalid:3306/app")
    with answered_within(8), pytest.raises(EngineUnavailable, match="cannot be resolved"):
        await act(server, "list-databases")
    await server.close()


async def test_something_that_never_greets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = connect(f"mysql://{USER}:x@127.0.0.1:{silent.getsockname()[1]}/app")
        with answered_within(5), pytest.raises(EngineUnavailable, match="does not answer"):
            await act(server, "list-databases")
        await server.close()


async def test_something_that_is_no_mysql() -> None:
    def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    server = connect(f"mysql://{USER}:x@127.0.0.1:{port}/app")
    with answered_within(5), pytest.raises(EngineUnavailable):
        await act(server, "list-databases")
    await server.close()
    other.close()


async def test_a_logical_database_in_the_url_that_is_not_there(mysql: LiveServer, account: str) -> None:
    assert account
    server = connect(mysql.url(USER, PASSWORD, "not_there"))
    with pytest.raises(EngineUnavailable, match="not_there"):
        await act(server, "list-databases")
    await server.close()


async def test_too_many_connections(mysql: LiveServer, root: Root, fresh: str) -> None:
    assert fresh
    root.run("DROP USER IF EXISTS crowd", "CREATE USER crowd IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 1")
    root.run("GRANT SHOW DATABASES ON *.* TO crowd", "GRANT SELECT ON app.* TO crowd")
    taken = pymysql.connect(host=mysql.host, port=mysql.port, user="crowd", password="x")
    server = connect(mysql.url("crowd", "x"))
    with pytest.raises(EngineUnavailable, match="max_user_connections"):
        await act(server, "list-databases")
    taken.close()
    await until(lambda: not sessions_of(root, "crowd"))
    assert await act(server, "list-databases")
    await server.close()
    root.run("DROP USER crowd")


async def test_ddl_that_waits_for_a_lock_is_given_up_in_time_and_nothing_of_it_waits_on(
    server: MySQLServer, root: Root, filled: str
) -> None:
    with root.another() as holder:
        holder.run("BEGIN", f"SELECT * FROM {filled}.t")
        with (
            answered_within(4),
            deadline.within(3),
            pytest.raises(DeadlineExceeded, match="is still there"),
        ):
            await act_on(server, "delete-database", filled)
        # The server clears its process list a moment after it has answered.
        await until(lambda: not waits_for_a_lock(root), 5)
        assert holder.rows(f"SELECT * FROM {filled}.t") == [(1,)]
        holder.run("COMMIT")
    assert filled in root.names()
    # The next one is not disturbed by it.
    await act_on(server, "delete-database", filled)
    assert filled not in root.names()


async def test_a_read_that_takes_too_long_is_stopped_in_the_engine(server: MySQLServer, root: Root) -> None:
    with (
        answered_within(1.3),
        deadline.within(0.5),
        pytest.raises(DeadlineExceeded, match=r"stopped in the engine|gave the statement up"),
    ):
        await server.fetch("SELECT SLEEP(30) FROM information_schema.SCHEMATA")
    await until(lambda: not waits_for_a_lock(root), 5)
    assert await server.fetch("SELECT 1") == ((1,),)


async def test_somebody_who_stops_waiting_leaves_nothing_running_and_no_spoilt_connection(
    server: MySQLServer, root: Root
) -> None:
    for _ in range(6):
        waiting = asyncio.create_task(server.fetch("SELECT SLEEP(30) FROM information_schema.SCHEMATA"))
        await until(lambda: waits_for_a_lock(root))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: not waits_for_a_lock(root), 2)
        await until(lambda: server.pool_use().in_use == 0, 2)
    assert await server.fetch("SELECT 1") == ((1,),)
    assert server.pool_use().open <= server.pool_use().limit


async def test_reads_go_on_while_writes_wait_and_more_are_told_that_all_are_at_work(
    server: MySQLServer, root: Root, filled: str
) -> None:
    with root.another() as holder:
        holder.run("BEGIN", f"SELECT * FROM {filled}.t")
        waiting = [asyncio.create_task(act_on(server, "delete-database", filled)) for _ in range(3)]
        await until(lambda: len([1 for _, statement in sessions_of(root) if statement]) == 3)
        assert server.pool_use().in_use == 3
        assert await act(server, "get-sqlmode") == root.value("SELECT @@GLOBAL.sql_mode")
        with answered_within(4), pytest.raises(EngineUnavailable, match="at work"):
            await act_on(server, "delete-database", filled)
        reads = await asyncio.gather(*(act(server, "get-sqlmode") for _ in range(50)))
        assert len(reads) == 50
        holder.run("COMMIT")
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert outcomes.count(None) >= 1
    assert filled not in root.names()
    assert server.pool_use().open <= server.pool_use().limit


@pytest.fixture
def read_only(root: Root) -> Iterator[None]:
    root.run("SET GLOBAL super_read_only = ON")
    yield
    root.run("SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF")


@pytest.mark.newest_mysql
@pytest.mark.usefixtures("read_only")
async def test_a_server_that_takes_no_writes_is_told(server: MySQLServer) -> None:
    with pytest.raises(Precondition, match="read-only"):
        await act_on(server, "create-database", "never")


async def cut_while(root: Root, work: Awaitable[object]) -> None:
    """Kill dbvalet's connection while its DROP waits for a lock."""
    task = asyncio.ensure_future(work)

    def dropping() -> list[int]:
        return [number for number, statement in sessions_of(root) if statement and statement.startswith("DROP")]

    await until(lambda: bool(dropping()))
    for number in dropping():
        root.run(f"KILL {number}")
    await task


async def test_a_write_that_was_cut_says_what_is_true_and_is_not_repeated(
    server: MySQLServer, root: Root, filled: str
) -> None:
    with root.another() as holder:
        holder.run("BEGIN", f"SELECT * FROM {filled}.t")
        with answered_within(5), pytest.raises(ConnectionLost, match="is still there"):
            await cut_while(root, act_on(server, "delete-database", filled))
        holder.run("COMMIT")
    await asyncio.sleep(0.1)
    assert root.rows(f"SELECT * FROM {filled}.t") == [(1,)]


async def test_a_write_that_was_cut_after_it_was_done_is_done(
    server: MySQLServer, root: Root, fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engines.mysql.driver import Session

    statements: list[str] = []
    execute = Session.execute

    def execute_and_cut(self: Session, statement: str, *args: object) -> object:
        rows = execute(self, statement, *args)
        statements.append(statement)
        self.close()
        raise ConnectionLost
        return rows

    monkeypatch.setattr(Session, "execute", execute_and_cut)
    assert await act_on(server, "create-database", fresh) == {"name": fresh, "protected": False}
    assert fresh in root.names()
    await act_on(server, "delete-database", fresh)
    assert fresh not in root.names()
    assert len(statements) == 2


@pytest.mark.each_flavour
@pytest.mark.parametrize("late", [ConnectionLost, DeadlineExceeded])
async def test_what_was_never_sent_is_not_said_to_be_done_by_what_others_do(
    server: MySQLServer, root: Root, fresh: str, monkeypatch: pytest.MonkeyPatch, late: type[EngineError]
) -> None:
    from engines.mysql.driver import Session

    prepare = Session.prepare_to_write

    def meanwhile(statement: str) -> None:
        def prepare_late(self: Session) -> None:
            prepare(self)
            root.run(statement)
            raise late

        monkeypatch.setattr(Session, "prepare_to_write", prepare_late)

    meanwhile(f"CREATE DATABASE {fresh}")
    with pytest.raises(late, match="itself was not sent"):
        await act_on(server, "create-database", fresh)
    meanwhile(f"DROP DATABASE {fresh}")
    with pytest.raises(late, match="itself was not sent"):
        await act_on(server, "delete-database", fresh)


@pytest.mark.parametrize("action", ["create-database", "set-sqlmode", "get-sqlmode", "list-databases"])
async def test_a_connection_that_the_server_closed_meanwhile_is_no_error(
    server: MySQLServer, root: Root, fresh: str, action: str
) -> None:
    before = root.value("SELECT @@GLOBAL.sql_mode")
    params = {"create-database": {"database_name": fresh}, "set-sqlmode": before}.get(action)
    await act(server, "list-databases")
    for number, _ in sessions_of(root):
        root.run(f"KILL {number}")
    await until(lambda: not sessions_of(root))
    await act(server, action, params)


# On a server of the test's own, which is frozen, stopped and killed.

Do = Callable[[], Awaitable[object]]


@pytest.mark.parametrize("action", CALLS)
async def test_a_frozen_server_is_told_in_time_and_works_on_afterwards(
    private: LiveServer, private_server: MySQLServer, action: str
) -> None:
    await act(private_server, "get-sqlmode")
    with (
        private.paused(),
        answered_within(2.5),
        deadline.within(1),
        pytest.raises((DeadlineExceeded, EngineUnavailable), match=r"does not answer|The time was up"),
    ):
        await act(private_server, action, CALLS[action])
    assert await act(private_server, "get-sqlmode")
    await until(lambda: private_server.pool_use().in_use == 0)


async def test_a_server_that_was_frozen_before_the_first_connection(private: LiveServer) -> None:
    server = connect(make_account(private))
    with (
        private.paused(),
        answered_within(2.5),
        deadline.within(1),
        pytest.raises(EngineUnavailable, match="does not answer"),
    ):
        await act(server, "list-databases")
    await server.close()


async def test_a_server_that_is_killed_and_comes_back(private: LiveServer, private_server: MySQLServer) -> None:
    await act(private_server, "list-databases")
    private.kill()
    with answered_within(4), pytest.raises(EngineUnavailable):
        await act(private_server, "list-databases")
    with answered_within(4), pytest.raises(EngineUnavailable):
        await act_on(private_server, "create-database", "after_all")
    private.start()
    assert await act(private_server, "list-databases")
    await act_on(private_server, "create-database", "after_all")
    root = Root(private)
    assert "after_all" in root.names()
    await act_on(private_server, "delete-database", "after_all")
    root.close()


async def test_a_server_without_free_connections(private: LiveServer) -> None:
    valet = connect(make_account(private))
    root = Root(private)
    before = root.value("SELECT @@GLOBAL.max_connections")
    root.run("DROP USER IF EXISTS guest", "CREATE USER guest IDENTIFIED BY 'x'")
    root.run(
        "GRANT SHOW DATABASES ON *.* TO guest", "GRANT SELECT ON app.* TO guest", "SET GLOBAL max_connections = 10"
    )
    guests: list[pymysql.connections.Connection[pymysql.cursors.Cursor]] = []
    server = connect(private.url("guest", "x"))
    try:
        with pytest.raises(pymysql.OperationalError, match="1040"):
            while True:
                guests.append(pymysql.connect(host=private.host, port=private.port, user="guest", password="x"))
        with pytest.raises(EngineUnavailable, match="Too many connections"):
            await act(server, "list-databases")
        if root.is_mariadb:
            # SUPER has a connection kept for it.
            root.close()
            assert await act(valet, "list-databases")
    finally:
        for guest in guests:
            guest.close()
        await server.close()
        await valet.close()
        again = Root(private)
        again.run(f"SET GLOBAL max_connections = {before}", "DROP USER guest")
        again.close()
