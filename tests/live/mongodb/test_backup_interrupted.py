"""A restore that ends at any step leaves the old data, or new data that `clean_up` makes whole; again, it works."""

import asyncio
import contextlib
import itertools
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engines.errors import BackupFailed, Conflict, ConnectionLost, EngineError, EngineUnavailable
from engines.mongodb.backup import MongoBackups, journal, swap
from engines.mongodb.backup.connection import Connection
from tests.live.accounts import account_on
from tests.live.cutting_proxy import cutting_proxy
from tests.live.mongodb.backup_contents import contents
from tests.live.mongodb.conftest import PASSWORD, USER, Root, connect, quiet
from tests.live.servers import LiveServer, spawn

Contents = dict[str, Any]
CHECKOUT = Path(__file__).parents[3]

# How a restore is swapped in does not depend on it.
pytestmark = pytest.mark.newest_version


class Died(BaseException):
    """What ends dbvalet here: nothing more is done, not even an undoing."""


def fill(root: Root, name: str) -> None:
    """Make a little of every kind that is swapped in a way of its own."""
    database = root[name]
    database["plain"].insert_many([{"_id": number, "old": True} for number in range(5)])
    database["plain"].create_index("old")
    database["was a view"].insert_one({"_id": 1})
    database.create_collection("view", viewOn="plain", pipeline=[{"$limit": 2}])
    database["system.js"].insert_one({"_id": "f", "value": 1})
    if root.server_info()["versionArray"] >= [5]:
        database.create_collection("series", timeseries={"timeField": "t"})
        database["series"].insert_one({"t": root.admin.command("hello")["localTime"], "v": 1})


def spoil(root: Root, name: str) -> None:
    database = root[name]
    for each in ("was a view", "view", "series", "plain"):
        database.drop_collection(each)
    database["system.js"].delete_many({})
    database["plain"].insert_many([{"_id": number, "new": True} for number in range(3)])
    database["view"].insert_one({"_id": "a collection"})
    database["added"].insert_one({"_id": 1})
    database.create_collection("was a view", viewOn="plain", pipeline=[])
    database["system.js"].insert_one({"_id": "g", "value": 2})


@pytest.fixture
async def two(
    backups: MongoBackups, root: Root, fresh: str, tmp_path: Path
) -> AsyncIterator[tuple[Contents, Contents]]:
    """What is there, and what the dump in `tmp_path` holds."""
    fill(root, fresh)
    wanted = contents(root, fresh)
    await backups.dump(tmp_path, quiet)
    spoil(root, fresh)
    yield contents(root, fresh), wanted


def back_to_old(root: Root, name: str) -> None:
    root.drop_database(name)
    spoil(root, name)


class Interruption:
    """Counts the commands of a restore, and ends it before or after the one that is wanted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands: list[str] = []
        self.at = -1
        self.after = False
        self.act: Callable[[], None] = lambda: None
        self._ask = Connection.ask
        monkeypatch.setattr(Connection, "ask", self._counted())

    def _counted(self) -> Any:
        async def ask(connection: Connection, command: Any, **options: Any) -> Any:
            number = len(self.commands)
            self.commands.append(next(iter(command)))
            if number == self.at and not self.after:
                self.act()
                await asyncio.sleep(0)
            try:
                return await self._ask(connection, command, **options)
            finally:
                # What is dropped may be gone already: that is a step too.
                if number == self.at and self.after:
                    self.act()
                    await asyncio.sleep(0)

        return ask

    def arm(self, at: int, act: Callable[[], None], *, after: bool) -> None:
        self.commands, self.at, self.act, self.after = [], at, act, after

    def disarm(self) -> None:
        self.at = -1


@pytest.fixture
def interruption(monkeypatch: pytest.MonkeyPatch) -> Interruption:
    return Interruption(monkeypatch)


async def count_steps(backups: MongoBackups, interruption: Interruption, root: Root, name: str, folder: Path) -> int:
    interruption.arm(-1, lambda: None, after=False)
    await backups.restore(folder, quiet)
    steps = len(interruption.commands)
    back_to_old(root, name)
    return steps


@pytest.mark.long
async def test_dbvalet_dies_at_every_step(
    backups: MongoBackups,
    *,
    root: Root,
    fresh: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    interruption: Interruption,
) -> None:
    old, new = two
    seen: list[str] = []

    def die() -> None:
        # From here on every command fails, those of an undoing too.
        interruption.at = len(interruption.commands)
        raise Died

    for step in itertools.count():
        if contents(root, fresh) != old:
            back_to_old(root, fresh)
        interruption.arm(step, die, after=step % 2 == 1)
        try:
            await backups.restore(tmp_path, quiet)
        except Died:
            interruption.disarm()
        else:
            break
        # Not even the first `clean_up` may come to its end.
        interruption.arm(3, die, after=False)
        with contextlib.suppress(Died):
            await backups.clean_up()
        interruption.disarm()
        await backups.clean_up()
        found = contents(root, fresh)
        assert found in (old, new), step
        seen.append("old" if found == old else "new")
        await backups.clean_up()
        assert contents(root, fresh) == found
        if step % 5 == 0:
            await backups.restore(tmp_path, quiet)
            assert contents(root, fresh) == new
    # There is one moment from which on it is the new data.
    assert seen == sorted(seen, reverse=True)
    assert {*seen} == {"old", "new"}
    assert seen.count("new") > 10


def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()


@pytest.mark.long
async def test_cancelled_at_every_step(
    backups: MongoBackups,
    *,
    root: Root,
    fresh: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    interruption: Interruption,
) -> None:
    old, new = two
    steps = await count_steps(backups, interruption, root, fresh, tmp_path)
    for step in range(0, steps, 2):
        back_to_old(root, fresh)
        task = asyncio.create_task(backups.restore(tmp_path, quiet))
        interruption.arm(step, partial(cancel, task), after=step % 4 == 0)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        interruption.disarm()
        if contents(root, fresh) != old:
            await backups.clean_up()
            assert contents(root, fresh) == new
    await backups.restore(tmp_path, quiet)
    assert contents(root, fresh) == new


async def test_a_decision_whose_answer_was_lost_is_looked_up(
    backups: MongoBackups,
    *,
    root: Root,
    fresh: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    interruption: Interruption,
) -> None:
    await count_steps(backups, interruption, root, fresh, tmp_path)

    def lose() -> None:
        raise ConnectionLost

    interruption.arm(interruption.commands.index("update"), lose, after=True)
    await backups.restore(tmp_path, quiet)
    assert contents(root, fresh) == two[1]


# The commands that a restore sends, as they stand in their messages.
LOSSES = [
    b"\x02insert\0",
    b"\x02create\0",
    b"\x02createIndexes\0",
    b"\x02update\0",
    b"\x02renameCollection\0",
    b"\x02drop\0",
]


@pytest.mark.parametrize("piece", LOSSES, ids=lambda piece: piece[1:-1].decode())
@pytest.mark.parametrize("lost", ["lose_request", "lose_answer"])
async def test_the_connection_is_cut(
    backups: MongoBackups,
    *,
    mongodb: LiveServer,
    root: Root,
    fresh: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    piece: bytes,
    lost: str,
) -> None:
    old, new = two
    async with cutting_proxy(mongodb.host, mongodb.port) as proxy:
        url = mongodb.url(USER, PASSWORD, fresh)
        server = connect(url.replace(f"{mongodb.host}:{mongodb.port}", f"127.0.0.1:{proxy.port}"))
        through = MongoBackups(server)
        getattr(proxy, lost)(piece)
        # What decides is looked up when its answer is lost, so that one may go through.
        with contextlib.suppress(ConnectionLost):
            await through.restore(tmp_path, quiet)
        assert proxy.is_done
        await server.close()
    await backups.clean_up()
    assert contents(root, fresh) in (old, new)
    await backups.restore(tmp_path, quiet)
    assert contents(root, fresh) == new


@pytest.mark.parametrize(
    "words", ["documents of plain", "indexes of plain", "the restored collections take their places"]
)
async def test_dbvalet_is_killed(
    mongodb: LiveServer,
    *,
    backups: MongoBackups,
    root: Root,
    fresh: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    words: str,
) -> None:
    old, new = two
    url = mongodb.url(USER, PASSWORD, fresh)
    argv = [sys.executable, "-m", "tests.live.mongodb.backup_child", "restore", url, tmp_path, words]
    child = await asyncio.to_thread(subprocess.run, argv, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    assert child.returncode == -signal.SIGKILL
    await backups.clean_up()
    assert contents(root, fresh) in (old, new)
    await backups.restore(tmp_path, quiet)
    assert contents(root, fresh) == new


@pytest.fixture(scope="module")
def private(mongodb: LiveServer) -> Iterator[LiveServer]:
    """A server that may be killed."""
    with spawn("mongodb", mongodb.version) as private:
        yield private


# The last command of each name: loading, the decision, in the middle of the swap, a view after it.
KILLS = [("insert", True), ("update", True), ("renameCollection", True), ("create", False)]


@pytest.mark.parametrize(("command", "after"), KILLS)
async def test_the_server_is_killed(
    private: LiveServer, tmp_path: Path, interruption: Interruption, command: str, *, after: bool
) -> None:
    with Root(private.url(), serverSelectionTimeoutMS=1000) as root:
        name = "killed"
        root.drop_database(name)
        fill(root, name)
        new = contents(root, name)
        server = connect(account_on(private, name, parts=["backups"]))
        backups = MongoBackups(server)
        await backups.dump(tmp_path, quiet)
        back_to_old(root, name)
        old = contents(root, name)
        await count_steps(backups, interruption, root, name, tmp_path)
        commands = [*interruption.commands]
        interruption.arm(len(commands) - 1 - commands[::-1].index(command), private.kill, after=after)
        with pytest.raises(EngineError) as failed:
            await backups.restore(tmp_path, quiet)
        assert isinstance(failed.value, EngineUnavailable)
        interruption.disarm()
        await server.close()
    private.start()
    with Root(private.url(), serverSelectionTimeoutMS=1000) as root:
        server = connect(account_on(private, name, parts=["backups"]))
        backups = MongoBackups(server)
        await backups.clean_up()
        assert contents(root, name) in (old, new)
        await backups.restore(tmp_path, quiet)
        assert contents(root, name) == new
        await server.close()


async def test_what_the_server_refuses_is_told_and_nothing_is_changed(
    backups: MongoBackups,
    *,
    root: Root,
    fresh: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, _ = two
    create = swap.create

    async def create_wrongly(connection: Connection, name: str, like: Any) -> None:
        if like is None:
            await connection.ask({"create": name, "noSuchOption": 1})
        await create(connection, name, like)

    monkeypatch.setattr("engines.mongodb.backup.restore.create", create_wrongly)
    with pytest.raises(BackupFailed, match="noSuchOption"):
        await backups.restore(tmp_path, quiet)
    assert contents(root, fresh) == old


async def test_a_restore_undoes_or_finishes_what_another_left(
    backups: MongoBackups,
    *,
    root: Root,
    fresh: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    interruption: Interruption,
) -> None:
    _, new = two

    def die() -> None:
        interruption.at = len(interruption.commands)
        raise Died

    empty = tmp_path_factory.mktemp("empty")
    steps = await count_steps(backups, interruption, root, fresh, tmp_path)
    for step in (steps // 2, steps - 3):
        interruption.arm(step, die, after=False)
        with pytest.raises(Died):
            await backups.restore(tmp_path, quiet)
        interruption.disarm()
        with pytest.raises(EngineError, match="A restore was interrupted"):
            await backups.dump(empty, quiet)
        await backups.restore(tmp_path, quiet)
        assert contents(root, fresh) == new
        back_to_old(root, fresh)


async def test_a_restore_that_stood_still_drops_nothing_of_what_came_after_it_was_finished_by_another(
    backups: MongoBackups,
    *,
    root: Root,
    fresh: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def late(connection: Connection, *run: Any) -> None:
        await backups.clean_up()
        assert contents(root, fresh) == two[1]
        root[fresh]["since"].insert_one({"_id": 1})
        await swap.finish(connection, *run)

    monkeypatch.setattr("engines.mongodb.backup.restore.finish", late)
    with pytest.raises(Conflict, match="took the journal"):
        await backups.restore(tmp_path, quiet)
    assert list(root[fresh]["since"].find()) == [{"_id": 1}]
    root[fresh].drop_collection("since")
    assert contents(root, fresh) == two[1]


async def test_a_restore_that_stood_still_neither_decides_nor_undoes_that_of_another(
    backups: MongoBackups,
    *,
    root: Root,
    fresh: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decide, loaded, go_on = journal.decide, asyncio.Event(), asyncio.Event()
    others: list[asyncio.Task[Any]] = []

    async def late(connection: Connection, *run: Any) -> None:
        if not others:
            await backups.clean_up()
            others.append(asyncio.create_task(backups.restore(tmp_path, quiet)))
            await loaded.wait()
        else:
            loaded.set()
            await go_on.wait()
        await decide(connection, *run)

    monkeypatch.setattr(journal, "decide", late)
    with pytest.raises(Conflict, match="took the journal"):
        await backups.restore(tmp_path, quiet)
    go_on.set()
    await others[0]
    assert contents(root, fresh) == two[1]
