"""A backup is deleted while its storage stands still: what a thread has begun is followed to its end, and told."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.backups import storage as storage_module
from agent.backups.storage import Storage
from agent.operations import keeper
from tests.fakes.service import Valet, running, until
from tests.unit.test_backups import ONE, archives, listed, make, removals, until_told

KEY = {"Idempotency-Key": "key-1"}
NOT_KNOWN = (
    "The storage has not answered in time, and whether the archive was removed is not known yet. "
    "Once it was, the backup is not in the list any more; otherwise delete it again."
)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)


@pytest.fixture
def state(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state.db"


@pytest.fixture
async def valet(state: str) -> AsyncIterator[Valet]:
    async with running(state=state) as valet:
        yield valet


class Held:
    """A storage that removes nothing before it is let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.problem: OSError | None = None
        real = Storage.remove

        def remove(storage: Storage, name: str) -> None:
            self.begun.set()
            self.go_on.wait()
            if self.problem is not None:
                raise self.problem
            real(storage, name)

        monkeypatch.setattr(Storage, "remove", remove)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(monkeypatch)
    yield held
    held.go_on.set()


async def delete(valet: Valet, backup: dict[str, Any], headers: dict[str, str] | None = None) -> httpx.Response:
    return await valet.ask("DELETE", f"{ONE}/backups/{backup['id']}", headers=headers or {})


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def lines(valet: Valet) -> list[tuple[str, int | None]]:
    return [(each["code"], each["status"]) for each in await removals(valet)]


async def test_a_deletion_that_is_late_is_done_to_its_end_and_written_down(
    valet: Valet, held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage_module, "ANSWER_SECONDS", 0.1)
    backup = await make(valet)
    late = await delete(valet, backup, KEY)
    assert (told(late), late.json()["error"]) == ((504, "deadline_exceeded"), NOT_KNOWN)
    for headers in (KEY, None):
        again = await delete(valet, backup, headers)
        assert told(again) == (409, "conflict")
        assert again.json()["error"] == "This backup is being deleted, and its storage has not answered yet."
    assert await listed(valet) == [backup]

    held.go_on.set()
    await until_told(lambda: listed(valet), lambda found: found == [])
    assert archives(tmp_path) == []
    begun, unknown, *_, ok = await removals(valet)
    assert [each["code"] for each in (begun, unknown, ok)] == ["begun", "deadline_exceeded", "ok"]
    assert (ok["request_id"], ok["who"], ok["status"]) == (begun["request_id"], "admin", None)
    assert ok["path"] == f"{ONE}/backups/{backup['id']}"
    assert [each["backup"] for each in valet.lines("backup_deleted")] == [backup["id"]]
    assert (await delete(valet, backup, KEY)).status_code == 204


async def test_a_deletion_that_fails_late_has_its_line_too_and_can_be_done_again(
    valet: Valet, held: Held, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage_module, "ANSWER_SECONDS", 0.1)
    backup = await make(valet)
    held.problem = OSError(errno.EIO, os.strerror(errno.EIO))
    assert told(await delete(valet, backup, KEY)) == (504, "deadline_exceeded")
    held.go_on.set()
    await until(lambda: valet.lines("backup_not_deleted"))
    await until_told(
        lambda: lines(valet), lambda found: found == [("begun", None), ("deadline_exceeded", 504), ("error", None)]
    )
    assert valet.lines("backup_not_deleted")[0]["reason"] == "Input/output error"
    assert await listed(valet) == [backup]
    held.problem = None
    assert (await delete(valet, backup, KEY)).status_code == 204


async def test_a_deletion_that_no_thread_has_begun_is_not_done_any_more(
    valet: Valet, held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    backup = await make(valet)
    storage = valet.service.backups.storage
    busy = [asyncio.ensure_future(storage.in_time(held.go_on.wait)) for _ in range(storage_module._THREADS)]
    await asyncio.sleep(0)
    monkeypatch.setattr(storage_module, "ANSWER_SECONDS", 0.1)
    refused = await delete(valet, backup, KEY)
    assert told(refused) == (409, "precondition")
    assert refused.json()["error"] == (
        "The archive cannot be removed: the storage does not answer in time. Nothing was begun."
    )
    held.go_on.set()
    await asyncio.gather(*busy)
    assert not held.begun.is_set()
    assert archives(tmp_path) == [f"dbvalet-backups/ad-one/{backup['id']}.tar.gz"]
    assert await listed(valet) == [backup]
    assert (await delete(valet, backup, KEY)).status_code == 204


async def test_a_deletion_whose_client_has_left_is_followed_too(valet: Valet, held: Held, tmp_path: Path):
    backup = await make(valet)
    asked = asyncio.create_task(delete(valet, backup))
    await until(held.begun.is_set)
    asked.cancel()
    await asyncio.wait([asked])
    held.go_on.set()
    await until_told(lambda: listed(valet), lambda found: found == [])
    assert archives(tmp_path) == []
    assert await lines(valet) == [("begun", None), ("client_left", None), ("ok", None)]


async def test_a_backup_is_deleted_by_one_request_at_a_time(valet: Valet, held: Held):
    backup = await make(valet)
    asked = asyncio.create_task(delete(valet, backup))
    await until(held.begun.is_set)
    assert told(await delete(valet, backup)) == (409, "conflict")
    held.go_on.set()
    assert (await asked).status_code == 204
    assert (await delete(valet, backup)).status_code == 404


async def test_what_is_late_is_given_up_when_the_service_closes_and_can_be_deleted_again(
    state: str, held: Held, monkeypatch: pytest.MonkeyPatch
):
    async with running(state=state) as valet:
        backup = await make(valet)
        with monkeypatch.context() as hasty:
            hasty.setattr(storage_module, "ANSWER_SECONDS", 0.1)
            assert told(await delete(valet, backup, KEY)) == (504, "deadline_exceeded")
    assert not held.go_on.is_set()
    held.go_on.set()
    async with running(state=state) as valet:
        assert [each["id"] for each in await listed(valet)] == [backup["id"]]
        assert (await delete(valet, backup, KEY)).status_code == 204
        assert await listed(valet) == []
