"""A restore that ends at any step leaves the old data, or new data that `clean_up` makes whole; again, it works."""

import asyncio
import contextlib
import itertools
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import influxdb as bare
import pytest

from engines.errors import Conflict, ConnectionLost, EngineError, EngineUnavailable
from engines.influxdb.backup import InfluxBackups, restore
from engines.influxdb.backup.connection import Connection
from engines.influxdb.backup.files import Backup
from engines.influxdb.influxql import identifier
from tests.live.accounts import account_on
from tests.live.cutting_proxy import cutting_proxy
from tests.live.influxdb.backup_contents import NOW, contents, query, write
from tests.live.influxdb.conftest import PASSWORD, USER, bare_client, connect, quiet
from tests.live.servers import LiveServer, spawn

Contents = dict[str, Any]
CHECKOUT = Path(__file__).parents[3]


class Died(BaseException):
    """What ends dbvalet here: nothing more is done, not even an undoing."""


def fill(server: LiveServer, root: bare.InfluxDBClient, database: str) -> None:
    """Make a little of all that is replaced in a way of its own."""
    name = identifier(database)
    query(root, f"CREATE RETENTION POLICY two ON {name} DURATION INF REPLICATION 1 SHARD DURATION 1d DEFAULT")
    write(server, database, "autogen", [f"m,t=x f=1i {NOW}", f"k f=2 {NOW}"])
    write(server, database, "two", [f"m f=3 {NOW}"])
    query(root, f"CREATE CONTINUOUS QUERY q ON {name} BEGIN SELECT count(f) INTO d FROM m GROUP BY time(1h) END")


def spoil(server: LiveServer, root: bare.InfluxDBClient, database: str) -> None:
    name = identifier(database)
    query(root, f"CREATE DATABASE {name}")
    # Not the measurements: a field of one that is dropped keeps its type as long as its shard is there (1.6).
    for policy in ("two", "three", "autogen"):
        query(root, f"DROP RETENTION POLICY {policy} ON {name}")
    for each in ("q", "p"):
        query(root, f"DROP CONTINUOUS QUERY {each} ON {name}")
    query(root, f"CREATE RETENTION POLICY three ON {name} DURATION 3000d REPLICATION 1 DEFAULT")
    query(root, f"CREATE RETENTION POLICY autogen ON {name} DURATION INF REPLICATION 1 SHARD DURATION 2d")
    write(server, database, "autogen", [f"m,t=x f=5 {NOW}", f"new f=1 {NOW}"])
    write(server, database, "three", [f"m f=6 {NOW}"])
    query(root, f"CREATE CONTINUOUS QUERY p ON {name} BEGIN SELECT count(f) INTO d FROM m GROUP BY time(2h) END")


@pytest.fixture
async def two(
    backups: InfluxBackups, influxdb: LiveServer, root: bare.InfluxDBClient, database: str, tmp_path: Path
) -> AsyncIterator[tuple[Contents, Contents]]:
    """What is there, and what the dump in `tmp_path` holds."""
    fill(influxdb, root, database)
    wanted = contents(influxdb, root, database)
    await backups.dump(tmp_path, quiet)
    spoil(influxdb, root, database)
    yield contents(influxdb, root, database), wanted


class Interruption:
    """Counts the requests of a restore, and ends it before or after the one that is wanted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[str] = []
        self.at = -1
        self.after = False
        self.act: Callable[[], None] = lambda: None
        for name in ("ask", "tell", "write_points", "stream"):
            monkeypatch.setattr(Connection, name, self._counted(getattr(Connection, name)))

    def _counted(self, request: Callable[..., Any]) -> Any:
        def counted(connection: Connection, *arguments: Any) -> Any:
            number = len(self.requests)
            self.requests.append(f"{request.__name__} {arguments}")
            if number == self.at and not self.after:
                self.act()
            try:
                answer = request(connection, *arguments)
                return [*answer] if request.__name__ == "stream" else answer
            finally:
                if number == self.at and self.after:
                    self.act()

        return counted

    def arm(self, at: int, act: Callable[[], None], *, after: bool) -> None:
        self.requests, self.at, self.act, self.after = [], at, act, after

    def disarm(self) -> None:
        self.at = -1

    def die(self) -> None:
        # From here on every request fails, those of an undoing too.
        self.at = len(self.requests)
        raise Died

    def last(self, piece: str) -> int:
        """Find the last request that holds a piece of text."""
        return max(number for number, request in enumerate(self.requests) if piece in request)


@pytest.fixture
def interruption(monkeypatch: pytest.MonkeyPatch) -> Interruption:
    return Interruption(monkeypatch)


@pytest.mark.long
async def test_dbvalet_dies_at_every_step(
    backups: InfluxBackups,
    *,
    influxdb: LiveServer,
    root: bare.InfluxDBClient,
    database: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    interruption: Interruption,
) -> None:
    old, new = two
    seen: list[str] = []
    for step in itertools.count():
        if contents(influxdb, root, database) != old:
            spoil(influxdb, root, database)
            assert contents(influxdb, root, database) == old
        interruption.arm(step, interruption.die, after=step % 2 == 1)
        try:
            await backups.restore(tmp_path, quiet)
        except Died:
            interruption.disarm()
        else:
            break
        # Not even the first `clean_up` may come to its end.
        interruption.arm(step % 17, interruption.die, after=False)
        with contextlib.suppress(Died):
            await backups.clean_up()
        interruption.disarm()
        await backups.clean_up()
        found = contents(influxdb, root, database)
        assert found in (old, new), step
        seen.append("old" if found == old else "new")
        interruption.arm(-1, lambda: None, after=False)
        await backups.clean_up()
        assert not any("tell" in request or "write" in request for request in interruption.requests)
        if step % 24 == 0:
            await backups.restore(tmp_path, quiet)
            assert contents(influxdb, root, database) == new
    # There is one moment from which on it is the new data.
    assert seen == sorted(seen, reverse=True)
    assert seen.count("old") > 10
    assert seen.count("new") > 20


@pytest.mark.long
async def test_cancelled_at_every_step(
    backups: InfluxBackups,
    *,
    influxdb: LiveServer,
    root: bare.InfluxDBClient,
    database: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    interruption: Interruption,
) -> None:
    old, new = two
    loop = asyncio.get_running_loop()
    cancelled = 0
    for step in itertools.count(0, 7):
        if contents(influxdb, root, database) != old:
            spoil(influxdb, root, database)
        task = asyncio.create_task(backups.restore(tmp_path, quiet))
        interruption.arm(step, partial(cancel, loop, task), after=False)
        try:
            await task
        except asyncio.CancelledError:
            cancelled += 1
        if len(interruption.requests) <= step:
            break
        interruption.disarm()
        if contents(influxdb, root, database) != old:
            await backups.clean_up()
            assert contents(influxdb, root, database) == new
    assert cancelled > 5


def cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    """Cancel it from its thread, and let that be heard."""

    async def now() -> None:
        task.cancel()

    asyncio.run_coroutine_threadsafe(now(), loop).result(5)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(5)


async def test_a_decision_whose_answer_was_lost_is_looked_up(
    backups: InfluxBackups,
    *,
    influxdb: LiveServer,
    root: bare.InfluxDBClient,
    database: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    interruption: Interruption,
) -> None:
    interruption.arm(-1, lambda: None, after=False)
    await backups.restore(tmp_path, quiet)
    spoil(influxdb, root, database)

    def lose() -> None:
        raise ConnectionLost

    interruption.arm(interruption.last("decided done"), lose, after=True)
    await backups.restore(tmp_path, quiet)
    assert contents(influxdb, root, database) == two[1]


async def test_a_restore_that_stood_still_drops_nothing_of_what_came_after_it_was_finished_by_another(
    backups: InfluxBackups,
    *,
    influxdb: LiveServer,
    root: bare.InfluxDBClient,
    database: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, decide = asyncio.get_running_loop(), restore._decide

    def stands_still(connection: Connection) -> None:
        decide(connection)
        asyncio.run_coroutine_threadsafe(backups.clean_up(), loop).result(60)

    monkeypatch.setattr(restore, "_decide", stands_still)
    with pytest.raises(Conflict, match="took the journal"):
        await backups.restore(tmp_path, quiet)
    assert contents(influxdb, root, database) == two[1]


async def test_a_restore_that_stood_still_neither_decides_nor_undoes_that_of_another(
    backups: InfluxBackups,
    *,
    influxdb: LiveServer,
    root: bare.InfluxDBClient,
    database: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, load = asyncio.get_running_loop(), restore._load
    loaded, go_on, others = threading.Event(), threading.Event(), list[asyncio.Task[Any]]()

    async def begin_another() -> None:
        await backups.clean_up()
        others.append(asyncio.create_task(backups.restore(tmp_path, quiet)))

    def stands_still(connection: Connection, backup: Backup) -> None:
        load(connection, backup)
        if others:
            loaded.set()
            assert go_on.wait(60)
        else:
            asyncio.run_coroutine_threadsafe(begin_another(), loop).result(60)
            assert loaded.wait(60)

    monkeypatch.setattr(restore, "_load", stands_still)
    with pytest.raises(Conflict, match="took the journal"):
        await backups.restore(tmp_path, quiet)
    go_on.set()
    await others[0]
    assert contents(influxdb, root, database) == two[1]


# Pieces of the requests that a restore sends, in their order.
LOSSES = [
    b"CREATE+DATABASE",
    b"CREATE+RETENTION",
    b"m,t=x ",
    b"decided ",
    b"DROP+SHARD",
    b"ALTER+RETENTION",
    b"in_place ",
]


@pytest.mark.parametrize("piece", LOSSES, ids=lambda piece: piece.decode().strip())
@pytest.mark.parametrize("lost", ["lose_request", "lose_answer"])
async def test_the_connection_is_cut(
    backups: InfluxBackups,
    *,
    influxdb: LiveServer,
    root: bare.InfluxDBClient,
    database: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    piece: bytes,
    lost: str,
) -> None:
    old, new = two
    async with cutting_proxy(influxdb.host, influxdb.port) as proxy:
        url = influxdb.url(USER, PASSWORD, database)
        server = connect(url.replace(f"{influxdb.host}:{influxdb.port}", f"127.0.0.1:{proxy.port}"))
        getattr(proxy, lost)(piece)
        # What decides is looked up when its answer is lost, so that one may go through.
        with contextlib.suppress(EngineUnavailable):
            await InfluxBackups(server).restore(tmp_path, quiet)
        assert proxy.is_done
        await server.close()
    await backups.clean_up()
    assert contents(influxdb, root, database) in (old, new)
    await backups.restore(tmp_path, quiet)
    assert contents(influxdb, root, database) == new


@pytest.mark.parametrize(
    "words", ["points of two", "points of autogen take their place", "retention policies, continuous queries"]
)
async def test_dbvalet_is_killed(
    backups: InfluxBackups,
    *,
    influxdb: LiveServer,
    root: bare.InfluxDBClient,
    database: str,
    two: tuple[Contents, Contents],
    tmp_path: Path,
    words: str,
) -> None:
    old, new = two
    url = influxdb.url(USER, PASSWORD, database)
    argv = [sys.executable, "-m", "tests.live.influxdb.backup_child", "restore", url, tmp_path, words]
    child = await asyncio.to_thread(subprocess.run, argv, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    assert child.returncode == -signal.SIGKILL
    await backups.clean_up()
    assert contents(influxdb, root, database) in (old, new)
    await backups.restore(tmp_path, quiet)
    assert contents(influxdb, root, database) == new


@pytest.mark.parametrize(
    ("piece", "after"),
    [
        ("write_points", True),
        ("decided done", True),
        ("DROP SHARD", True),
        ("ALTER RETENTION", False),
        ("in_place", True),
    ],
)
async def test_the_server_is_killed(
    influxdb: LiveServer, tmp_path: Path, interruption: Interruption, piece: str, *, after: bool
) -> None:
    with spawn("influxdb", influxdb.version) as private:
        root = bare_client(private)
        fill(private, root, "app")
        new = contents(private, root, "app")
        server = connect(account_on(private))
        backups = InfluxBackups(server)
        await backups.dump(tmp_path, quiet)
        spoil(private, root, "app")
        old = contents(private, root, "app")
        interruption.arm(-1, lambda: None, after=False)
        await backups.restore(tmp_path, quiet)
        spoil(private, root, "app")
        interruption.arm(interruption.last(piece), private.kill, after=after)
        if piece == "write_points":
            interruption.at = 6
        with pytest.raises(EngineError):
            await backups.restore(tmp_path, quiet)
        interruption.disarm()
        private.start()
        await backups.clean_up()
        assert contents(private, root, "app") in (old, new)
        await backups.restore(tmp_path, quiet)
        assert contents(private, root, "app") == new
        await server.close()
