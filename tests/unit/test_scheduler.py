"""Periodic backups: none missed, none doubled, whatever the clock and the processes do."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection, select

from agent import scheduler
from agent.audit.journal import Journal
from agent.choices import AllChoices, DatabaseChange
from agent.errors import OperationOpen, StateFailed
from agent.log import make_log
from agent.operations import keeper, record
from agent.scheduler import Scheduler, last_slot
from agent.state.state import State
from agent.state.tables import schedule_slots
from engines.errors import EngineUnavailable, Precondition
from tests.fakes.driver import Gate
from tests.fakes.service import Valet, running, until

BEGIN = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        return self.now


class Declared:
    """A database, as far as the schedule is concerned."""

    def __init__(self, database_id: str = "ad-one") -> None:
        self.id = database_id


class Begun:
    """Begins operations that end at once, and counts them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.at: list[datetime] = []
        self.busy = False
        self.status = record.Status.FINISHED
        """How they end."""
        self.bugs: dict[str, Exception] = {}
        """What beginning one ends with, by database."""

    async def begin(
        self,
        database: Any,
        kind: str,
        params: dict[str, Any],
        started_by: str,
        rows: Callable[[Connection, record.Operation], None],
    ) -> record.Operation:
        from sqlalchemy.exc import IntegrityError

        if self.busy:
            raise OperationOpen
        if database.id in self.bugs:
            raise self.bugs[database.id]

        def work(connection: Connection) -> record.Operation:
            now = self._state.now(connection)
            operation = record.Operation(
                id=params["backup_id"],
                database_id=database.id,
                type=kind,
                status=self.status,
                progress=100,
                step="done",
                error=None,
                params=params,
                notes=[],
                started_by=started_by,
                created_at=now,
                finished_at=now,
                owner=None,
                heartbeat=0,
                clean_up_due=False,
            )
            record.add(connection, operation)
            rows(connection, operation)
            return operation

        try:
            operation = await self._state.run(work)
        except IntegrityError:
            raise OperationOpen from None
        self.at.append(operation.created_at)
        return operation


class Sim:
    """One state, one clock, and as many dbvalets as a test starts."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.state = State(f"sqlite:///{folder}/state.db", clock=self.clock)
        self.begun = Begun(self.state)

        self.log = BytesIO()

    def start(self, *database_ids: str) -> Scheduler:
        databases: Any = [Declared(each) for each in database_ids or ("ad-one",)]
        log = make_log("error", stream=self.log)
        return Scheduler(self.state, databases, self.begun, Journal(self.state, log, on=False), log)

    async def choose(self, hours: list[int], enabled: bool = True, database_id: str = "ad-one") -> None:
        change = DatabaseChange.model_validate(
            {"periodic_backups_enabled": enabled, "periodic_backups_scheduled_at": hours}
        )
        await AllChoices(self.state).change(database_id, change)

    async def slots(self) -> list[datetime]:
        def read(connection: Connection) -> list[datetime]:
            return list(connection.execute(select(schedule_slots.c.slot).order_by(schedule_slots.c.slot)).scalars())

        return await self.state.run(read)


@pytest.fixture
def sim(tmp_path: Path) -> Sim:
    return Sim(tmp_path)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return BEGIN.replace(hour=hour, minute=minute) + timedelta(days=day)


@pytest.mark.parametrize(
    ("hours", "now", "slot"),
    [
        ((), at(0, 12), None),
        ((12,), at(0, 12), at(0, 12)),
        ((12,), at(0, 11, 59), at(-1, 12)),
        ((0, 12), at(0, 11, 59), at(0, 0)),
        ((23,), at(0, 0), at(-1, 23)),
        (tuple(range(24)), at(0, 5, 59), at(0, 5)),
    ],
)
def test_the_last_hour_that_has_begun(hours: tuple[int, ...], now: datetime, slot: datetime | None):
    assert last_slot(hours, now) == slot
    plus_two = now.astimezone(tz=None)
    assert last_slot(hours, plus_two) == slot


async def test_an_hour_before_the_choice_is_not_made_up_for(sim: Sim):
    await sim.choose([3])
    each = sim.start()
    await each.look()
    assert sim.begun.at == []
    sim.clock.now = at(1, 3)
    await each.look()
    await each.look()
    assert sim.begun.at == [at(1, 3)]


async def test_what_was_missed_is_made_up_for_once(sim: Sim):
    await sim.choose([0, 6, 12, 18])
    sim.clock.now = at(5, 20)
    each = sim.start()
    for _ in range(3):
        await each.look()
    assert await sim.slots() == [at(5, 18)]
    sim.clock.now = at(6, 0)
    await each.look()
    assert len(sim.begun.at) == 2


async def test_a_database_that_is_busy_has_its_turn_later(sim: Sim):
    await sim.choose([3])
    each = sim.start()
    sim.clock.now = at(1, 3)
    sim.begun.busy = True
    await each.look()
    assert await sim.slots() == []
    sim.begun.busy = False
    sim.clock.now = at(1, 5)
    await each.look()
    assert await sim.slots() == [at(1, 3)]


async def test_one_that_failed_is_begun_again_after_longer_and_longer_pauses_until_it_is_done(sim: Sim):
    await sim.choose([3])
    each = sim.start()
    sim.begun.status = record.Status.ERROR
    minutes = list[int]()
    for minute in range(1, 24 * 60):
        sim.clock.now = at(1, 3) + timedelta(minutes=minute)
        before = len(sim.begun.at)
        if minute == 200:
            sim.begun.status = record.Status.FINISHED
        await each.look()
        minutes += [minute] * (len(sim.begun.at) - before)
    assert minutes == [1, 6, 16, 36, 76, 156, 316]
    assert await sim.slots() == [at(1, 3)]


async def test_one_that_fails_gives_way_to_that_of_the_next_hour(sim: Sim):
    await sim.choose([3, 4])
    each = sim.start()
    sim.begun.status = record.Status.ERROR
    for minute in range(0, 65, 5):
        sim.clock.now = at(1, 3, minute) if minute < 60 else at(1, 4, minute - 60)
        await each.look()
    assert sim.begun.at == [at(1, 3), at(1, 3, 5), at(1, 3, 15), at(1, 3, 35), at(1, 4)]
    sim.begun.status = record.Status.FINISHED
    sim.clock.now = at(1, 4, 5)
    await each.look()
    assert (len(sim.begun.at), await sim.slots()) == (6, [at(1, 3), at(1, 4)])


@pytest.mark.parametrize("status", [record.Status.USER_ERROR, record.Status.CANCELLED])
async def test_one_that_somebody_has_to_do_something_about_or_has_cancelled_is_not_begun_again(
    sim: Sim, status: record.Status
):
    await sim.choose([3])
    each = sim.start()
    sim.begun.status = status
    for minute in range(60):
        sim.clock.now = at(1, 3, minute)
        await each.look()
    assert sim.begun.at == [at(1, 3)]


async def test_of_many_who_look_at_once_one_begins_it_again(sim: Sim):
    await sim.choose([3])
    sim.clock.now = at(1, 3)
    sim.begun.status = record.Status.ERROR
    await sim.start().look()
    sim.clock.now = at(1, 3, 5)
    await asyncio.gather(*(sim.start().look() for _ in range(10)))
    assert sim.begun.at == [at(1, 3), at(1, 3, 5)]


async def test_an_engine_that_is_away_for_a_moment_costs_no_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scheduler, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(scheduler, "PAUSE", timedelta(seconds=0.2))
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)
    async with running(state=f"sqlite:///{tmp_path}/state.db") as valet:
        valet.server().backups.problems["dump"] = EngineUnavailable("restarting")
        await valet.ask("PATCH", "/api/databases/ad-one", json={"database": {"periodic_backups_enabled": True}})
        await _chosen_long_ago(valet)
        await until(lambda: valet.lines("operation_ended"))
        valet.server().backups.problems.clear()
        await until(lambda: valet.lines("operation_ended")[-1]["outcome"] == "finished")

        made = (await valet.ask("GET", "/api/databases/ad-one/backups")).json()["database_backups"]
        assert (made[0]["method"], made[0]["status"]) == ("periodic", "done")
        assert {(each["status"], each["error"]) for each in made[1:]} == {("error", "restarting")}
        assert valet.lines("bug") == []


async def test_backups_that_are_switched_off_are_not_made(sim: Sim):
    await sim.choose([3])
    await sim.choose([3], enabled=False)
    sim.clock.now = at(1, 4)
    await sim.start().look()
    assert sim.begun.at == []


async def test_many_who_look_at_once_begin_one(sim: Sim):
    await sim.choose([3])
    sim.clock.now = at(1, 3)
    await asyncio.gather(*(sim.start().look() for _ in range(10)))
    assert len(sim.begun.at) == 1


async def test_a_clock_that_is_set_back_doubles_nothing(sim: Sim):
    await sim.choose(list(range(24)))
    each = sim.start()
    for hour in range(14, 20):
        sim.clock.now = at(0, hour, 1)
        await each.look()
    sim.clock.now = at(0, 15, 30)
    for _ in range(5):
        await each.look()
        sim.clock.now += timedelta(hours=1)
    assert len(sim.begun.at) == 6


async def test_a_clock_that_was_a_year_ahead_is_survived(sim: Sim):
    await sim.choose([3])
    each = sim.start()
    sim.clock.now = at(400, 4)
    await sim.choose([3, 4, 5])  # chosen by the wrong clock
    await each.look()
    for hour in (4, 5):
        sim.clock.now = at(400, hour, 1)
        await each.look()
    sim.clock.now = at(0, 14)
    await each.look()
    before = len(sim.begun.at)
    for day in range(1, 4):
        sim.clock.now = at(day, 5, 1)
        await each.look()
    assert len(sim.begun.at) == before + 3
    sim.clock.now = at(400, 5, 30)  # an hour that the wrong clock has seen
    await each.look()
    assert len(sim.begun.at) == before + 4


async def test_a_clock_that_is_set_back_while_backups_fail_holds_no_hour_up(sim: Sim):
    await sim.choose([3, 15])
    each = sim.start()
    sim.begun.status = record.Status.ERROR
    sim.clock.now = at(1, 3)
    while sim.clock.now < at(5, 3):
        await each.look()
        sim.clock.now += timedelta(minutes=5)
    sim.begun.at.clear()
    sim.clock.now = at(1, 16)
    while sim.clock.now <= at(2, 3):
        await each.look()
        sim.clock.now += timedelta(minutes=5)
    assert sim.begun.at == [at(1, 16), at(1, 17, 20), at(1, 22, 40), at(2, 3)]

    sim.begun.status = record.Status.FINISHED
    for sim.clock.now in (at(2, 4), at(2, 5)):
        await each.look()
    assert sim.begun.at[-1] == at(2, 4)


async def test_what_failed_by_a_clock_that_was_ahead_makes_no_pause_longer_once_it_is_set_right(sim: Sim):
    await sim.choose([3])
    each = sim.start()
    sim.begun.status = record.Status.ERROR
    for minute in range(0, 180, 5):
        sim.clock.now = at(1, 23) + timedelta(minutes=minute)
        await each.look()
    assert len(sim.begun.at) == 6
    for minute in range(40):
        sim.clock.now = at(1, 4, minute)
        await each.look()
    assert sim.begun.at[6:] == [at(1, 4), at(1, 4, 5), at(1, 4, 15), at(1, 4, 35)]


async def test_however_often_one_failed_the_pause_stays_one_that_can_be_reckoned(sim: Sim):
    await sim.choose([3])
    each = sim.start()
    sim.begun.status = record.Status.ERROR
    for minute in range(59, 0, -1):  # a clock that is set back again and again
        sim.clock.now = at(1, 3, minute)
        await each.look()
    assert len(sim.begun.at) == 59
    for sim.clock.now in (at(1, 4), at(2, 1, 19), at(2, 1, 20)):
        await each.look()
    assert sim.begun.at[59:] == [at(1, 4), at(2, 1, 20)]


async def test_what_goes_wrong_with_one_database_keeps_no_other_from_its_backup(sim: Sim):
    await sim.choose([3])
    await sim.choose([3], database_id="ad-two")
    sim.begun.bugs["ad-one"] = RuntimeError("a bug")
    sim.clock.now = at(1, 3)
    await sim.start("ad-one", "ad-two").look()
    assert sim.begun.at == [at(1, 3)]
    (line,) = map(orjson.loads, sim.log.getvalue().splitlines())
    assert (line["event"], line["database"]) == ("bug", "ad-one")
    assert "RuntimeError: a bug" in line["exception"]


async def test_a_state_that_cannot_be_used_is_told_once_and_not_as_a_bug_of_a_database(sim: Sim):
    await sim.choose([3])
    sim.begun.bugs["ad-one"] = StateFailed()
    sim.clock.now = at(1, 3)
    with pytest.raises(Precondition):
        await sim.start("ad-one", "ad-two").look()
    assert sim.log.getvalue() == b""


async def test_rows_do_not_pile_up(sim: Sim, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scheduler, "SLOTS_KEPT", 5)
    await sim.choose([3])
    for day in range(1, 20):
        sim.clock.now = at(day, 3)
        await sim.start().look()
    assert len(await sim.slots()) <= 6
    assert len(sim.begun.at) == 19


@pytest.mark.parametrize("days", [150, pytest.param(1000, marks=pytest.mark.long)])
async def test_a_thousand_days_with_restarts_jumps_and_two_dbvalets(sim: Sim, days: int):
    """No hour at which one was alive is missed, none is doubled; hours that nobody saw are made up for once."""
    chance = random.Random(4)
    hours = [3, 15]
    await sim.choose(hours)
    alive: dict[str, Scheduler | None] = {"a": sim.start(), "b": sim.start()}
    wanted: set[datetime] = set()
    real = BEGIN
    offset = timedelta()
    while real < BEGIN + timedelta(days=days):
        real += timedelta(minutes=chance.randrange(1, 600))
        if chance.random() < 0.02:  # set wrong, by up to half a day
            offset = timedelta(minutes=chance.randrange(-720, 720))
        elif chance.random() < 0.05:  # set right
            offset = timedelta()
        for name, each in alive.items():
            if chance.random() < (0.02 if each else 0.1):
                alive[name] = None if each else sim.start()
        sim.clock.now = real + offset
        looking = [each for each in alive.values() if each is not None]
        if looking:
            slot = last_slot(hours, sim.clock.now)
            assert slot is not None
            if slot >= BEGIN:
                wanted.add(slot)
            await asyncio.gather(*(each.look() for each in looking))
    begun = await _slots_of_backups(sim)

    assert [slot for slot, times in begun.items() if times > 1] == []
    assert set(begun) == wanted
    assert len(wanted) > 1.7 * days
    sim.state.close()


async def _slots_of_backups(sim: Sim) -> Counter[datetime]:
    """Count the backups of each hour: the last that had begun when the backup was begun."""
    return Counter(slot for each in sim.begun.at if (slot := last_slot([3, 15], each)))


async def test_of_two_dbvalets_one_makes_the_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scheduler, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as first, running(state=state) as second:
        now = datetime.now(UTC)
        enabled = {"periodic_backups_enabled": True, "periodic_backups_scheduled_at": list(range(24))}
        await first.ask("PATCH", "/api/databases/ad-one", json={"database": enabled})
        await _chosen_long_ago(first)
        await until(lambda: first.lines("operation_ended") or second.lines("operation_ended"))
        await asyncio.sleep(0.3)

        made = (await second.ask("GET", "/api/databases/ad-one/backups")).json()["database_backups"]
        assert [each["method"] for each in made] == ["periodic"] * (1 + (datetime.now(UTC).hour != now.hour))
        assert made[0]["status"] == "done"


async def test_a_periodic_backup_waits_for_another_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scheduler, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)
    async with running(state=f"sqlite:///{tmp_path}/state.db") as valet:
        gate = valet.server().backups.gates["dump"] = Gate()
        manual = (await valet.ask("POST", "/api/databases/ad-one/backups")).json()["database_backup"]
        await valet.ask("PATCH", "/api/databases/ad-one", json={"database": {"periodic_backups_enabled": True}})
        await _chosen_long_ago(valet)
        await asyncio.sleep(0.2)
        gate.open.set()
        await until(lambda: len(valet.lines("operation_ended")) == 2)

        made = (await valet.ask("GET", "/api/databases/ad-one/backups")).json()["database_backups"]
        assert [each["method"] for each in made] == ["periodic", "manual"]
        assert made[1]["id"] == manual["id"]
        assert valet.lines("bug") == []


async def test_an_operator_who_chooses_more_hours_destroys_none_of_the_days_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)
    clock = Clock()
    clock.now = at(0, 23, 30)
    monkeypatch.setattr(State, "now", lambda *_: clock.now)
    async with running(state=f"sqlite:///{tmp_path}/state.db", backups={"keep": {"count": 3}}) as valet:
        service = valet.service
        each = Scheduler(service.state, service.databases, service.operations, service.journal, service.log)

        async def choose(hours: list[int]) -> None:
            change = {"periodic_backups_enabled": True, "periodic_backups_scheduled_at": hours}
            answer = await valet.ask("PATCH", "/api/databases/ad-one", "operator", json={"database": change})
            assert answer.status_code == 200

        async def made_at(*times: datetime) -> list[str]:
            for clock.now in times:
                ends = len(valet.lines("operation_ended"))
                await each.look()
                await until(lambda before=ends: len(valet.lines("operation_ended")) > before)
            found = (await valet.ask("GET", "/api/databases/ad-one/backups")).json()["database_backups"]
            return [backup["created_at"] for backup in found]

        await choose([0])
        nightly = await made_at(at(1, 0, 1), at(2, 0, 1), at(3, 0, 1))
        assert len(nightly) == 3
        await choose(list(range(24)))
        kept = await made_at(*(at(3, hour, 1) for hour in range(1, 8)))
        assert len(kept) == 6
        assert kept[3:] == nightly


@pytest.mark.parametrize("kept_out", [False, True])
async def test_what_the_schedule_begins_has_its_line_in_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_out: bool
):
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(scheduler, "LOOK_SECONDS", 0.02)
    async with running(state=f"sqlite:///{tmp_path}/state.db") as valet:
        await valet.ask("PATCH", "/api/databases/ad-one", json={"database": {"periodic_backups_enabled": True}})
        if kept_out:
            await valet.service.state.run(
                lambda connection: connection.exec_driver_sql("INSERT INTO audit VALUES (2, 'ad-one', '{}', 'x')")
            )
        await _chosen_long_ago(valet)
        await until(lambda: valet.lines("operation_ended"))
        (made,) = (await valet.ask("GET", "/api/databases/ad-one/backups")).json()["database_backups"]
        assert made["status"] == "done"
        if kept_out:
            (lost,) = valet.lines("not_audited")
            assert (lost["who"], lost["request_id"]) == ("schedule", made["operation_id"])
            return
        line = (await valet.ask("GET", "/api/audit")).json()["audit"][1]
        assert (line["who"], line["method"], line["action"]) == ("schedule", "SCHEDULE", "create-backup")
        assert (line["effect"], line["status"], line["code"]) == ("write", None, "ok")
        assert (line["request_id"], line["database"]) == (made["operation_id"], "ad-one")
        assert line["params"] == {"backup_id": made["id"]}
        assert valet.lines("audited")[-1]["line"] == f"{line['sequence']}:{line['digest']}"


async def _chosen_long_ago(valet: Valet) -> None:
    def work(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE database_settings SET scheduled_since = '2020-01-01 00:00:00.000000'")

    await valet.service.state.run(work)
