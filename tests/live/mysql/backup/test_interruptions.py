"""A restore that is stopped anywhere leaves the old data or the new, and cleaned up nothing beside them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engines.errors import BackupFailed, ConnectionLost
from engines.mysql import restore, swap
from engines.mysql.connection import lock_name
from engines.mysql.driver import Session
from engines.mysql.journal import places_beside
from tests.leftovers import OtherProgram, descendants
from tests.live.mysql.backup.conftest import Fakes, Shop
from tests.live.mysql.backup.content import Content
from tests.live.mysql.backup.programs import NAMES
from tests.live.mysql.conftest import until

SMALL = (
    "CREATE TABLE parent (id INT PRIMARY KEY, name VARCHAR(20))",
    "CREATE TABLE child (id INT PRIMARY KEY, p INT, CONSTRAINT named FOREIGN KEY (p) REFERENCES parent (id))",
    "INSERT INTO parent VALUES (1, 'as it was')",
    "INSERT INTO child VALUES (1, 1)",
    "CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1",
    "CREATE VIEW v AS SELECT *, f() AS f FROM parent",
    "CREATE TRIGGER z BEFORE INSERT ON parent FOR EACH ROW SET NEW.name = CONCAT(NEW.name, '!')",
    "CREATE TRIGGER a BEFORE INSERT ON parent FOR EACH ROW SET NEW.name = CONCAT(NEW.name, '?')",
    "CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2036-01-01' DO SELECT 1",
    "CREATE TABLE was_a_table (a INT)",
)

OF_MARIADB = (
    "CREATE SEQUENCE s",
    "CREATE TABLE numbered (id INT DEFAULT NEXTVAL(s))",
    "INSERT INTO numbered VALUES ()",
)

LATER = (
    "INSERT INTO parent VALUES (2, 'later')",
    "INSERT INTO child VALUES (2, 2)",
    "CREATE TABLE later (a INT)",
    "CREATE TRIGGER later_trigger BEFORE INSERT ON child FOR EACH ROW SET NEW.id = NEW.id",
    "CREATE PROCEDURE later_procedure() SELECT 1",
    "DROP FUNCTION f",
    "CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 2",
    "DROP TABLE was_a_table",
    "CREATE VIEW was_a_table AS SELECT 1 AS a",
    "ALTER DATABASE CHARACTER SET latin1",
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the restore goes on."""


@pytest.fixture
async def small(empty_shop: Shop, dumped: Path, other: str) -> AsyncIterator[Shop]:
    """A logical database that was backed up; another one refers to it where the server can exchange such tables."""
    root = empty_shop.root
    empty_shop.run(*SMALL, *(OF_MARIADB if root.is_mariadb else ()))
    if root.live.version == "10.5":
        await empty_shop.backups.dump(dumped, empty_shop.tell)
        yield empty_shop
        return
    reference = f"CONSTRAINT into_it FOREIGN KEY (p) REFERENCES {empty_shop.name}.parent (id)"
    root.run(f"CREATE TABLE {other}.guest (p INT, {reference})", f"INSERT INTO {other}.guest VALUES (1)")
    guest = root.rows(f"SHOW CREATE TABLE {other}.guest")
    await empty_shop.backups.dump(dumped, empty_shop.tell)
    yield empty_shop
    assert root.rows(f"SHOW CREATE TABLE {other}.guest") == guest


@pytest.fixture
def backup(small: Shop) -> Content:
    """What is in the backup."""
    content = small.content()
    small.run(*LATER)
    return content


@pytest.fixture
def later(small: Shop, backup: Content) -> Content:
    """What there is since."""
    content = small.content()
    assert content != backup
    return content


READING = ("SELECT", "SHOW", "USE", "SET")


def dies_before(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Let a restore die before its nth statement that changes something, and nothing of it look after the rest.

    Gives the statements that were run until then.
    """
    run: list[str] = []
    execute = Session.execute

    def counted(self: Session, statement: str | bytes, *args: object) -> Any:
        text = statement.decode("latin1") if isinstance(statement, bytes) else statement.strip()
        if not text.startswith(READING):
            if len(run) == number:
                raise Killed
            run.append(text)
        return execute(self, statement, *args)

    async def dead(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(Session, "execute", counted)
    monkeypatch.setattr(restore, "_settle", dead)
    return run


@pytest.mark.newest_version
@pytest.mark.long
async def test_killed_before_any_statement(small: Shop, backup: Content, later: Content, dumped: Path) -> None:
    found: list[str] = []
    for number in range(500):
        with pytest.MonkeyPatch.context() as monkeypatch:
            statements = dies_before(monkeypatch, number)
            try:
                await small.backups.restore(dumped, small.tell)
            except Killed:
                pass
            else:
                break
        await small.backups.clean_up()
        now = small.content()
        assert now in (backup, later), f"killed after {statements}"
        found.append("old" if now == later else "new")
        assert small.nothing_is_beside()
        if now == backup:
            small.run(*LATER)
    assert found == sorted(found, reverse=True), "once the tables are swapped there is no way back"
    assert {"old", "new"} <= set(found)
    assert small.content() == backup


@pytest.mark.newest_version
@pytest.mark.long
async def test_cleaning_up_is_killed_before_any_statement(
    small: Shop, backup: Content, later: Content, dumped: Path
) -> None:
    # Right before the tables are moved, when triggers are dropped already; and right after it.
    for died_at, swapped in (("rename", False), ("finish", True)):
        for number in range(500):
            with pytest.MonkeyPatch.context() as monkeypatch:
                dies_before(monkeypatch, 1000)
                monkeypatch.setattr(swap, died_at, killed)
                with pytest.raises(Killed):
                    await small.backups.restore(dumped, small.tell)
            with pytest.MonkeyPatch.context() as monkeypatch:
                statements = dies_before(monkeypatch, number)
                try:
                    await small.backups.clean_up()
                except Killed:
                    pass
                else:
                    break
            await small.backups.clean_up()
            assert small.content() == (backup if swapped else later), f"killed after {statements}"
            assert small.nothing_is_beside()
            if swapped:
                small.run(*LATER)


def killed(*_: object) -> None:
    raise Killed


def when_told(small: Shop, words: str, do: Callable[[], object]) -> Callable[[float, str], None]:
    """Do something once, when these words are told."""
    done: list[bool] = []

    def tell(percent: float, told: str) -> None:
        small.tell(percent, told)
        if words in told and not done:
            done.append(True)
            do()

    return tell


STEPS = ("Checking the backup", "loaded", "Checking what was loaded", "Swapping")

LAST_STEP = "Making views"


@pytest.mark.parametrize("step", STEPS)
async def test_cancelled_before_the_swap_the_old_data_stay(
    small: Shop, backup: Content, later: Content, dumped: Path, step: str
) -> None:
    restoring = asyncio.create_task(small.backups.restore(dumped, when_told(small, step, lambda: restoring.cancel())))
    with pytest.raises(asyncio.CancelledError):
        await restoring
    assert small.content() == later
    assert small.nothing_is_beside()
    await small.backups.restore(dumped, small.tell)
    assert small.content() == backup


async def test_cancelled_again_and_again_the_old_data_stay_all_the_same(
    small: Shop, later: Content, dumped: Path
) -> None:
    async def cancel() -> None:
        while not restoring.done():
            restoring.cancel()
            await asyncio.sleep(0.005)

    def begin_to_cancel() -> None:
        cancelling.append(asyncio.create_task(cancel()))

    cancelling: list[asyncio.Task[None]] = []
    restoring = asyncio.create_task(
        small.backups.restore(dumped, when_told(small, "Checking what was loaded", begin_to_cancel))
    )
    with pytest.raises(asyncio.CancelledError):
        await restoring
    assert small.content() == later
    assert small.nothing_is_beside()


async def test_cancelled_after_the_swap_it_is_brought_to_its_end(small: Shop, backup: Content, dumped: Path) -> None:
    restoring = asyncio.create_task(
        small.backups.restore(dumped, when_told(small, LAST_STEP, lambda: restoring.cancel()))
    )
    notes = await restoring
    assert "Cancelled too late" in notes[-1]
    assert small.content() == backup
    assert small.nothing_is_beside()


@pytest.mark.parametrize("step", STEPS[1:])
async def test_a_connection_cut_before_the_swap_leaves_the_old_data(
    small: Shop, backup: Content, later: Content, dumped: Path, step: str
) -> None:
    with pytest.raises(ConnectionLost):
        await small.backups.restore(dumped, when_told(small, step, lambda: cut(small)))
    assert small.content() == later
    assert small.nothing_is_beside()
    await small.backups.restore(dumped, small.tell)
    assert small.content() == backup


async def test_a_connection_cut_after_the_swap_does_not_matter(small: Shop, backup: Content, dumped: Path) -> None:
    await small.backups.restore(dumped, when_told(small, LAST_STEP, lambda: cut(small)))
    assert small.content() == backup
    assert small.nothing_is_beside()


def cut(small: Shop) -> None:
    small.root.rows("KILL %s", small.root.value("SELECT IS_USED_LOCK(%s)", lock_name("restore", small.name)))


async def test_a_client_that_is_killed_leaves_the_old_data(
    small: Shop, later: Content, dumped: Path, fakes: Fakes
) -> None:
    fakes.put_before(NAMES[small.root.live.flavour][1], 'head -n 20 | $real "$@"; kill -9 $$')
    with pytest.raises(BackupFailed, match="-9"):
        await small.backups.restore(dumped, small.tell)
    assert small.content() == later
    assert small.nothing_is_beside()


async def test_what_the_server_refuses_is_said_and_leaves_the_old_data(
    small: Shop, later: Content, dumped: Path, fakes: Fakes
) -> None:
    client = NAMES[small.root.live.flavour][1]
    fakes.put_before(client, '{ echo "SELECT 1;"; echo "INSERT INTO nowhere VALUES (\'secret row\');"; } | $real "$@"')
    with pytest.raises(BackupFailed, match=r"ERROR 1146 \(42S02\) at line 2: Table '.*nowhere' doesn't exist") as told:
        await small.backups.restore(dumped, small.tell)
    assert "secret row" not in told.value.message
    assert small.content() == later
    assert small.nothing_is_beside()


RESTORE = """
import asyncio, sys
from pathlib import Path
from engines.address import parse_address
from engines.mysql import ENGINE

async def main():
    server = ENGINE.connect(parse_address(sys.argv[1], 3306))
    await ENGINE.backups_of(server).restore(Path(sys.argv[2]), lambda percent, words: print(words, flush=True))

asyncio.run(main())
"""


async def test_a_killed_process_whose_client_lives_on(small: Shop, later: Content, dumped: Path, fakes: Fakes) -> None:
    fakes.put_before(NAMES[small.root.live.flavour][1], '{ cat; sleep 60; } | $real "$@"')
    loader = places_beside(small.name).loader
    with OtherProgram(RESTORE, small.server.address.url, str(dumped)) as other:
        while "loaded" not in other.line():
            pass
        # The last table is there: from now on the client waits, and nothing but clean_up ends it.
        await until(lambda: ("was_a_table",) in small.root.rows(f"SHOW TABLES FROM {small.beside[0]}"))
        orphans = descendants(other.process.pid)
        other.end(signal.SIGKILL)
    try:
        assert small.root.value("SELECT IS_USED_LOCK(%s)", loader) is not None
        await small.backups.clean_up()
        assert small.root.value("SELECT IS_USED_LOCK(%s)", loader) is None
        assert small.content() == later
        assert small.nothing_is_beside()
    finally:
        end(orphans)


@pytest.mark.parametrize("step", ["Swapping", LAST_STEP])
async def test_a_killed_process(small: Shop, backup: Content, later: Content, dumped: Path, step: str) -> None:
    with OtherProgram(RESTORE, small.server.address.url, str(dumped)) as other:
        while step not in other.line():
            pass
        other.end(signal.SIGKILL)
    await small.backups.clean_up()
    assert small.content() in (backup, later)
    assert small.nothing_is_beside()


def end(pids: set[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
