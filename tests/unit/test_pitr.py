"""Going back to an instant: whatever fails or ends at whatever step, the cluster is up with one state or the other."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Interrupted, OperationLost, SettingsError
from agent.operations import keeper, runner, undeclared
from agent.operations.kind import STATE_SILENT, Run
from agent.operations.record import Operation
from agent.pitr import record, restore
from agent.pitr.plan import Plan, Step
from agent.state.state import State
from engines.backup import Progress
from engines.errors import BackupDamaged, BackupFailed, EngineUnavailable, Precondition, RecoveryFailed, RecoveryRefused
from engines.recovery import Marker, Standing, Target, Timeline, Undo
from tests.fakes import BARE
from tests.fakes.driver import FakeRecoveryControls, Gate
from tests.fakes.recovery import MADE, SYSTEM, FakeRecovery, minutes_ago
from tests.fakes.service import PITR, TOKENS, URL, Valet, running, until

ONE = "/api/databases/ad-one"
RESTORE = f"{ONE}/pitr/restore"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.02)


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running() as valet:
        yield valet


def cluster_of(valet: Valet) -> FakeRecoveryControls:
    return valet.server().recovery


async def begin(valet: Valet, moment: str | None = None) -> dict[str, Any]:
    answer = await valet.ask("POST", RESTORE, json={"restore_time": moment or minutes_ago(3)})
    assert answer.status_code == 201, answer.text
    begun = answer.json()
    assert begun["operation"]["id"] == begun["operation_id"]
    return begun["operation"]


async def ended(valet: Valet, operation: dict[str, Any]) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            shown = (await valet.ask("GET", f"{ONE}/operations/{operation['id']}")).json()["operation"]
            if shown["finished_at"]:
                return shown
            await asyncio.sleep(0.01)


async def timelines(valet: Valet) -> list[tuple[int, int | None, bool]]:
    found = await valet.service.state.run(lambda connection: record.timelines_of(connection, "ad-one", SYSTEM))
    return [(each.number, each.parent, each.ended_at is None) for each in found]


async def test_everything_is_checked_and_marked_before_the_server_is_stopped(valet: Valet) -> None:
    at = minutes_ago(3)
    shown = await ended(valet, await begin(valet, at))
    assert (shown["type"], shown["status"], shown["error"]) == ("pitr_restore", "finished", None)
    assert cluster_of(valet).done == ["mark", "stop", "restore", "start", "promote", "backup"]
    assert datetime.fromisoformat(cluster_of(valet).content) == datetime.fromisoformat(at)
    assert "every database on it, roles and passwords included" in shown["notes"][0]
    assert await timelines(valet) == [(1, None, False), (2, 1, True)]


async def test_a_second_time_goes_from_the_new_timeline_and_an_instant_of_the_old_one_to_the_old(valet: Valet) -> None:
    await ended(valet, await begin(valet))
    await ended(valet, await begin(valet, minutes_ago(1)))
    assert await timelines(valet) == [(1, None, False), (2, 1, False), (3, 2, True)]
    found = await valet.service.operations.newest("ad-one")
    plans = [each.params["plan"] for each in reversed(found)]
    assert [plan["undo_timeline"] for plan in plans] == [1, 2]
    assert [plan["timeline"] for plan in plans] == [1, 1]  # a minute ago the first timeline lived


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2026-01-31T07:00:00Z", "It must be from"),
        pytest.param((datetime.now(UTC) + timedelta(hours=1)).isoformat(), "future", id="future"),
        ("2026-01-31T09:00:00", "names no zone"),
        ("yesterday", "is no time"),
        ("0001-01-01T00:00:00+01:00", "is no time"),  # there is no year 0 in UTC
        ("9999-12-31T23:59:59-01:00", "is no time"),
        (5, "must be a text"),
        (None, "must be a text"),
    ],
)
async def test_an_instant_that_cannot_be_is_refused_and_nothing_is_begun(valet: Valet, moment: Any, text: str) -> None:
    refused = await valet.ask("POST", RESTORE, json={"restore_time": moment})
    assert refused.status_code == 422
    assert text in refused.json()["errors"]["restore_time"][0]
    assert cluster_of(valet).done == []
    assert await valet.service.operations.newest("ad-one") == []


async def test_a_cluster_that_is_not_ready_says_what_is_missing(valet: Valet) -> None:
    cluster_of(valet).missing = ["archive_mode is off."]
    refused = await valet.ask("POST", RESTORE, json={"restore_time": minutes_ago(1)})
    assert (refused.status_code, refused.json()["error"]) == (409, "archive_mode is off.")
    unset = await valet.ask("POST", "/api/databases/ad-two/pitr/restore", json={"restore_time": minutes_ago(1)})
    assert unset.status_code == 409
    assert "`pitr`" in unset.json()["error"]


async def test_what_an_engine_does_not_have_is_not_set_up() -> None:
    database = {"id": "ad-one", "url": "bare://db.example/app", "pitr": PITR}
    with pytest.raises(SettingsError, match=r"databases\.0\.pitr: Bare has no"):
        async with running(
            engines={"bare": BARE}, databases=[database, {"id": "ad-two", "url": "bare://db.example/app"}]
        ):
            pass


async def test_an_archive_that_takes_nothing_ends_it_before_anything_is_stopped(valet: Valet) -> None:
    cluster_of(valet).problems["mark"] = [EngineUnavailable("The archive is gone.")]
    shown = await ended(valet, await begin(valet))
    assert (shown["status"], shown["error"]) == ("error", "The archive is gone.")
    assert cluster_of(valet).done == ["mark"]


async def test_a_restore_that_was_refused_leaves_the_server_up_as_it_was(valet: Valet) -> None:
    cluster_of(valet).problems["restore"] = [RecoveryRefused("The lock is held.")]
    shown = await ended(valet, await begin(valet))
    assert shown["status"] == "error"
    assert shown["error"] == "The lock is held. The server was started again as it was."
    assert cluster_of(valet).done == ["mark", "stop", "restore", "start", "promote"]
    assert (cluster_of(valet).up, cluster_of(valet).content) == (True, "last")
    assert await timelines(valet) == [(1, None, True)]


async def test_a_server_whose_last_log_was_not_archived_when_it_was_stopped_is_started_as_it_was(valet: Valet) -> None:
    cluster_of(valet).archives_at_the_stop = False
    shown = await ended(valet, await begin(valet))
    assert (
        shown["error"]
        == "The archive did not take S when the server was stopped. The server was started again as it was."
    )
    assert cluster_of(valet).done == ["mark", "stop", "start", "promote"]
    assert await timelines(valet) == [(1, None, True)]


async def cancel(valet: Valet, operation: dict[str, Any]) -> None:
    """Cancel an operation, and wait until its owner has seen that."""
    assert (await valet.ask("POST", f"{ONE}/operations/{operation['id']}/cancel")).status_code == 200
    (before,) = await valet.service.operations.newest("ad-one")
    async with asyncio.timeout(10):
        while (now := await valet.service.operations.newest("ad-one"))[0].is_open:
            if now[0].heartbeat >= before.heartbeat + 2:
                return
            await asyncio.sleep(0.01)


async def test_a_server_that_stops_later_than_it_may_is_started_again(valet: Valet) -> None:
    cluster_of(valet).problems["stop"] = [RecoveryFailed("It did not stop within 120 s.")]
    cluster_of(valet).shuts_down_later = True
    shown = await ended(valet, await begin(valet))
    assert shown["error"] == "It did not stop within 120 s. The server was started again as it was."
    assert (cluster_of(valet).up, cluster_of(valet).content) == (True, "last")


async def test_who_cancels_while_the_server_shuts_down_gets_it_started_again(valet: Valet) -> None:
    cluster = cluster_of(valet)
    gate = cluster.gates["stop"] = Gate()
    operation = await begin(valet)
    await until(lambda: gate.waiting)
    await cancel(valet, operation)
    assert cluster.done == ["mark", "stop"]  # started now, it would go down a moment later, for good
    gate.open.set()
    assert (await ended(valet, operation))["status"] == "cancelled"
    assert (cluster.up, cluster.done) == (True, ["mark", "stop", "start", "promote"])


async def test_who_cancels_while_the_server_is_being_started_has_it_stopped_before_it_is_undone(valet: Valet) -> None:
    cluster = cluster_of(valet)
    gate = cluster.gates["start"] = Gate()
    operation = await begin(valet)
    await until(lambda: gate.waiting)
    await cancel(valet, operation)
    assert cluster.done[-1] == "start"  # who starts it may go on, and would start it under the restore
    gate.open.set()
    assert (await ended(valet, operation))["status"] == "cancelled"
    assert cluster.done == ["mark", "stop", "restore", "start", "stop", "undo", "start", "promote"]


class RefusedHalfWay(RecoveryRefused):
    """A restore that says that it changed nothing, and has."""


async def test_a_restore_that_was_refused_half_way_is_undone(valet: Valet) -> None:
    cluster_of(valet).problems["restore"] = [RefusedHalfWay("A file of the set is missing.")]
    shown = await ended(valet, await begin(valet))
    assert shown["error"] == "A file of the set is missing. The last state was brought back: nothing is lost."
    assert (cluster_of(valet).up, cluster_of(valet).content) == (True, "last")
    assert "undo" in cluster_of(valet).done


async def test_a_restore_that_could_not_begin_leaves_the_server_up_as_it_was(valet: Valet) -> None:
    cluster_of(valet).problems |= {
        "restore": [BackupFailed("The repository is away.")],
        "undo": [BackupFailed("The repository is away.")],
    }
    shown = await ended(valet, await begin(valet))
    assert shown["error"] == "The repository is away. The server was started again as it was."
    assert cluster_of(valet).done == ["mark", "stop", "restore", "start", "promote"]
    assert (cluster_of(valet).up, cluster_of(valet).content) == (True, "last")
    assert await timelines(valet) == [(1, None, True)]


async def test_a_restore_that_failed_when_all_was_there_is_undone(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore_files = FakeRecovery.restore

    async def fail_afterwards(self: FakeRecovery, target: Target | Undo, progress: Progress) -> None:
        await restore_files(self, target, progress)
        if isinstance(target, Target):
            raise RecoveryFailed("The disk was full in the end.")

    monkeypatch.setattr(FakeRecovery, "restore", fail_afterwards)
    shown = await ended(valet, await begin(valet))
    assert shown["error"] == "The disk was full in the end. The last state was brought back: nothing is lost."
    assert cluster_of(valet).content == "last"


async def test_after_a_crash_while_it_was_tried_as_it_was_it_is_tried_again(valet: Valet) -> None:
    operation = await planned(valet, Step.TRY_AS_IT_WAS)
    cluster = cluster_of(valet)
    cluster.up, cluster.done = False, []
    kind = valet.service.operations.kinds["pitr_restore"]
    with pytest.raises(Interrupted, match="started again as it was"):
        await kind.recover(run_of(valet, operation))
    assert (cluster.up, cluster.content, cluster.done) == (True, "last", ["start", "promote"])


async def test_a_server_that_does_not_stop_is_left_running(valet: Valet) -> None:
    cluster_of(valet).problems["stop"] = [RecoveryFailed("It did not stop.")]
    shown = await ended(valet, await begin(valet))
    assert shown["error"] == "It did not stop. The server was started again as it was."
    assert (cluster_of(valet).up, cluster_of(valet).content) == (True, "last")


@pytest.mark.parametrize("step", ["restore", "start", "promote"])
async def test_what_fails_after_the_files_were_touched_is_undone(valet: Valet, step: str) -> None:
    cluster_of(valet).problems[step] = [RecoveryFailed("FATAL: of this step.")]
    shown = await ended(valet, await begin(valet))
    assert shown["status"] == "error"
    assert shown["error"] == "FATAL: of this step. The last state was brought back: nothing is lost."
    assert (cluster_of(valet).up, cluster_of(valet).content) == (True, "last")
    assert (await timelines(valet))[-1][2]
    assert (await ended(valet, await begin(valet)))["status"] == "finished"


async def test_an_undo_that_fails_too_says_that_the_server_is_down_and_how_to_bring_it_back(valet: Valet) -> None:
    cluster_of(valet).problems |= {
        "promote": [RecoveryFailed("FATAL: target.")],
        "undo": [RecoveryFailed("The disk is full.")],
    }
    shown = await ended(valet, await begin(valet))
    assert shown["status"] == "error"
    for text in ("FATAL: target.", "The disk is full.", "The server is down", "set F on timeline 1"):
        assert text in shown["error"]


async def test_an_undo_whose_set_is_damaged_takes_an_older_one(valet: Valet) -> None:
    cluster_of(valet).older_sets = ["E", "D"]
    cluster_of(valet).problems |= {
        "promote": [RecoveryFailed("FATAL: target.")],
        "undo": [RecoveryFailed("A file of the set is missing."), RecoveryFailed("And of this.")],
    }
    shown = await ended(valet, await begin(valet))
    assert shown["error"] == "FATAL: target. The last state was brought back: nothing is lost."
    assert cluster_of(valet).done.count("undo") == 3
    assert (cluster_of(valet).up, cluster_of(valet).content) == (True, "last")
    (operation,) = await valet.service.operations.newest("ad-one")
    assert operation.params["plan"]["undo_label"] == "D"


async def test_a_backup_that_fails_afterwards_is_a_note(valet: Valet) -> None:
    cluster_of(valet).problems["backup"] = [RecoveryFailed("no room")]
    shown = await ended(valet, await begin(valet))
    assert shown["status"] == "finished"
    assert shown["notes"][-1] == "The full backup after it failed, make one soon: no room"


async def cancelled_at(valet: Valet, step: str) -> dict[str, Any]:
    gate = cluster_of(valet).gates[step] = Gate()
    operation = await begin(valet)
    await until(lambda: gate.waiting)
    del cluster_of(valet).gates[step]  # the way back is free
    await cancel(valet, operation)
    if step in ("stop", "start"):
        gate.open.set()  # what was asked of the server is not taken back
    return await ended(valet, operation)


@pytest.mark.parametrize("step", ["mark", "stop", "restore", "start", "promote"])
async def test_cancelled_at_any_step_the_last_state_is_there(valet: Valet, step: str) -> None:
    shown = await cancelled_at(valet, step)
    assert shown["status"] == "cancelled"
    assert (cluster_of(valet).up, cluster_of(valet).content) == (True, "last")
    assert (await timelines(valet))[-1][2]


async def test_cancelled_after_the_server_was_back_it_says_that_this_was_too_late(valet: Valet) -> None:
    shown = await cancelled_at(valet, "backup")
    assert shown["status"] == "finished"
    assert "was not made" in shown["notes"][-2]
    assert shown["notes"][-1] == "It was done already when it was to be cancelled."
    assert cluster_of(valet).content != "last"


def run_of(valet: Valet, operation: Operation) -> Run:
    return Run(operation=operation, database=valet.database(), percent=0, step="")


@pytest.mark.parametrize(
    ("step", "up", "content", "done"),
    [
        (Step.STOP, False, "last", ["restore", "start", "promote", "backup"]),
        (Step.RESTORE, False, "half", ["restore", "start", "promote", "backup"]),
        (Step.START, False, "then", ["start", "promote", "backup"]),
        (Step.START, True, "then", ["promote", "backup"]),
        (Step.BACKUP, True, "then", ["backup"]),
    ],
)
async def test_after_a_crash_it_goes_on_from_the_step_that_was_written_down(
    valet: Valet, step: Step, up: bool, content: str, done: list[str]
) -> None:
    operation = await planned(valet, step)
    cluster = cluster_of(valet)
    cluster.up, cluster.content, cluster.done = up, content, []
    kind = valet.service.operations.kinds["pitr_restore"]
    notes = await kind.recover(run_of(valet, operation))
    assert notes[0] == "dbvalet ended in the middle of it, and it was carried on afterwards."
    assert cluster.done == done
    assert cluster.up
    assert cluster.content not in ("last", "half")


async def test_after_a_crash_within_the_undo_it_is_undone_again(valet: Valet) -> None:
    operation = await planned(valet, Step.UNDO)
    cluster = cluster_of(valet)
    cluster.up, cluster.content, cluster.done = False, "half", []
    with pytest.raises(Interrupted, match="The last state was brought back"):
        await valet.service.operations.kinds["pitr_restore"].recover(run_of(valet, operation))
    assert (cluster.up, cluster.content, cluster.done) == (True, "last", ["undo", "start", "promote"])


@pytest.mark.parametrize("step", [Step.STOP, Step.RESTORE])
async def test_after_a_crash_a_server_that_runs_is_not_stopped_any_more(valet: Valet, step: Step) -> None:
    operation = await planned(valet, step)
    cluster_of(valet).content, cluster_of(valet).done = SINCE, []
    kind = valet.service.operations.kinds["pitr_restore"]
    with pytest.raises(Interrupted, match="The server was started again as it was"):
        await kind.recover(run_of(valet, operation))
    assert (cluster_of(valet).content, cluster_of(valet).done) == (SINCE, ["promote"])
    assert await timelines(valet) == [(1, None, True)]


async def test_what_is_committed_while_the_archive_is_waited_for_lies_in_the_window(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, waited = FakeRecovery.mark, list[datetime]()

    async def late(self: FakeRecovery) -> Marker:
        marker = await mark(self)
        await asyncio.sleep(0.05)
        waited.append(datetime.now(UTC))
        return marker

    monkeypatch.setattr(FakeRecovery, "mark", late)
    shown = await ended(valet, await begin(valet))
    first, _ = await valet.service.state.run(lambda connection: record.timelines_of(connection, "ad-one", SYSTEM))
    assert first.ended_at and first.ended_at >= waited[0]
    assert first.ended_at.isoformat() in shown["notes"][1]


@pytest.mark.parametrize("up", [True, False])
async def test_after_a_crash_when_the_last_state_was_there_it_is_not_brought_back_again(valet: Valet, up: bool) -> None:
    operation = await planned(valet, Step.START_UNDONE)
    cluster = cluster_of(valet)
    cluster.up, cluster.content, cluster.done = up, "last", []
    with pytest.raises(Interrupted, match="The last state was brought back"):
        await valet.service.operations.kinds["pitr_restore"].recover(run_of(valet, operation))
    assert (cluster.up, cluster.done) == (True, ["promote"] if up else ["start", "promote"])


@pytest.mark.parametrize(
    ("step", "told"), [(Step.UNDONE, "The last state was brought back"), (Step.AS_IT_WAS, "started again as it was")]
)
async def test_after_a_crash_when_it_was_undone_the_server_is_left_alone(valet: Valet, step: Step, told: str) -> None:
    operation = await planned(valet, step)
    cluster_of(valet).done = []
    with pytest.raises(Interrupted, match=told):
        await valet.service.operations.kinds["pitr_restore"].recover(run_of(valet, operation))
    assert cluster_of(valet).done == []


async def test_one_that_stopped_the_server_waits_for_its_database_to_be_declared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undeclared, "UNDECLARED_SECONDS", 0.1)
    monkeypatch.setattr(undeclared, "TOLD_SECONDS", 0.1)
    monkeypatch.setattr(runner, "ABANDONED_SECONDS", 0.1)
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as valet:
        valet.service.operations.kinds.clear()  # it dies before it sees that there is something to go on with
        operation = await planned(valet, Step.START)
    tokens = [{"name": "admin", "token": TOKENS["admin"], "role": "admin", "databases": ["*"]}]
    async with running(state=state, tokens=tokens, databases=[{"id": "ad-two", "url": URL}]) as other:
        await until(lambda: other.lines("operation_waits_for_its_database"))
        await asyncio.sleep(0.3)
        assert len(other.lines("operation_waits_for_its_database")) == 1
        assert other.lines("operation_of_nobody_ended") == []
    async with running(state=state) as valet:
        shown = await ended(valet, {"id": operation.id})
    assert (shown["status"], shown["error"]) == ("finished", None)


SINCE = "last, and what was committed since"


@pytest.mark.parametrize(
    ("step", "told"), [("stop", "started again as it was"), ("restore", "The last state was brought back")]
)
async def test_what_was_undone_when_dbvalet_ended_is_not_undone_again_by_the_next(
    valet: Valet, step: str, told: str
) -> None:
    cluster = cluster_of(valet)
    gate = cluster.gates[step] = Gate()
    operation = await begin(valet)
    await until(lambda: gate.waiting)
    del cluster.gates[step]
    working = valet.service.operations._working[operation["id"]]
    working.cancel()
    gate.open.set()
    await asyncio.wait([working])
    assert (cluster.up, cluster.content) == (True, "last")
    cluster.content, cluster.done = SINCE, []
    shown = await ended(valet, operation)
    assert (shown["status"], cluster.content, cluster.done) == ("error", SINCE, [])
    assert told in shown["error"]


async def test_an_undo_that_dbvalet_did_not_see_promoted_is_waited_for_by_the_next_and_not_done_again(
    valet: Valet,
) -> None:
    cluster = cluster_of(valet)
    first, promote = cluster.gates["restore"], cluster.gates["promote"] = Gate(), Gate()
    operation = await begin(valet)
    await until(lambda: first.waiting)
    await cancel(valet, operation)
    await until(lambda: promote.waiting)
    working = valet.service.operations._working[operation["id"]]
    working.cancel()
    await asyncio.wait([working])
    cluster.content, cluster.done = SINCE, []
    promote.open.set()
    shown = await ended(valet, operation)
    assert "The last state was brought back" in shown["error"]
    assert (cluster.content, cluster.done) == (SINCE, ["promote"])


async def test_an_undo_is_not_cut_off_by_who_cancels_while_the_next_dbvalet_is_at_it(valet: Valet) -> None:
    operation = await planned(valet, Step.UNDO)
    cluster = cluster_of(valet)
    cluster.up, cluster.content, cluster.done = False, "half", []
    gate = cluster.gates["undo"] = Gate()
    recovering = asyncio.create_task(valet.service.operations.kinds["pitr_restore"].recover(run_of(valet, operation)))
    await until(lambda: gate.waiting)
    recovering.cancel()
    await asyncio.sleep(0.05)
    assert not recovering.done()
    gate.open.set()
    with pytest.raises(Interrupted, match="The last state was brought back"):
        await recovering
    assert (cluster.up, cluster.content) == (True, "last")


def away_at(monkeypatch: pytest.MonkeyPatch, step: Step, times: int | None) -> list[str]:
    """Let the state fail so often when a step is written down, or ever; give what was refused."""
    in_transaction, refused = State._in_transaction, list[str]()

    def fail(self: State, work: Any, **how: Any) -> Any:
        plan = next(
            (each.cell_contents for each in work.__closure__ or () if isinstance(each.cell_contents, Plan)), None
        )
        if plan is not None and plan.step is step and (times is None or len(refused) < times):
            refused.append(plan.step)
            raise Precondition("The state cannot be used: database is locked.")
        return in_transaction(self, work, **how)

    monkeypatch.setattr(State, "_in_transaction", fail)
    return refused


@pytest.mark.parametrize("step", [Step.RESTORE, Step.START, Step.BACKUP])
async def test_a_state_that_is_away_for_a_moment_undoes_nothing(
    valet: Valet, monkeypatch: pytest.MonkeyPatch, step: Step
) -> None:
    monkeypatch.setattr(restore, "AGAIN_SECONDS", 0.01)
    refused = away_at(monkeypatch, step, 3)
    shown = await ended(valet, await begin(valet))
    assert (shown["status"], len(refused)) == ("finished", 3)
    assert cluster_of(valet).done == ["mark", "stop", "restore", "start", "promote", "backup"]


@pytest.mark.parametrize(
    ("step", "problem", "status", "done"),
    [
        (Step.RESTORE, None, "finished", ["restore", "start", "promote", "backup"]),
        (Step.START, None, "finished", ["restore", "start", "promote", "backup"]),
        (Step.BACKUP, None, "finished", ["promote", "backup"]),
        (Step.UNDO, "promote", "finished", ["promote", "backup"]),
        (Step.START_UNDONE, "promote", "error", ["undo", "start", "promote"]),
        (Step.UNDONE, "promote", "error", ["promote"]),
        (Step.AS_IT_WAS, "stop", "error", ["promote"]),
    ],
)
async def test_an_operation_whose_step_cannot_be_written_down_is_left_open_and_gone_on_with(
    valet: Valet, step: Step, problem: str | None, status: str, done: list[str]
) -> None:
    cluster = cluster_of(valet)
    if problem is not None:
        cluster.problems[problem] = [RecoveryFailed("FATAL: of this step.")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(restore, "AGAIN_SECONDS", 0.01)
        patched.setattr(restore, "KEEP_SECONDS", 0.1)
        patched.setattr(runner.Operations, "look", away_from_it)
        away_at(patched, step, None)
        operation = await begin(valet)
        await until(lambda: valet.lines("operation_lost"))
        shown = (await valet.ask("GET", f"{ONE}/operations/{operation['id']}")).json()["operation"]
        assert (shown["finished_at"], shown["error"]) == (None, None)
        cluster.done = []
    shown = await ended(valet, operation)
    assert (shown["status"], cluster.up, cluster.done) == (status, True, done)
    assert (cluster.content == "last") == (status == "error")


async def away_from_it(*_: Any) -> None:
    return


async def test_an_operation_whose_state_is_silent_is_left_as_it_is_and_gone_on_with_once(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> None:
        raise Precondition("The state does not answer.")

    cluster = cluster_of(valet)
    gate = cluster.gates["restore"] = Gate()
    operation = await begin(valet)
    await until(lambda: gate.waiting)
    with monkeypatch.context() as patched:
        patched.setattr(keeper, "LOST_SECONDS", 0.1)
        patched.setattr(keeper.Keeper, "_beat", refuse)
        patched.setattr(runner.Operations, "look", refuse)
        await until(lambda: valet.lines("operation_lost"))
        assert (cluster.up, cluster.content, cluster.done[-1]) == (False, "half", "restore")
    del cluster.gates["restore"]
    shown = await ended(valet, operation)
    assert shown["status"] == "finished"
    assert cluster.done == ["mark", "stop", "restore", "restore", "start", "promote", "backup"]
    assert shown["notes"][0] == "The state did not answer in the middle of it, and it was carried on afterwards."


async def test_after_a_crash_before_anything_was_stopped_nothing_is_done(valet: Valet) -> None:
    operation = await planned(valet, None)
    run = run_of(valet, operation)
    run.cut = STATE_SILENT
    with pytest.raises(Interrupted, match=f"{STATE_SILENT} before .* was not touched"):
        await valet.service.operations.kinds["pitr_restore"].recover(run)
    assert cluster_of(valet).done == []


async def planned(valet: Valet, step: Step | None) -> Operation:
    """Put an open operation into the state, as a dbvalet that died left it."""
    from agent.operations import record as operations

    await valet.service.clusters.learn(valet.database())
    at = datetime.now(UTC) - timedelta(minutes=3)
    params: dict[str, Any] = {"restore_time": at.isoformat()}
    if step is not None:
        plan = Plan(
            step=step,
            system_identifier=SYSTEM,
            at=at,
            label="F",
            timeline=1,
            undo_label="F",
            undo_timeline=1,
            marked_at=at,
        )
        params["plan"] = plan.model_dump(mode="json")
    operation = operations.Operation(
        id="a" * 24,
        database_id="ad-one",
        type="pitr_restore",
        status=operations.Status.RUNNING,
        progress=10,
        step="",
        error=None,
        params=params,
        notes=[],
        started_by="admin",
        created_at=at,
        finished_at=None,
        owner="another",
        heartbeat=1,
        clean_up_due=False,
    )
    await valet.service.state.run(lambda connection: operations.add(connection, operation))
    return operation


async def test_a_dbvalet_that_has_lost_the_operation_does_not_go_on(valet: Valet) -> None:
    gate = cluster_of(valet).gates["stop"] = Gate()
    await begin(valet)
    await until(lambda: gate.waiting)
    (operation,) = await valet.service.operations.newest("ad-one")

    def take(connection: Any) -> None:
        from sqlalchemy import update

        from agent.state.tables import operations

        connection.execute(update(operations).where(operations.c.id == operation.id).values(owner="another"))

    runner_task = valet.service.operations.kinds["pitr_restore"]
    lost = Run(operation=operation, database=valet.database(), percent=0, step="")
    await valet.service.state.run(take)
    with pytest.raises(OperationLost):
        await runner_task.run(lost)
    assert "restore" not in cluster_of(valet).done
    gate.open.set()


async def test_the_window_is_told_also_while_the_server_is_down(valet: Valet) -> None:
    window = (await valet.ask("GET", f"{ONE}/pitr/recovery_window")).json()["recovery_window"]
    assert window["earliest_recoverable_at"] == "2026-01-31T08:00:00Z"
    cluster_of(valet).problems["standing"] = [EngineUnavailable()]
    again = await valet.ask("GET", f"{ONE}/pitr/recovery_window")
    assert again.json()["recovery_window"]["earliest_recoverable_at"] == "2026-01-31T08:00:00Z"


async def test_a_timeline_that_somebody_else_has_begun_is_seen(valet: Valet) -> None:
    await valet.service.clusters.learn(valet.database())
    cluster_of(valet).timeline = 4
    await valet.service.clusters.learn(valet.database())
    assert await timelines(valet) == [(1, None, False), (4, 3, True)]


@contextmanager
def without_history() -> Iterator[None]:
    """An archive that does not get the history of a timeline."""
    fork_of = FakeRecovery.fork_of

    async def missing(self: FakeRecovery, standing: Standing, timelines: Sequence[Timeline] = ()) -> Timeline:
        if standing.timeline > 1:
            raise BackupDamaged(f"The history of timeline {standing.timeline} is not in the archive.")
        return await fork_of(self, standing, timelines)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FakeRecovery, "fork_of", missing)
        yield


async def test_a_history_that_is_not_archived_yet_undoes_nothing_and_is_learnt_later(valet: Valet) -> None:
    at = minutes_ago(3)
    with without_history():
        shown = await ended(valet, await begin(valet, at))
        assert (shown["status"], shown["error"]) == ("finished", None)
        assert cluster_of(valet).done == ["mark", "stop", "restore", "start", "promote", "backup"]
        assert datetime.fromisoformat(cluster_of(valet).content) == datetime.fromisoformat(at)
        _, lines = await valet.service.clusters.learn(valet.database())
        assert await timelines(valet) == [(1, None, False), (2, None, True)]
        window = await valet.ask("GET", f"{ONE}/pitr/recovery_window")
        assert window.status_code == 200, window.text
    _, again = await valet.service.clusters.learn(valet.database())
    assert await timelines(valet) == [(1, None, False), (2, 1, True)]
    assert [each.began_at for each in again] == [each.began_at for each in lines]


async def test_an_undo_is_done_though_its_history_is_not_archived_yet(valet: Valet) -> None:
    cluster_of(valet).problems["promote"] = [RecoveryFailed("FATAL: of this step.")]
    with without_history():
        shown = await ended(valet, await begin(valet))
    assert shown["error"] == "FATAL: of this step. The last state was brought back: nothing is lost."
    assert (cluster_of(valet).up, cluster_of(valet).content) == (True, "last")


async def test_an_undo_whose_server_does_not_recover_is_not_told_as_a_server_that_is_down(valet: Valet) -> None:
    cluster_of(valet).problems["promote"] = [RecoveryFailed("FATAL."), RecoveryFailed("It recovers for an hour.")]
    shown = await ended(valet, await begin(valet))
    assert "It recovers for an hour. The server runs, but takes no writes. Its archive is whole" in shown["error"]


async def test_a_timeline_that_is_lived_on_after_all_keeps_its_past(valet: Valet) -> None:
    clusters, database = valet.service.clusters, valet.database()
    _, (before,) = await clusters.learn(database)
    await valet.service.state.run(
        lambda connection: record.end_timeline(connection, "ad-one", SYSTEM, 1, datetime.now(UTC))
    )
    _, after = await clusters.learn(database)
    assert after == [before]


async def test_a_cluster_is_marked_when_it_has_changed_and_old_marks_are_forgotten(valet: Valet) -> None:
    clusters, database = valet.service.clusters, valet.database()
    await clusters.look(database)
    await clusters.look(database)
    assert len(await clusters.markers(database)) == 1
    cluster_of(valet).wal_at = "0/400"
    await clusters.look(database)
    assert [each.lsn for each in await clusters.markers(database)] == ["0/100", "0/400"]
    archived = Marker(committed_at=datetime.now(UTC), timeline=1, lsn="0/500", archived=True)
    await valet.service.state.run(lambda connection: record.keep_markers(connection, "ad-one", [archived]))
    assert [each.lsn for each in await clusters.markers(database)] == ["0/500"]
    shown = (await valet.ask("GET", ONE)).json()["database"]
    assert shown["first_pitr_backup"] == MADE.isoformat().replace("+00:00", "Z")


async def test_what_is_written_down_again_is_changed_and_an_archived_marker_stays_one(valet: Valet) -> None:
    marker = Marker(committed_at=MADE, timeline=1, lsn="0/1", archived=True)
    line = Timeline(number=1, parent=None, forked_at_lsn=None, began_at=MADE, ended_at=None)
    left = replace(line, ended_at=MADE + timedelta(hours=1))

    def work(connection: Any) -> None:
        record.keep_markers(connection, "ad-one", [marker])
        record.keep_markers(connection, "ad-one", [replace(marker, archived=False)])
        record.keep_timeline(connection, "ad-one", SYSTEM, line)
        record.keep_timeline(connection, "ad-one", SYSTEM, left)

    await valet.service.state.run(work)
    assert await valet.service.clusters.markers(valet.database()) == [marker]
    assert await valet.service.state.run(lambda at: record.timelines_of(at, "ad-one", SYSTEM)) == [left]


async def test_a_mistake_in_the_settings_names_its_key() -> None:
    two = {"docker": {"container": "pg"}, **PITR["control"]}  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="exactly one of docker, commands, pg_ctl and hold_file"):
        async with running(databases=[{"id": "ad-one", "url": URL, "pitr": {"stanza": "main", "control": two}}]):
            pass
