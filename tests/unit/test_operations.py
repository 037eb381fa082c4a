"""Work that outlives its request: one a database, told how far it is, never left behind."""

import asyncio
import errno
import gc
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.errors import Interrupted, LeftBehind, OperationOpen
from agent.operations import keeper, record, runner, undeclared
from agent.operations.record import Operation
from agent.operations.runner import Operations
from agent.state.state import State
from agent.tasks import Task
from engines.action import Effect
from engines.errors import BackupFailed, EngineUnavailable, Precondition, PrivilegeMissing
from tests.contract.decoders import go_failure
from tests.fakes.driver import Gate
from tests.fakes.kinds import FakeKind
from tests.fakes.service import TOKENS, URL, Valet, running, until

ONE = "/api/databases/ad-one"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {
        "LOOK_SECONDS": 0.02,
        "ABANDONED_SECONDS": 0.4,
        "CLEAN_UP_SECONDS": 0.1,
    }.items():
        monkeypatch.setattr(runner, name, seconds)
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running() as valet:
        valet.service.operations.kinds["fake"] = FakeKind()
        yield valet


def kind_of(valet: Valet) -> FakeKind:
    kind = valet.service.operations.kinds["fake"]
    assert isinstance(kind, FakeKind)
    return kind


async def begin(valet: Valet, database_id: str = "ad-one") -> Operation:
    return await valet.service.operations.begin(valet.database(database_id), "fake", {"a": 1}, "admin")


async def shown(valet: Valet, operation: Operation) -> dict[str, Any]:
    return (await valet.ask("GET", f"/api/databases/{operation.database_id}/operations/{operation.id}")).json()[
        "operation"
    ]


async def until_shown(
    valet: Valet, operation: Operation, condition: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while not condition(found := await shown(valet, operation)):  # noqa: ASYNC110 - what is asked for has no event
            await asyncio.sleep(0.01)
    return found


async def ended(valet: Valet, operation: Operation) -> dict[str, Any]:
    return await until_shown(valet, operation, lambda found: found["finished_at"])


async def test_an_operation_tells_how_far_it_is_and_how_it_ended(valet: Valet):
    gate = kind_of(valet).gate = Gate()
    operation = await begin(valet)
    assert (await shown(valet, operation))["status"] in ("pending", "running")
    found = await until_shown(valet, operation, lambda found: found["progress"] == 40)
    assert (found["status"], found["step"], found["error"]) == ("running", "half-way", None)
    assert (found["type"], found["started_by"], found["database_id"]) == ("fake", "admin", "ad-one")
    gate.open.set()

    found = await ended(valet, operation)
    assert (found["status"], found["progress"], found["step"]) == ("finished", 100, "done")
    assert (found["error"], found["notes"]) == (None, ["a note"])
    assert found["created_at"] < found["finished_at"]
    assert [line["outcome"] for line in valet.lines("operation_ended")] == ["finished"]


async def test_the_database_names_its_operation_while_it_is_open(valet: Valet):
    async def current(database_id: str) -> str | None:
        return (await valet.ask("GET", f"/api/databases/{database_id}")).json()["database"]["current_operation_id"]

    gate = kind_of(valet).gate = Gate()
    assert await current("ad-one") is None
    operation = await begin(valet)
    assert (await current("ad-one"), await current("ad-two")) == (operation.id, None)
    gate.open.set()
    await ended(valet, operation)
    assert await current("ad-one") is None


async def test_of_many_that_begin_at_once_on_a_database_one_does(valet: Valet):
    gate = kind_of(valet).gate = Gate()
    results = await asyncio.gather(*(begin(valet) for _ in range(10)), return_exceptions=True)
    begun = [each for each in results if isinstance(each, Operation)]
    refused = [each for each in results if isinstance(each, OperationOpen)]

    assert (len(begun), len(refused)) == (1, 9)
    assert refused[0].message == f"Another operation is in progress on this database: fake {begun[0].id}."
    other = await begin(valet, "ad-two")
    gate.open.set()
    assert (await ended(valet, other))["status"] == "finished"
    await ended(valet, begun[0])
    assert (await ended(valet, await begin(valet)))["status"] == "finished"
    assert len(kind_of(valet).ran) == 3


async def test_the_list_has_the_newest_first_and_only_those_of_the_database(valet: Valet):
    made = [await begin(valet)]
    await ended(valet, made[0])
    made.append(await begin(valet))
    await ended(valet, made[1])
    await ended(valet, await begin(valet, "ad-two"))

    listed = (await valet.ask("GET", f"{ONE}/operations", "reader")).json()["operations"]
    assert [each["id"] for each in listed] == [made[1].id, made[0].id]
    unseen = await valet.ask("GET", f"/api/databases/ad-two/operations/{made[0].id}")
    assert go_failure(unseen) == "The operation was not found"


async def test_an_operation_of_another_database_is_not_found_and_goes_on(valet: Valet):
    operation = await begin(valet)
    for token in ("admin", "of-two"):
        for method, rest in (("GET", ""), ("POST", "/cancel")):
            answer = await valet.ask(method, f"/api/databases/ad-two/operations/{operation.id}{rest}", token)
            assert (answer.status_code, go_failure(answer)) == (404, "The operation was not found")
    assert (await valet.ask("GET", f"/api/databases/ad-one/operations/{operation.id}", "of-two")).status_code == 404
    assert (await ended(valet, operation))["status"] == "finished"


@pytest.mark.parametrize(
    ("problem", "status", "text"),
    [
        (Precondition("Install pg_dump."), "user-error", "Install pg_dump."),
        (PrivilegeMissing("GRANT it."), "user-error", "GRANT it."),
        (BackupFailed("pg_dump ended with 1: out of luck"), "error", "pg_dump ended with 1: out of luck"),
        (EngineUnavailable(), "error", "The engine cannot be reached."),
        (Interrupted(), "error", "dbvalet ended in the middle of it; what it had begun was undone."),
        (OSError(errno.ENOSPC, "No space left on device", "/spool/x"), "error", "No space left on device (/spool/x)."),
    ],
)
async def test_a_failure_ends_it_with_its_text(valet: Valet, problem: Exception, status: str, text: str):
    kind_of(valet).problem = problem
    found = await ended(valet, await begin(valet))
    assert (found["status"], found["error"], found["progress"]) == (status, text, 40)


async def test_a_bug_ends_it_and_is_logged_whole(valet: Valet):
    kind_of(valet).problem = RuntimeError("planted-bug")
    operation = await begin(valet)
    found = await ended(valet, operation)

    assert found["error"] == f"This is a bug of dbvalet. Its log has the details under {operation.id}."
    (line,) = valet.lines("bug")
    assert "planted-bug" in line["exception"]


async def test_cancel_stops_it_and_says_so(valet: Valet):
    kind_of(valet).gate = Gate()
    operation = await begin(valet)
    await until(lambda: kind_of(valet).ran)
    answer = await valet.ask("POST", f"{ONE}/operations/{operation.id}/cancel", "operator", json={})

    assert answer.status_code == 200
    assert answer.json()["operation"]["status"] in ("cancelling", "cancelled")
    found = await ended(valet, operation)
    assert (found["status"], found["error"]) == ("cancelled", None)
    assert kind_of(valet).undone == [operation.id]
    again = await valet.ask("POST", f"{ONE}/operations/{operation.id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


async def test_cancel_takes_what_beginning_it_takes(valet: Valet):
    gate = kind_of(valet).gate = Gate()
    operation = await begin(valet)
    path = f"{ONE}/operations/{operation.id}/cancel"
    assert (await valet.ask("POST", path, "reader")).status_code == 403
    refused = await valet.ask("POST", path, "picky")
    assert refused.status_code == 403
    assert (await shown(valet, operation))["status"] != "cancelling"
    gate.open.set()
    await ended(valet, operation)


async def test_another_dbvalet_on_the_same_state_can_cancel_it(tmp_path: Path):
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as first, running(state=state) as second:
        kind = FakeKind()
        for each in (first, second):
            each.service.operations.kinds["fake"] = kind
        kind.gate = Gate()
        operation = await begin(first)
        await second.ask("POST", f"{ONE}/operations/{operation.id}/cancel")

        assert (await ended(second, operation))["status"] == "cancelled"
        assert (kind.ran, kind.recovered) == ([operation.id], [])


async def test_what_was_running_when_dbvalet_was_stopped_is_brought_to_an_end_by_the_next_at_once(tmp_path: Path):
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as valet:
        kind = valet.service.operations.kinds["fake"] = FakeKind()
        kind.gate = Gate()
        operation = await begin(valet)
        await until(lambda: kind.ran)
    assert kind.undone == [operation.id]
    (line,) = valet.lines("operation_left")
    assert line["operation"] == operation.id
    async with running(state=state) as valet:
        kind = valet.service.operations.kinds["fake"] = FakeKind()
        kind.recover_problem = Interrupted()
        found = await ended(valet, operation)

        assert (kind.recovered, kind.cut) == ([operation.id], ["dbvalet ended"])
        assert (found["status"], found["error"]) == ("error", Interrupted().message)
        assert valet.lines("operation_taken_over")


async def abandon(valet: Valet, operation: Operation) -> None:
    """Let the owner of an operation die without a word."""
    operations = valet.service.operations
    keeper = operations._working[operation.id]
    setattr(operations._keeper, "_leave", _nothing)  # noqa: B010 - a method cannot be assigned to
    if operations._watcher:
        operations._watcher.cancel()
    keeper.cancel()
    await asyncio.wait([keeper])


async def _nothing(*_: Any) -> None:
    return


async def test_a_dbvalet_that_dies_is_noticed_by_its_heartbeat_and_taken_over_once(tmp_path: Path):
    state = f"sqlite:///{tmp_path}/state.db"
    kind = FakeKind()
    kind.gate = Gate()
    async with running(state=state) as first, running(state=state) as second, running(state=state) as third:
        for each in (first, second, third):
            each.service.operations.kinds["fake"] = kind
        operation = await begin(first)
        await until(lambda: kind.ran)
        await asyncio.sleep(2 * runner.ABANDONED_SECONDS)
        assert kind.recovered == []  # alive, however long it takes
        await abandon(first, operation)

        found = await ended(second, operation)
        assert (found["status"], found["notes"]) == ("finished", ["recovered"])
        await asyncio.sleep(2 * runner.ABANDONED_SECONDS)
        assert kind.recovered == [operation.id]
        assert kind.cut == ["dbvalet ended or was cut off from its state"]


async def test_an_owner_that_was_taken_for_dead_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Nobody takes it over from the thief.
    monkeypatch.setattr(runner, "ABANDONED_SECONDS", 1000.0)
    state = f"sqlite:///{tmp_path}/state.db"
    kind = FakeKind()
    kind.gate = Gate()
    async with running(state=state) as first:
        first.service.operations.kinds["fake"] = kind
        operation = await begin(first)
        await until(lambda: kind.ran)
        thief = State(state)
        await thief.run(lambda connection: _steal(connection, operation))
        await until(lambda: first.lines("operation_lost"))

        assert kind.undone == [operation.id]
        assert (await shown(first, operation))["finished_at"] is None
        thief.close()


async def test_an_operation_that_lost_its_state_for_a_while_is_brought_to_an_end_by_its_own_dbvalet(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
):
    async def refuse(*_: Any) -> None:
        raise Precondition("The state cannot be used.")

    kind_of(valet).gate = Gate()
    operation = await begin(valet)
    await until(lambda: kind_of(valet).ran)
    with monkeypatch.context() as patched:
        patched.setattr(keeper, "LOST_SECONDS", 0.1)
        patched.setattr(keeper.Keeper, "_beat", refuse)
        await until(lambda: valet.lines("operation_lost"))
    found = await ended(valet, operation)

    assert (found["status"], found["notes"], kind_of(valet).undone) == ("finished", ["recovered"], [operation.id])
    assert kind_of(valet).cut == ["The state did not answer"]
    kind_of(valet).gate = None
    assert (await ended(valet, await begin(valet)))["notes"] == ["a note"]


@contextmanager
def slow_commits(monkeypatch: pytest.MonkeyPatch, seconds: float, then: Exception | None = None) -> Iterator[None]:
    """Let those who begin an operation learn only after a while that it is committed, or that it failed."""
    in_transaction = State._in_transaction

    def slowly(self: State, work: Callable[[Any], Any]) -> Any:
        result = in_transaction(self, work)
        if work.__qualname__.startswith("Operations.begin."):
            time.sleep(seconds)
            if then is not None:
                raise then
        return result

    with monkeypatch.context() as patched:
        patched.setattr(State, "_in_transaction", slowly)
        yield


async def test_an_operation_whose_client_leaves_while_it_is_committed_is_worked_on(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runner, "ABANDONED_SECONDS", 1000.0)
    with slow_commits(monkeypatch, 0.3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await begin(valet)
        await until(lambda: valet.lines("operation_ended"))

    (operation,) = await valet.service.operations.newest("ad-one")
    assert (operation.status, kind_of(valet).ran) == ("finished", [operation.id])


async def test_what_is_refused_when_its_client_has_left_is_told_nobody_and_a_bug_is_logged(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runner, "ABANDONED_SECONDS", 1000.0)
    problems = (Precondition("The state cannot be used."), RuntimeError("planted-bug"))
    unseen: list[Any] = []
    loop = asyncio.get_running_loop()
    # The loop is that of all tests: what others have left to it is theirs.
    monkeypatch.setattr(loop, "_exception_handler", lambda _, context: unseen.append(context.get("exception")))
    operations = valet.service.operations
    for problem in problems:
        with slow_commits(monkeypatch, 0.2, problem):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await begin(valet, "ad-one" if isinstance(problem, Precondition) else "ad-two")
            await until(lambda: not operations._beginning)
    gc.collect()
    await until(lambda: valet.lines("bug"))

    assert ["planted-bug" in line["exception"] for line in valet.lines("bug")] == [True]
    assert [each for each in unseen if each in problems] == []


async def test_an_operation_whose_commit_was_not_seen_to_succeed_is_brought_to_an_end(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
):
    with slow_commits(monkeypatch, 0.0, Precondition("The state cannot be used.")), pytest.raises(Precondition):
        await begin(valet)
    (operation,) = await valet.service.operations.newest("ad-one")
    found = await ended(valet, operation)

    assert (found["notes"], kind_of(valet).ran, kind_of(valet).recovered) == (["recovered"], [], [operation.id])
    assert kind_of(valet).cut == ["The state did not answer"]
    await asyncio.sleep(2 * runner.ABANDONED_SECONDS)
    assert kind_of(valet).recovered == [operation.id]


async def test_an_operation_that_is_begun_while_dbvalet_ends_is_left_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as valet:
        kind = valet.service.operations.kinds["fake"] = FakeKind()
        kind.gate = Gate()
        with slow_commits(monkeypatch, 0.3), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await begin(valet)
    assert [line["type"] for line in valet.lines("operation_left")] == ["fake"]


def _steal(connection: Any, operation: Operation, owner: str = "thief") -> None:
    from sqlalchemy import update

    from agent.state.tables import operations

    connection.execute(update(operations).where(operations.c.id == operation.id).values(owner=owner))


async def test_an_owner_that_was_killed_is_known_to_be_gone_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runner, "ABANDONED_SECONDS", 1000.0)
    state = f"sqlite:///{tmp_path}/state.db"
    with killed_owner(tmp_path / "state.db") as (owner, kill):
        async with running(state=state) as valet:
            kind = valet.service.operations.kinds["fake"] = FakeKind()
            kind.gate = Gate()
            operation = await begin(valet)
            await until(lambda: kind.ran)
        await _give_to(state, operation, owner)
        async with running(state=state) as valet:
            kind = valet.service.operations.kinds["fake"] = FakeKind()
            await asyncio.sleep(0.2)
            assert kind.recovered == []
            kill()
            assert (await ended(valet, operation))["notes"] == ["recovered"]
            assert kind.cut == ["dbvalet ended"]
    assert not any(name.endswith(".lock") for name in os.listdir(tmp_path))  # noqa: PTH208 - pathlib's would block


@contextmanager
def killed_owner(state_file: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Let another process be an owner, until it is killed."""
    lives = f"""
from pathlib import Path
from agent.state.presence import Presence
Presence(Path({str(state_file)!r})).claim("other")
print("here", flush=True)
input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", lives], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"

    def kill() -> None:
        process.kill()
        process.communicate()

    try:
        yield "other", kill
    finally:
        kill()


async def _give_to(state_url: str, operation: Operation, owner: str) -> None:
    state = State(state_url)
    await state.run(lambda connection: _steal(connection, operation, owner))
    state.close()


async def test_of_several_who_take_over_at_once_one_succeeds(valet: Valet):
    from agent.operations import record

    kind_of(valet).gate = Gate()
    operation = await begin(valet)
    state: State = valet.service.state

    found = await state.run(lambda connection: record.find(connection, "ad-one", operation.id))
    assert found is not None
    seen = found

    def take_as(abandoned: Operation, owner: str) -> Any:
        return state.run(lambda connection: record.take_over(connection, abandoned, owner))

    def take(owner: str) -> Any:
        return take_as(seen, owner)

    assert not await take_as(replace(seen, heartbeat=seen.heartbeat - 1), "late")
    taken = [await take(str(number)) for number in range(5)]
    assert taken.count(True) <= 1
    assert taken[1:] == [False] * 4


async def test_what_is_left_behind_is_cleaned_up_once_the_engine_is_back(valet: Valet):
    clean_up = valet.service.operations.kinds["clean_up"] = FakeKind()
    clean_up.problem = EngineUnavailable()
    kind_of(valet).problem = LeftBehind()
    operation = await begin(valet)
    await until(lambda: len(clean_up.ran) == 2)
    found = await ended(valet, operation)
    assert (found["status"], found["error"]) == ("error", LeftBehind().message)
    clean_up.problem = None
    await until(lambda: len(clean_up.ran) == 3)
    await asyncio.sleep(0.3)

    assert len(clean_up.ran) == 3


async def test_what_cannot_be_cleaned_up_is_tried_after_pauses_that_grow(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    now = 1000.0
    monkeypatch.setattr(runner, "CLEAN_UP_SECONDS", 60.0)
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: now))
    operations, database = valet.service.operations, valet.database()
    await until(lambda: database.up)
    tried: list[float] = []
    for second in range(6 * 3600):
        now = 1000.0 + second
        if operations._may_clean_up(database):
            tried.append(now - 1000.0)
    assert tried[:5] == [0, 60, 180, 420, 900]
    assert [later - earlier for earlier, later in pairwise(tried)][-2:] == [3600, 3600]
    # Nothing for hours, so that was done: something else is tried as soon as the first.
    now += 3 * 3600
    assert operations._may_clean_up(database)
    now += 60
    assert operations._may_clean_up(database)


async def test_an_operation_of_a_newer_dbvalet_is_left_alone(tmp_path: Path):
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as valet:
        kind = valet.service.operations.kinds["fake"] = FakeKind()
        kind.gate = Gate()
        operation = await begin(valet)
    async with running(state=state) as valet:
        await asyncio.sleep(0.2)
        assert (await shown(valet, operation))["finished_at"] is None
        assert (await valet.ask("POST", f"{ONE}/operations/{operation.id}/cancel")).status_code == 200
        assert valet.lines("bug") == []


async def test_what_is_open_of_a_database_that_is_not_declared_any_more_is_ended_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(undeclared, "UNDECLARED_SECONDS", 0.5)
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as valet:
        valet.service.operations.kinds["fake"] = kind = FakeKind()
        kind.gate = Gate()
        operation = await begin(valet, "ad-two")
        await abandon(valet, operation)
    dump = tmp_path / "spool" / operation.id / "dump"
    dump.parent.mkdir(parents=True)
    dump.write_text("all its rows")
    tokens = [{"name": "admin", "token": TOKENS["admin"], "role": "admin", "databases": ["*"]}]
    backups = {"storage": f"file://{tmp_path}/kept", "spool": f"{tmp_path}/spool"}
    databases = [{"id": "ad-one", "url": URL}]
    async with running(state=state, databases=databases, tokens=tokens, backups=backups) as valet:
        await until(lambda: valet.lines("operation_of_nobody_ended"))
        assert not dump.parent.exists()

        def find(connection: Any) -> Operation | None:
            return record.find(connection, "ad-two", operation.id)

        found = await valet.service.state.run(find)
    assert found is not None
    assert found.status == "error"
    assert "not declared any more: what it may have left there is removed once it is" in (found.error or "")
    async with running(state=state) as valet:
        clean_up = valet.service.operations.kinds["clean_up"] = FakeKind()
        await until(lambda: clean_up.ran)


@pytest.mark.parametrize("dies", [False, True])
async def test_an_operation_is_left_to_who_declares_its_database_by_those_who_do_not(tmp_path: Path, dies: bool):
    state = f"sqlite:///{tmp_path}/state.db"
    tokens = [{"name": "admin", "token": TOKENS["admin"], "role": "admin", "databases": ["*"]}]
    one, two = (
        {"state": state, "tokens": tokens, "databases": [{"id": each, "url": URL}]} for each in ("ad-one", "ad-two")
    )
    async with running(**two) as other:
        async with running(**one) as first:
            kind = first.service.operations.kinds["fake"] = FakeKind()
            kind.gate = Gate()
            operation = await begin(first)
            if dies:
                await abandon(first, operation)
        await asyncio.sleep(2 * runner.ABANDONED_SECONDS)
        async with running(**one) as again:
            kind = again.service.operations.kinds["fake"] = FakeKind()
            found = await ended(again, operation)
    assert (found["notes"], kind.recovered) == (["recovered"], [operation.id])
    assert other.lines("operation_of_nobody_ended") == []


class Destroys(FakeKind):
    """One that destroys."""

    task = Task(name="destroy-fake", effect=Effect.DESTRUCTIVE)


async def audit_of(valet: Valet) -> list[tuple[Any, ...]]:
    lines = (await valet.ask("GET", "/api/audit")).json()["audit"]
    return [(line["action"], line["database"], line["params"], line["status"], line["code"]) for line in lines]


async def test_how_what_destroys_ended_is_in_the_audit_once_and_nothing_else_is(tmp_path: Path):
    state = f"sqlite:///{tmp_path}/state.db"
    kind = Destroys()
    async with running(state=state) as first, running(state=state) as second:
        for each in (first, second):
            each.service.operations.kinds |= {"fake": kind, "harmless": FakeKind()}
        await ended(first, await begin(first))
        await ended(first, await first.service.operations.begin(first.database("ad-one"), "harmless", {}, "admin"))
        kind.gate = Gate()
        kind.recover_problem = Interrupted("It was cut off.")
        operation = await begin(first)
        await until(lambda: kind.gate is not None and kind.gate.waiting)
        await abandon(first, operation)
        await ended(second, operation)
        assert await audit_of(second) == [
            ("destroy-fake", "ad-one", {"a": 1}, None, "ok"),
            ("destroy-fake", "ad-one", {"a": 1}, None, "error"),
        ]


async def test_what_destroys_and_is_of_no_declared_database_has_its_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(undeclared, "UNDECLARED_SECONDS", 0.5)
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as valet:
        valet.service.operations.kinds["fake"] = kind = Destroys()
        kind.gate = Gate()
        await abandon(valet, await begin(valet, "ad-two"))
    tokens = [{"name": "admin", "token": TOKENS["admin"], "role": "admin", "databases": ["*"]}]
    async with running(state=state, databases=[{"id": "ad-one", "url": URL}], tokens=tokens) as valet:
        valet.service.operations.kinds["fake"] = Destroys()
        await until(lambda: valet.lines("operation_of_nobody_ended"))
        assert await audit_of(valet) == [("destroy-fake", "ad-two", {"a": 1}, None, "error")]


async def test_what_destroys_ends_though_its_line_is_kept_out_and_the_log_says_so(valet: Valet):
    valet.service.operations.kinds["fake"] = kind = Destroys()
    gate = kind.gate = Gate()
    operation = await begin(valet)
    await until(lambda: gate.waiting)
    await valet.service.state.run(
        lambda connection: connection.exec_driver_sql("INSERT INTO audit VALUES (1, 'ad-one', '{}', 'x')")
    )
    gate.open.set()
    assert (await ended(valet, operation))["status"] == "finished"
    (lost,) = valet.lines("not_audited")
    assert (lost["request_id"], lost["action"], lost["outcome"]) == (operation.id, "destroy-fake", "ok")
    assert "`dbvalet audit verify`" in lost["reason"]


async def test_where_the_audit_is_switched_off_what_destroys_ends_without_a_line():
    async with running(audit="none") as valet:
        valet.service.operations.kinds["fake"] = Destroys()
        assert (await ended(valet, await begin(valet)))["status"] == "finished"
        assert await audit_of(valet) == []


async def test_the_oldest_operations_are_forgotten_but_not_those_of_backups(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
):
    backup = (await valet.ask("POST", f"{ONE}/backups")).json()["database_backup"]
    await ended(valet, await valet.service.operations.find("ad-one", backup["operation_id"]))
    monkeypatch.setattr(record, "MOST_KEPT", 2)
    begun = [await begin(valet) for _ in range(1)]
    for _ in range(3):
        await ended(valet, begun[-1])
        begun.append(await begin(valet))
    await ended(valet, begun[-1])
    listed = [each["id"] for each in (await valet.ask("GET", f"{ONE}/operations")).json()["operations"]]
    assert listed == [begun[3].id, begun[2].id, backup["operation_id"]]
    assert (await valet.ask("GET", f"/api/backups/{backup['id']}")).json()["database_backup"]["status"] == "done"


async def test_operations_without_work_import_nothing_and_find_nothing(valet: Valet):
    operations: Operations = valet.service.operations
    assert (await operations.newest("ad-one"), await operations.current("ad-one")) == ([], None)
    assert (await valet.ask("GET", f"{ONE}/operations/{'0' * 24}")).status_code == 404
