"""A server with a binary log, and one that dies in the middle of a restore."""

import asyncio
import os
import re
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

TABLES_OF = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"


def process_of(live: LiveServer) -> int:
    """Give the process that is the server; `kill` of Docker takes so long that more has happened by then."""
    container = live.container.get_wrapped_container()
    container.reload()
    return int(container.attrs["State"]["Pid"])


def kill_in(live: LiveServer, seconds: float) -> None:
    """End a server with SIGKILL after some time."""
    threading.Timer(seconds, os.kill, [process_of(live), signal.SIGKILL]).start()


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
    (fresh, _), server = big.beside, process_of(big.root.live)
    restoring = asyncio.create_task(big.backups.restore(dumped, big.tell))
    await until(lambda: big.root.value(TABLES_OF, fresh) > TABLES // 5)
    os.kill(server, signal.SIGKILL)
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


def in_container(live: LiveServer, *command: str) -> None:
    assert live.container.get_wrapped_container().exec_run([*command]).exit_code == 0


@pytest.mark.parametrize("undone", [True, False])
async def test_a_file_that_only_a_hand_can_remove_is_named_and_not_waited_for(
    big: Shop, dumped: Path, monkeypatch: pytest.MonkeyPatch, *, undone: bool
) -> None:
    await big.backups.dump(dumped, big.tell)
    big.run(*(f"UPDATE t{number} SET word = 'old'" for number in range(TABLES)))
    # Longer than a test may take.
    monkeypatch.setattr(restore, "COMES_BACK_SECONDS", 3600)
    fresh, _ = big.beside
    file = f"/var/lib/mysql/{fresh}/left.behind"

    def tell(percent: float, _: str) -> None:
        if percent == 86:
            in_container(big.root.live, "touch", file)
            if undone:
                # What is missing in the end is not put in the place of the old.
                big.root.run(f"DROP TABLE {fresh}.t3")

    with pytest.raises(BackupFailed if undone else Conflict):
        await big.backups.restore(dumped, tell)
    with pytest.raises(Conflict, match=f"the {'old' if undone else 'restored'} data are in their place.* by hand"):
        await big.backups.clean_up()
    assert words(big.root) == {"old" if undone else "new"}
    assert {("TRIGGER", "tr"), ("VIEW", "v")} <= set(big.content())
    # What the application does from here on is its own, however often it is tried again.
    big.root.run(f"DROP VIEW {NAME}.v", f"ALTER DATABASE {NAME} CHARACTER SET latin1")
    with pytest.raises(Conflict):
        await big.backups.clean_up()
    assert ("VIEW", "v") not in big.content()
    assert (
        big.root.value(
            "SELECT DEFAULT_CHARACTER_SET_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s", NAME
        )
        == "latin1"
    )
    in_container(big.root.live, "rm", file)
    await big.backups.clean_up()
    assert big.nothing_is_beside()
    assert words(big.root) == {"old" if undone else "new"}


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
        # Of the other one the server knows the files: it never ends to drop what was taken from it.
        found = re.search(r"rmdir '\./(\w+)'", left.message)
        assert found and found[1] in big.beside
        in_container(big.root.live, "find", f"/var/lib/mysql/{found[1]}", "-type", "f", "-delete")
        await big.backups.clean_up()
