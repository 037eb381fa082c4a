"""A server with a binary log, and one that dies in the middle of a restore."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from engines.errors import BackupFailed, Conflict, EngineUnavailable
from engines.mysql import restore
from engines.mysql.driver import Session
from tests.live.mysql.backup.conftest import KEEPER, Shop, let_back_up
from tests.live.mysql.backup.content import make_everything
from tests.live.mysql.conftest import PASSWORD, Root, connect, make_account, until
from tests.live.servers import LiveServer

NAME = "shop"

TABLES = 30


def kill_in(live: LiveServer, seconds: float) -> None:
    """End a server with SIGKILL after some time."""
    container = live.container.get_wrapped_container()
    container.reload()
    threading.Timer(seconds, os.kill, [container.attrs["State"]["Pid"], signal.SIGKILL]).start()


async def start_again(shop: Shop) -> None:
    """Start the server again once it is dead."""
    live = shop.root.live
    await asyncio.to_thread(live.container.get_wrapped_container().wait)
    await asyncio.to_thread(live.start)
    shop.root = Root(live)


@pytest.fixture
async def big(logging: LiveServer) -> AsyncIterator[Shop]:
    """Many tables with rows that say whether they are old or new, on a server that may be killed."""
    root = Root(logging)
    root.drop(NAME)
    root.run(f"CREATE DATABASE {NAME}")
    make_account(logging, KEEPER)
    let_back_up(root, NAME)
    server = connect(logging.url(KEEPER, PASSWORD, database=NAME))
    shop = Shop(NAME, root, server)
    for number in range(TABLES):
        shop.run(f"CREATE TABLE t{number} (word VARCHAR(20))", f"INSERT INTO t{number} VALUES ('new')")
    shop.run("CREATE TRIGGER tr BEFORE INSERT ON t7 FOR EACH ROW SET NEW.word = 'by a trigger'")
    shop.run("CREATE VIEW v AS SELECT t1.word FROM t1 JOIN t2")
    yield shop
    await server.close()
    shop.root.close()


async def test_everything_comes_back_where_there_is_a_binary_log(big: Shop, dumped: Path) -> None:
    make_everything(big.root, NAME)
    if not big.root.is_mariadb:
        # MariaDB's account has SUPER for other reasons.
        big.root.run("SET GLOBAL log_bin_trust_function_creators = OFF")
        assert [each for each in await big.backups.missing() if "log_bin_trust_function_creators=ON" in each]
        big.root.run("SET GLOBAL log_bin_trust_function_creators = ON")
    assert await big.backups.missing() == []
    before = big.content()
    await big.backups.dump(dumped, big.tell)
    for harm in (f"DELETE FROM {NAME}.child", f"DROP DATABASE {NAME}"):
        big.root.run(harm)
        await big.backups.restore(dumped, big.tell)
        assert big.content() == before


def words(root: Root) -> set[str | None]:
    """What the tables say: one word when they are of one restore."""
    return {root.value(f"SELECT GROUP_CONCAT(word) FROM {NAME}.t{number}") for number in range(TABLES)}


async def test_the_server_is_restarted_while_a_backup_is_loaded(big: Shop, dumped: Path) -> None:
    await big.backups.dump(dumped, big.tell)
    big.run(*(f"UPDATE t{number} SET word = 'old'" for number in range(TABLES)))
    killed: list[str] = []

    def tell(_: float, told: str) -> None:
        if "loaded" in told and not killed:
            killed.append(told)
            kill_in(big.root.live, 0.03)

    restoring = asyncio.create_task(big.backups.restore(dumped, tell))
    await until(lambda: bool(killed) or restoring.done())
    await start_again(big)
    with pytest.raises((BackupFailed, EngineUnavailable)):
        await restoring
    # It waited for the server and left nothing to be cleaned up, unless the server has lost track of a file.
    if not big.nothing_is_beside():
        assert big.root.live.version == "10.5"
        await clean_up(big)
        assert big.nothing_is_beside()
    assert words(big.root) == {"old"}
    await big.backups.restore(dumped, big.tell)
    assert words(big.root) == {"new"}


def dies_at_the_swap(monkeypatch: pytest.MonkeyPatch, live: LiveServer, seconds: float) -> None:
    """Kill the server this long after it was told to swap the tables, and let nobody look after the rest."""
    execute = Session.execute

    def followed_by_death(session: Session, statement: str | bytes, *args: object) -> object:
        if str(statement).startswith("RENAME"):
            kill_in(live, seconds)
        return execute(session, statement, *args)

    monkeypatch.setattr(Session, "execute", followed_by_death)
    monkeypatch.setattr(restore, "COMES_BACK_SECONDS", 0)


@pytest.mark.long
async def test_the_server_dies_while_the_tables_are_swapped(big: Shop, dumped: Path) -> None:
    await big.backups.dump(dumped, big.tell)
    # MariaDB 10.5 does not survive a second crash after one in a RENAME TABLE.
    for seconds in (0.006,) if big.root.live.version == "10.5" else (0.02, 0.1, 0.4):
        big.run(*(f"UPDATE t{number} SET word = 'old'" for number in range(TABLES)))
        with pytest.MonkeyPatch.context() as monkeypatch:
            dies_at_the_swap(monkeypatch, big.root.live, seconds)
            with suppress(EngineUnavailable):  # a fast server may have come to the end by then
                await big.backups.restore(dumped, big.tell)
        await start_again(big)
        await clean_up(big)
        assert words(big.root) in ({"old"}, {"new"})
        assert big.nothing_is_beside()
        assert {("TRIGGER", "tr"), ("VIEW", "v")} <= set(big.content())


async def clean_up(big: Shop) -> None:
    try:
        await big.backups.clean_up()
    except Conflict as left:
        # Where DDL is not atomic, a crash in it leaves a file that the server does not know any more.
        assert big.root.live.version == "10.5"
        assert "remove it by hand" in left.message
        lost = [f"/var/lib/mysql/{name}" for name in big.root.names() & set(big.beside)]
        ran = big.root.live.container.get_wrapped_container().exec_run(["rm", "-r", *lost])
        assert ran.exit_code == 0
        await big.backups.clean_up()
