"""Backup before destroy, on the fake engine; `tests/live/test_safety.py` has it on live ones."""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from errno import EIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent import once
from agent.backups import safety
from agent.operations import keeper, runner
from agent.state.state import State
from engines.errors import BackupFailed, Conflict, ConnectionLost, DeadlineExceeded, EngineError, Precondition
from tests.contract.decoders import go_failure
from tests.fakes.driver import Gate
from tests.fakes.service import URL, Valet, configuration, running, until
from tests.unit.test_backups import ONE, ended, grow_old, listed, make, restored

SAFE = [{"id": "ad-one", "url": URL, "backup_before_destroy": True}, {"id": "ad-two", "url": URL}]
SECOND = {"name": "second"}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(safety, "BEGIN_SECONDS", 60)
    monkeypatch.setattr(safety, "WAIT_SECONDS", 60)


def add_second(valet: Valet) -> None:
    for each in ("ad-one", "ad-two"):
        valet.server(each).things["second"] = "red"


def below_of(folder: Path) -> list[Path]:
    return [*folder.iterdir()]


async def drop(valet: Valet, *, token: str = "admin", key: str | None = None, **more: Any) -> httpx.Response:
    body = {"action_name": "drop-thing", "params": SECOND, **more}
    headers = {} if key is None else {"Idempotency-Key": key}
    return await valet.ask("POST", f"{ONE}/action", token, json=body, headers=headers)


async def test_what_is_destroyed_is_in_the_backup_that_the_answer_names() -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        answer = (await drop(valet)).json()
        assert answer["ok"] == 1
        (made,) = await listed(valet)
        assert answer["backup"] == {"id": made["id"], "name": made["name"], "logical_database": None}
        assert made["status"] == "done"
        assert "second" not in valet.server().things

        begun = (await valet.ask("POST", f"{ONE}/backups/{made['id']}/restore", json={})).json()
        assert (await restored(valet, begun))["status"] == "done"
        assert valet.server().things["second"] == "red"


async def test_what_destroys_nothing_makes_no_backup() -> None:
    async with running(databases=SAFE) as valet:
        assert (await valet.act("add-thing", SECOND)).json().keys() == {"ok", "result"}
        assert (await valet.act("list-things")).status_code == 200
        assert await listed(valet) == []


async def test_another_database_makes_none() -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        assert (await valet.act("drop-thing", SECOND, database="ad-two")).json().keys() == {"ok", "result"}
        assert (await valet.ask("GET", "/api/databases/ad-two/backups")).json()["database_backups"] == []


async def test_it_may_be_asked_of_a_token_instead() -> None:
    tokens = configuration()["tokens"]
    tokens[0]["backup_before_destroy"] = True
    tokens[1] |= {"role": "admin"}
    async with running(tokens=tokens) as valet:
        for token, backups in (("operator", 0), ("admin", 1)):
            add_second(valet)
            assert ("backup" in (await drop(valet, token=token)).json()) == bool(backups)
            assert len(await listed(valet)) == backups


@pytest.mark.parametrize(("params", "status"), [({"name": "none"}, 404), ({"name": "first"}, 403), ({"nam": 1}, 422)])
async def test_for_what_is_refused_no_backup_is_made(params: dict[str, Any], status: int) -> None:
    async with running(databases=SAFE) as valet:
        assert (await valet.act("drop-thing", params)).status_code == status
        assert await listed(valet) == []


async def test_nothing_is_destroyed_when_the_backup_fails_or_cannot_begin() -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        controls = valet.server().backups
        controls.problems["dump"] = BackupFailed("out of luck")
        failed = await drop(valet)
        assert (failed.status_code, failed.json()["code"]) == (409, "precondition")
        assert failed.json()["error"] == "Nothing was destroyed: the backup before it failed. out of luck"
        assert go_failure(failed)
        controls.missing = ["Missing: a tool."]
        for refused in (await drop(valet), await drop(valet, dry_run=True)):
            assert (refused.status_code, refused.json()["code"]) == (409, "precondition")
            assert refused.json()["error"] == f"{safety.CANNOT} Missing: a tool."
        assert valet.server().things["second"] == "red"
        del controls.problems["dump"]
        controls.missing = []
        assert (await drop(valet)).status_code == 200


async def test_a_backup_that_failed_as_its_storage_was_away_uses_up_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OSError(EIO, "the storage is away")

    async with running(databases=SAFE) as valet:
        add_second(valet)
        with monkeypatch.context() as failing:
            failing.setattr(valet.service.backups.storage, "_at", away)
            failed = await drop(valet, key="k")
        assert failed.json()["error"] == "Nothing was destroyed: the backup before it failed. the storage is away."
        again = await drop(valet, key="k")
        assert (again.status_code, "Idempotent-Replayed" in again.headers) == (200, False)


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_backup_that_takes_long_is_found_done_by_the_next_request(
    monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        gate = valet.server().backups.gates["dump"] = Gate()
        monkeypatch.setattr(safety, "WAIT_SECONDS", 0.05)
        for waiting in [await drop(valet, key=key) for _ in range(2)]:
            assert (waiting.status_code, waiting.json()["code"]) == (409, "in_progress")
            assert waiting.headers["Retry-After"] == "2"
        assert valet.server().things["second"] == "red"
        (running_one,) = await listed(valet)
        assert running_one["id"] in (await drop(valet, key=key)).json()["error"]
        gate.open.set()
        monkeypatch.setattr(safety, "WAIT_SECONDS", 30)

        done = await drop(valet, key=key)
        assert done.json()["backup"]["id"] == running_one["id"]
        assert len(await listed(valet)) == 1
        if key is not None:
            assert (await drop(valet, key=key)).content == done.content
        # It was for that one: what is destroyed later is backed up anew.
        add_second(valet)
        assert (await drop(valet)).json()["backup"]["id"] != running_one["id"]


async def test_a_backup_begun_long_ago_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        gate = valet.server().backups.gates["dump"] = Gate()
        monkeypatch.setattr(safety, "WAIT_SECONDS", 0.05)
        assert (await drop(valet)).status_code == 409
        (old,) = await listed(valet)
        gate.open.set()
        monkeypatch.setattr(safety, "WAIT_SECONDS", 30)
        monkeypatch.setattr(safety, "FRESH_SECONDS", 0)
        await ended(valet, old)
        assert (await drop(valet)).json()["backup"]["id"] != old["id"]


async def test_while_another_operation_runs_nothing_is_destroyed() -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        gate = valet.server().backups.gates["dump"] = Gate()
        await valet.ask("POST", f"{ONE}/backups", json={})
        refused = await drop(valet)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert valet.server().things["second"] == "red"
        gate.open.set()


async def test_an_engine_that_does_not_answer_destroys_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety, "BEGIN_SECONDS", 0.1)
    async with running(databases=SAFE) as valet:
        add_second(valet)
        valet.server().gate = Gate()
        refused = await drop(valet)
        assert (refused.status_code, refused.json()["code"]) == (503, "engine_unavailable")
        assert refused.json()["error"] == "Nothing was destroyed: the engine does not answer in time."
        assert valet.server().things["second"] == "red"
        assert await listed(valet) == []


async def test_a_backup_whose_request_gave_up_while_it_was_begun_is_made_and_blocks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_transaction = State._in_transaction

    def slowly(self: State, work: Callable[[Any], Any]) -> Any:
        result = in_transaction(self, work)
        if work.__qualname__.startswith("Operations.begin."):
            time.sleep(4)
        return result

    async with running(databases=SAFE) as valet:
        add_second(valet)
        with monkeypatch.context() as patched:
            patched.setattr(safety, "BEGIN_SECONDS", 2)
            patched.setattr(State, "_in_transaction", slowly)
            refused = await drop(valet)
            assert (refused.status_code, refused.json()["code"]) == (503, "state_unavailable")
            assert refused.json()["error"] == "Nothing was destroyed: the state does not answer in time."
            await until(lambda: valet.lines("operation_ended"))
        (made,) = await listed(valet)
        assert made["status"] == "done"
        assert valet.server().things["second"] == "red"
        assert (await drop(valet)).status_code == 200


async def test_a_dry_run_tells_whether_a_backup_comes_first_and_makes_none() -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        assert (await drop(valet, dry_run=True)).json()["backup_first"] is True
        unsafe = {"action_name": "drop-thing", "params": SECOND, "dry_run": True}
        answer = await valet.ask("POST", "/api/databases/ad-two/action", json=unsafe)
        assert answer.json()["backup_first"] is False
        assert await listed(valet) == []


async def test_a_dry_run_is_refused_as_the_action_is_while_another_operation_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        gate = valet.server().backups.gates["dump"] = Gate()
        await valet.ask("POST", f"{ONE}/backups", json={})
        refused, tried = await drop(valet), await drop(valet, dry_run=True)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert (tried.status_code, tried.content) == (refused.status_code, refused.content)
        gate.open.set()
        await until(lambda: valet.lines("operation_ended"))
        assert (await drop(valet, dry_run=True)).status_code == 200

        # A backup that is being made for this very thing is none: the next request takes it.
        gate = valet.server().backups.gates["dump"] = Gate()
        monkeypatch.setattr(safety, "WAIT_SECONDS", 0.05)
        assert (await drop(valet)).json()["code"] == "in_progress"
        assert (await drop(valet, dry_run=True)).json()["backup_first"] is True
        other = {"action_name": "drop-thing", "params": {"name": "third"}, "dry_run": True}
        valet.server().things["third"] = "green"
        assert (await valet.ask("POST", f"{ONE}/action", json=other)).json()["code"] == "conflict"
        gate.open.set()


@pytest.mark.parametrize("place", ["storage", "spool"])
@pytest.mark.parametrize("below", ["", "/deep/below"])
async def test_a_dry_run_is_refused_as_the_action_is_where_a_backup_cannot_be_written(
    tmp_path: Path, place: str, below: str
) -> None:
    (tmp_path / "a file").touch()
    (tmp_path / "room").mkdir()
    taken = f"{tmp_path}/a file{below}"
    backups = {"storage": f"file://{tmp_path}/room/new", "spool": f"{tmp_path}/room/new"}
    backups[place] = f"file://{taken}" if place == "storage" else taken
    async with running(databases=SAFE, backups=backups) as valet:
        add_second(valet)
        tried = await drop(valet, dry_run=True)
        assert not below_of(tmp_path / "room")
        refused = await drop(valet)
        for each in (tried, refused):
            assert (each.status_code, each.json()["code"]) == (409, "precondition"), each.text
            assert "Nothing was destroyed" in each.json()["error"]
        assert "Not a directory" in tried.json()["error"]
        assert valet.server().things["second"] == "red"


@pytest.mark.parametrize("storage", ["file://{}/new/below", "memory://dry-runs"])
async def test_a_dry_run_leaves_nothing_where_backups_are_kept(tmp_path: Path, storage: str) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    backups = {"storage": storage.format(tmp_path), "spool": f"{tmp_path}/spool"}
    async with running(databases=SAFE, backups=backups) as valet:
        add_second(valet)
        assert (await drop(valet, dry_run=True)).json()["backup_first"] is True
        assert not below_of(tmp_path)
        assert MemoryFileSystem().find("/dry-runs") == []
        assert (await drop(valet)).status_code == 200


async def test_a_dry_run_says_what_a_storage_elsewhere_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    async with running(databases=SAFE, backups={"storage": "memory://dry-runs"}) as valet:
        add_second(valet)

        def refuse(*_: Any, **__: Any) -> None:
            raise RuntimeError("403 from the bucket")

        monkeypatch.setattr(MemoryFileSystem, "open", refuse)
        tried, refused = await drop(valet, dry_run=True), await drop(valet)
        for each in (tried, refused):
            assert (each.status_code, each.json()["code"]) == (409, "precondition"), each.text
            assert each.json()["error"].endswith(" RuntimeError: 403 from the bucket.")


async def test_a_storage_that_does_not_answer_holds_no_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        silent = threading.Event()
        monkeypatch.setattr(valet.service.backups.storage, "try_to_write", lambda _: silent.wait(60))
        monkeypatch.setattr(safety, "BEGIN_SECONDS", 0.5)
        tried = await drop(valet, dry_run=True)
        silent.set()
        assert (tried.status_code, tried.json()["code"]) == (409, "precondition")
        assert tried.json()["error"] == f"{safety.CANNOT} The storage does not answer in time."


async def named_backups(valet: Valet) -> list[dict[str, Any]]:
    """Give the backups as answers name them, the newest last."""
    return [
        {"id": each["id"], "name": each["name"], "logical_database": None} for each in reversed(await listed(valet))
    ]


@pytest.mark.parametrize(("lost", "status"), [(ConnectionLost, 503), (DeadlineExceeded, 504)])
async def test_an_answer_that_was_lost_names_the_backup_and_so_does_the_next_one(
    lost: type[EngineError], status: int
) -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        valet.server().problem_after = lost("It was cut.")
        cut = await drop(valet, key="k")
        valet.server().problem_after = None
        (made,) = await named_backups(valet)
        assert (cut.status_code, cut.json()["error"]) == (
            status,
            f"It was cut. Backed up before: {made['name']} ({made['id']}).",
        )
        again = await drop(valet, key="k")
        assert again.json() == {"ok": 1, "result": None, "backup": made}
        assert (await drop(valet, key="k")).content == again.content
        assert len(await listed(valet)) == 1


async def test_without_a_key_a_lost_answer_names_the_backup_too() -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        valet.server().problem_after = ConnectionLost("It was cut.")
        cut = await drop(valet)
        (made,) = await named_backups(valet)
        assert cut.json()["error"] == f"It was cut. Backed up before: {made['name']} ({made['id']})."


async def test_what_a_dbvalet_that_died_has_backed_up_is_named_by_the_next_one(tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(databases=SAFE, state=state) as first, running(databases=SAFE, state=state) as other:
        for each in (first, other):
            add_second(each)
        gate = first.server().gates["drop-thing second"] = Gate()
        asked = asyncio.create_task(drop(first, key="k"))
        await until(lambda: gate.waiting)
        asked.cancel()
        first.service.state.presence.forget(first.service.operations.owner)  # type: ignore[union-attr]
        del other.server().things["second"]  # it had done it
        (made,) = await named_backups(other)
        assert (await drop(other, key="k")).json() == {"ok": 1, "result": None, "backup": made}
        assert other.server().performed == []
        gate.open.set()


async def test_what_is_done_again_names_the_backups_of_each_try() -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        server = valet.server()
        for _ in range(2):
            server.problems["drop-thing second"] = ConnectionLost("It was cut.")
            assert (await drop(valet, key="k")).status_code == 503
        server.problems.clear()
        server.problem_after = ConnectionLost("It was cut.")
        assert (await drop(valet, key="k")).status_code == 503
        server.problem_after = None
        first, second, third = await named_backups(valet)
        done = (await drop(valet, key="k")).json()
        assert done == {"ok": 1, "result": None, "backup": third, "earlier_backups": [first, second]}


async def test_the_audit_names_the_backups_that_were_made_before() -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        server = valet.server()
        server.problems["drop-thing second"] = ConnectionLost("It was cut.")
        assert (await drop(valet, key="k")).status_code == 503
        server.problems.clear()
        for _ in range(2):
            assert (await drop(valet, key="k")).status_code == 200
        add_second(valet)
        assert (await drop(valet)).status_code == 200
        assert (await valet.act("drop-thing", SECOND, database="ad-two")).status_code == 200
        first, second, third = [each["id"] for each in await named_backups(valet)]
        lines = (await valet.ask("GET", "/api/audit")).json()["audit"]
    assert [(line["code"], line.get("backups")) for line in lines] == [
        ("begun", [first]),
        ("engine_unavailable", [first]),
        ("begun", [first, second]),
        ("ok", [first, second]),
        ("ok", None),  # the answer was given again
        ("begun", [third]),
        ("ok", [third]),
        ("begun", None),
        ("ok", None),
    ]


async def test_what_another_has_taken_over_meanwhile_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(databases=SAFE, state=state) as first, running(databases=SAFE, state=state) as other:
        for each in (first, other):
            add_second(each)
            monkeypatch.setattr(each.service.state, "presence", None)
        server = first.server()
        server.problems["drop-thing second"] = ConnectionLost("It was cut.")
        assert (await drop(first, key="k")).status_code == 503
        server.problems.clear()
        gate = server.backups.gates["dump"] = Gate()
        again = asyncio.create_task(drop(first, key="k"))
        await until(lambda: gate.waiting)
        with monkeypatch.context() as patched:
            patched.setattr(once, "SILENT", timedelta(seconds=-1))
            assert (await drop(other, key="k")).json()["code"] == "conflict"  # the backup is an operation
        gate.open.set()
        late = await again
        assert (late.status_code, late.json()["code"]) == (409, "in_progress")
        assert server.things["second"] == "red"


async def test_what_cannot_be_told_and_what_is_refused_half_way_name_the_backup() -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        server = valet.server()
        server.problem_after = ConnectionLost("It was cut.")
        assert (await drop(valet, key="k")).status_code == 503
        server.things["second"] = "made anew"
        (made,) = await named_backups(valet)
        told = f" Backed up before: {made['name']} ({made['id']})."
        unknown = await drop(valet, key="k")
        assert (unknown.json()["code"], unknown.json()["error"]) == ("answer_unknown", once.NOT_AGAIN + told)

        server.problem_after = Conflict("A part is gone.")
        refused = await drop(valet, key="k2")
        made = (await named_backups(valet))[-1]
        assert refused.json()["error"] == f"A part is gone. Backed up before: {made['name']} ({made['id']})."
        assert (await drop(valet, key="k2")).content == refused.content


async def test_what_was_done_and_cannot_be_written_down_names_the_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise Precondition("The disk is full.")

    async with running(databases=SAFE) as valet:
        add_second(valet)
        monkeypatch.setattr(once.Once, "keep", refuse)
        cut = await drop(valet, key="k")
        (made,) = await named_backups(valet)
        assert (cut.status_code, cut.json()["code"]) == (503, "state_unavailable")
        assert cut.json()["error"].endswith(f" The disk is full. Backed up before: {made['name']} ({made['id']}).")
        monkeypatch.undo()
        assert (await drop(valet, key="k")).json()["backup"] == made


async def test_a_restore_backs_up_what_it_replaces() -> None:
    async with running(databases=SAFE) as valet:
        source = await make(valet)
        add_second(valet)
        begun = (await valet.ask("POST", f"{ONE}/backups/{source['id']}/restore", json={})).json()
        done = await restored(valet, begun)
        assert done["status"] == "done"
        assert "second" not in valet.server().things
        saved = next(each for each in await listed(valet) if each["id"] == done["safety_backup_id"])
        assert saved["status"] == "done"
        assert f"({saved['id']})" in done["notes"][0]
        told = (await valet.ask("GET", "/api/audit")).json()["audit"][-1]
        assert (told["method"], told["params"]["safety_backup_id"]) == ("OPERATION", saved["id"])

        again = (await valet.ask("POST", f"{ONE}/backups/{saved['id']}/restore", json={})).json()
        assert (await restored(valet, again))["status"] == "done"
        assert valet.server().things["second"] == "red"


@pytest.mark.parametrize("keep", [{"count": 1}, {"days": 7}])
async def test_the_backup_before_a_restore_does_not_push_out_what_is_restored(keep: dict[str, int]) -> None:
    async with running(databases=SAFE, backups={"keep": keep}) as valet:
        older, source = await make(valet), await make(valet)
        for each in (older, source):
            await grow_old(valet, each, 30)
        add_second(valet)
        begun = (await valet.ask("POST", f"{ONE}/backups/{source['id']}/restore", json={})).json()
        done = await restored(valet, begun)
        assert done["status"] == "done", done
        assert "second" not in valet.server().things
        # Once it is done, the others that are no longer to be kept are gone.
        assert {each["id"] for each in await listed(valet)} == {source["id"], done["safety_backup_id"]}


async def test_a_backup_that_is_no_longer_kept_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(databases=SAFE) as valet:
        add_second(valet)
        gate = valet.server().backups.gates["dump"] = Gate()
        monkeypatch.setattr(safety, "WAIT_SECONDS", 0.05)
        assert (await drop(valet)).status_code == 409
        (waited_for,) = await listed(valet)
        gate.open.set()
        await ended(valet, waited_for)
        assert (await valet.ask("DELETE", f"/api/databases/ad-one/backups/{waited_for['id']}")).status_code == 204
        monkeypatch.setattr(safety, "WAIT_SECONDS", 30)
        answer = await drop(valet)
        assert answer.json()["backup"]["id"] != waited_for["id"]


async def test_a_restore_whose_backup_fails_replaces_nothing() -> None:
    async with running(databases=SAFE) as valet:
        source = await make(valet)
        add_second(valet)
        valet.server().backups.problems["dump"] = BackupFailed("out of luck")
        begun = (await valet.ask("POST", f"{ONE}/backups/{source['id']}/restore", json={})).json()
        done = await restored(valet, begun)
        assert (done["status"], done["error"]) == ("error", "out of luck")
        assert valet.server().things["second"] == "red"
        saved = next(each for each in await listed(valet) if each["id"] == begun["safety_backup_id"])
        assert saved["status"] == "error"


async def test_a_restore_that_was_cut_off_in_its_backup_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.02)
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(databases=SAFE, state=state) as valet:
        source = await make(valet)
        add_second(valet)
        valet.server().backups.gates["dump"] = Gate()
        begun = (await valet.ask("POST", f"{ONE}/backups/{source['id']}/restore", json={})).json()
    async with running(databases=SAFE, state=state) as valet:
        add_second(valet)
        done = await restored(valet, begun)
        assert done["status"] == "error"
        assert valet.server().things["second"] == "red"
        saved = next(each for each in await listed(valet) if each["id"] == begun["safety_backup_id"])
        assert saved["status"] == "error"


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("mysql://valet:s%2F@h:1/app?tls=true", "mysql://valet:s%2F@h:1/a%2Fb%20c?tls=true"),
        ("mongodb://valet:s@h,h2/app", "mongodb://valet:s@h,h2/a%2Fb%20c?authSource=app"),
        ("mongodb://valet:s@h/app?authSource=admin", "mongodb://valet:s@h/a%2Fb%20c?authSource=admin"),
        ("mongodb://h/app", "mongodb://h/a%2Fb%20c"),
    ],
)
def test_the_address_of_another_logical_database_is_for_the_same_account(url: str, other: str) -> None:
    from engines.address import parse_address

    found = parse_address(url, 1).of("a/b c")
    assert (found.url, found.database) == (other, "a/b c")
