"""Who waits for which thread: what is short never for a backup, a restore or the storage of one."""

import asyncio
import io
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from agent import logs, sampler
from agent.backups import kinds
from agent.backups import storage as storage_module
from agent.backups.reading import READERS
from agent.operations import keeper
from engines import deadline
from engines.errors import DeadlineExceeded
from engines.threads import in_own_thread
from tests.fakes.service import URL, Valet, running, until
from tests.unit.test_backups import ONE, begin, ended, link, make, operation_of, restore, restored, until_told

MANY = min(32, (os.cpu_count() or 1) + 4) + 1
"""One more than asyncio has threads."""


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)


@pytest.fixture
async def valet(tmp_path: Path) -> AsyncIterator[Valet]:
    async with running(state=f"sqlite:///{tmp_path}/state.db") as valet:
        yield valet


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """Hold up whatever waits for it, until the test is over."""
    end = threading.Event()
    yield end
    end.set()


async def test_work_of_its_own_has_the_context_gives_its_answer_and_raises():
    where: ContextVar[str] = ContextVar("where", default="nowhere")
    where.set("here")
    names = [await in_own_thread(lambda: (where.get(), threading.current_thread().name)) for _ in range(2)]
    assert [each[0] for each in names] == ["here", "here"]
    assert threading.current_thread().name not in [each[1] for each in names]
    assert await in_own_thread(int, "11", base=2) == 3
    with pytest.raises(ZeroDivisionError):
        await in_own_thread(lambda: 1 // 0)


async def test_backups_restores_and_downloads_wait_for_no_short_work(valet: Valet, held: threading.Event):
    busy = [asyncio.create_task(asyncio.to_thread(held.wait)) for _ in range(100)]
    try:
        async with asyncio.timeout(30):
            backup = await make(valet)
            valet.server().things = {}
            assert (await restored(valet, await restore(valet, backup)))["status"] == "done"
            assert valet.server().things == {"first": "blue"}
            assert len((await valet.client.get(await link(valet, backup))).content) == backup["size"]
            assert (await valet.ask("DELETE", f"{ONE}/backups/{backup['id']}")).status_code == 204
    finally:
        held.set()
        await asyncio.gather(*busy)


async def test_short_work_and_an_archive_wait_for_none_of_many_packings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: threading.Event
):
    ids = ["ad-two", *(f"ad-{number}" for number in range(MANY))]
    databases = [{"id": each, "url": URL} for each in ("ad-one", *ids)]
    async with running(state=f"sqlite:///{tmp_path}/state.db", databases=databases) as valet:
        done = await make(valet)
        monkeypatch.setattr(kinds, "pack", lambda *_: held.wait())
        begun = [await begin(valet, each) for each in ids]
        for each in begun:
            await until_told(lambda each=each: operation_of(valet, each), lambda found: found["progress"] == 70)
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(int, "1") == 1
            assert await link(valet, done)
            assert (await valet.ask("DELETE", f"{ONE}/backups/{done['id']}")).status_code == 204
        held.set()
        for each in begun:
            await ended(valet, each)


async def test_a_dump_waits_for_its_turn_to_be_packed_and_can_be_cancelled_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: threading.Event
):
    monkeypatch.setattr(kinds, "PACKINGS", 1)
    packed = list[Path]()

    def pack(folder: Path, *_: object) -> None:
        packed.append(folder)
        held.wait()

    async with running(state=f"sqlite:///{tmp_path}/state.db") as valet:
        monkeypatch.setattr(kinds, "pack", pack)
        first = await begin(valet)
        await until(lambda: packed)
        waiting = await begin(valet, "ad-two")
        await until_told(
            lambda: operation_of(valet, waiting), lambda found: found["step"] == "waiting for others to be packed"
        )
        await valet.ask("POST", f"/api/databases/ad-two/operations/{waiting['operation_id']}/cancel")
        assert (await ended(valet, waiting))["status"] == "cancelled"
        second = await begin(valet, "ad-two")
        held.set()
        assert [(await ended(valet, each))["status"] for each in (first, second)] == ["done", "done"]
        assert packed == [tmp_path / "dbvalet-spool" / each["operation_id"] for each in (first, second)]


async def test_a_storage_that_stands_still_holds_up_no_request(
    valet: Valet, monkeypatch: pytest.MonkeyPatch, held: threading.Event
):
    backup = await make(valet)
    url = await link(valet, backup)
    storage = valet.service.backups.storage
    real = storage._at

    def stand_still(name: str) -> Any:
        held.wait()
        return real(name)

    monkeypatch.setattr(storage_module, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(storage, "_at", stand_still)
    async with asyncio.timeout(20):
        for _ in range(10):
            for method, path in (
                ("GET", f"{ONE}/backups/{backup['id']}/archive"),
                ("POST", f"{ONE}/backups/{backup['id']}/restore"),
                ("GET", url),
            ):
                answer = await valet.ask(method, path)
                assert (answer.status_code, answer.json()["code"]) == (409, "precondition"), answer.text
                assert answer.json()["error"] == (
                    "The archive cannot be read: the storage does not answer in time,"
                    " and may still do later what it was asked for."
                )
        answer = await valet.ask("DELETE", f"{ONE}/backups/{backup['id']}")
        assert (answer.status_code, answer.json()["code"]) == (409, "precondition")
        assert await asyncio.to_thread(int, "1") == 1
        assert (await valet.act("list-things")).status_code == 200
    held.set()
    monkeypatch.undo()
    assert (await valet.ask("DELETE", f"{ONE}/backups/{backup['id']}")).status_code == 204


async def test_a_log_or_a_disk_that_stands_still_keeps_no_thread_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: threading.Event
):
    def stand_still(*_: object) -> Any:
        held.wait()

    monkeypatch.setattr(logs, "SECONDS", 0.05)
    monkeypatch.setattr(sampler, "MEASURE_SECONDS", 0.05)
    monkeypatch.setattr(deadline, "GRACE", 0.01)
    monkeypatch.setattr(logs, "end_of_file", stand_still)
    monkeypatch.setattr(sampler, "read_disk", stand_still)
    databases = [{"id": "ad-one", "url": URL, "log_file": str(tmp_path / "log"), "data_disk": str(tmp_path)}]
    databases.append({"id": "ad-two", "url": URL})
    async with asyncio.timeout(30), running(databases=databases) as valet:
        for _ in range(MANY):
            for read, waited_for in (
                (valet.service.logs.read(valet.database(), 10), "The log was not read in time."),
                (sampler.measured(valet.database()), "The host did not give its counters in time."),
            ):
                with pytest.raises(DeadlineExceeded) as late:
                    await read
                assert late.value.message == waited_for
        assert await asyncio.to_thread(int, "1") == 1
        assert await sampler.measured(valet.database("ad-two"))
        held.set()


class Slow(io.RawIOBase):
    """A file of a storage that stands still: each read waits, and so does whoever closes it meanwhile."""

    def __init__(self, held: threading.Event) -> None:
        super().__init__()
        self.held = held
        self.reading = threading.Event()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return offset

    def readinto(self, buffer: Any, /) -> int:
        self.reading.set()
        self.held.wait()
        return 0


@pytest.fixture
def freed(held: threading.Event) -> Iterator[None]:
    """Free what is held up if the event loop stands still too: a test that fails must come to its end."""
    timer = threading.Timer(10, held.set)
    timer.start()
    yield
    timer.cancel()


@pytest.mark.usefixtures("freed")
async def test_who_leaves_a_download_that_stands_still_holds_up_nobody_and_it_is_closed_later(
    valet: Valet, monkeypatch: pytest.MonkeyPatch, held: threading.Event
):
    backup = await valet.service.backups.find((await make(valet))["id"])
    file = Slow(held)
    with monkeypatch.context() as slow:
        slow.setattr(valet.service.backups.storage, "open", lambda _: io.BufferedReader(file))
        reading = asyncio.ensure_future(anext(valet.service.backups.read(backup, 0, 10)))
        await until(file.reading.is_set)
        reading.cancel()
        await asyncio.wait([reading])
    assert not held.is_set(), "the event loop stood still"
    assert not file.closed
    assert (await valet.act("list-things")).status_code == 200
    held.set()
    await until(lambda: file.closed)


@pytest.mark.usefixtures("freed")
async def test_what_was_opened_for_a_download_that_nobody_waits_for_any_more_is_closed(
    valet: Valet, monkeypatch: pytest.MonkeyPatch, held: threading.Event
):
    backup = await valet.service.backups.find((await make(valet))["id"])
    file, opening = io.BufferedReader(Slow(held)), threading.Event()

    def open_slowly(_: str) -> Any:
        opening.set()
        held.wait()
        return file

    monkeypatch.setattr(valet.service.backups.storage, "open", open_slowly)
    reading = asyncio.ensure_future(anext(valet.service.backups.read(backup, 0, 10)))
    await until(opening.is_set)
    reading.cancel()
    await asyncio.wait([reading])
    held.set()
    await until(lambda: file.closed)


async def test_downloads_that_stand_still_take_so_many_threads_and_no_more(
    valet: Valet, monkeypatch: pytest.MonkeyPatch, held: threading.Event
):
    backup = await valet.service.backups.find((await make(valet))["id"])
    threads = set[int]()

    def open_slowly(_: str) -> Any:
        threads.add(threading.get_ident())
        held.wait()
        return io.BytesIO(b"0123456789")

    monkeypatch.setattr(valet.service.backups.storage, "open", open_slowly)
    tasks = [asyncio.ensure_future(anext(valet.service.backups.read(backup, 5, 3))) for _ in range(READERS + 5)]
    await until(lambda: len(threads) == READERS)
    for each in tasks[:5]:
        each.cancel()
    held.set()
    assert await asyncio.gather(*tasks[5:]) == [b"567"] * READERS
    assert len(threads) == READERS
