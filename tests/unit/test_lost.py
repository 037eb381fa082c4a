"""Who has lost an operation to another dbvalet touches neither the engine nor what is kept any more."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.backups.storage import Storage
from agent.operations import keeper
from tests.fakes.driver import Gate
from tests.fakes.kinds import FakeKind
from tests.fakes.service import Valet, running, until

ONE = "/api/databases/ad-one"


@pytest.fixture
async def valet(tmp_path: Path) -> AsyncIterator[Valet]:
    backups = {"storage": f"file://{tmp_path}/kept", "spool": f"{tmp_path}/spool", "keep": {"count": 1}}
    async with running(state=f"sqlite:///{tmp_path}/state.db", backups=backups) as valet:
        yield valet


async def backup_of(valet: Valet, backup_id: str) -> dict[str, Any]:
    return (await valet.ask("GET", f"/api/backups/{backup_id}")).json()["database_backup"]


async def made(valet: Valet) -> str:
    backup = (await valet.ask("POST", f"{ONE}/backups")).json()["database_backup"]
    await until(lambda: any(line["operation"] == backup["operation_id"] for line in valet.lines("operation_ended")))
    assert (await backup_of(valet, backup["id"]))["status"] == "done"
    return backup["id"]


async def take_over(valet: Valet, **more: Any) -> None:
    """Let another dbvalet have the open operation, and change more of its row."""
    from sqlalchemy import update

    from agent.state.tables import operations

    taken = update(operations).where(operations.c.finished_at.is_(None)).values(owner="another", **more)
    await valet.service.state.run(lambda connection: connection.execute(taken))


async def test_a_restore_that_was_taken_over_is_not_undone_by_who_lost_it(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)
    backup = await made(valet)
    server = valet.server()
    gate = server.backups.gates["swap"] = Gate()
    assert (await valet.ask("POST", f"{ONE}/backups/{backup}/restore")).status_code == 201
    await until(lambda: gate.waiting)
    server.backups.done.clear()
    await take_over(valet)
    await until(lambda: valet.lines("operation_lost"))
    assert (server.backups.done, server.backups.half_done) == ([], True)


async def test_a_backup_that_was_taken_over_is_not_done_and_pushes_no_older_one_out(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 60)  # as one that is stopped with SIGSTOP when its archive is written
    older = await made(valet)
    write, written, go_on = Storage.write, threading.Event(), threading.Event()

    def stopped(self: Storage, *arguments: Any) -> Any:
        result = write(self, *arguments)
        written.set()
        assert go_on.wait(30)
        return result

    monkeypatch.setattr(Storage, "write", stopped)
    backup = (await valet.ask("POST", f"{ONE}/backups")).json()["database_backup"]
    await until(written.is_set)
    from agent.operations.record import Status

    at = await valet.service.state.run(valet.service.state.now)
    await take_over(valet, status=Status.ERROR, error="It was cut off.", finished_at=at)
    await asyncio.to_thread(valet.service.backups.storage.remove, f"ad-one/{backup['id']}.tar.gz")
    go_on.set()
    await until(lambda: valet.lines("operation_lost"))

    assert (await backup_of(valet, backup["id"]))["status"] == "error"
    assert (await backup_of(valet, older))["status"] == "done"
    assert (await valet.ask("POST", f"{ONE}/backups/{older}/restore")).status_code == 201


async def test_what_who_took_over_has_left_behind_is_not_taken_for_cleaned_up_by_who_lost_it(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 60)
    kind = valet.service.operations.kinds["fake"] = FakeKind()
    kind.gate = Gate()
    clean_up = valet.service.operations.kinds["clean_up"] = FakeKind()
    operation = await valet.service.operations.begin(valet.database(), "fake", {}, "admin")
    await until(lambda: kind.gate is not None and kind.gate.waiting)
    at = await valet.service.state.run(valet.service.state.now)
    await take_over(valet, finished_at=at, clean_up_due=True)
    kind.gate.open.set()
    await valet.service.operations.wait(operation.id, 10)
    await valet.service.operations.look()
    await until(lambda: clean_up.ran)
