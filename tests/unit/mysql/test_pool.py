"""The threads behind the event loop: none is lost, none is disturbed by somebody who has stopped waiting for it."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from engines import deadline
from engines.errors import DeadlineExceeded, EngineUnavailable, PrivilegeMissing
from engines.mysql import pool as pools
from engines.mysql.driver import Session
from engines.mysql.pool import LIMIT, Pool


class FakeSession:
    """A session without a server: `interrupt` lets a job that waits on `stop` go on."""

    def __init__(self) -> None:
        self.connected = True
        self.fresh = False
        self.logins = 0
        self.interrupts = 0
        self.closed = 0
        self.stop = threading.Event()

    def begin(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.fresh = False
        self.stop.clear()

    def close(self) -> None:
        self.closed += 1

    def interrupt(self) -> None:
        self.interrupts += 1
        self.stop.set()


@pytest.fixture
def sessions() -> list[FakeSession]:
    return []


@pytest.fixture
async def pool(sessions: list[FakeSession]) -> AsyncIterator[Pool]:
    def new_session() -> Session:
        sessions.append(FakeSession())
        return cast(Session, sessions[-1])

    made = Pool(new_session)
    yield made
    await made.close()


def wait(session: Any) -> str:
    assert session.stop.wait(5)
    return "stopped"


async def started(pool: Pool, number: int) -> None:
    until = time.monotonic() + 2
    while pool.use().in_use < number:
        assert time.monotonic() < until
        await asyncio.sleep(0.001)


async def until_idle(pool: Pool) -> None:
    until = time.monotonic() + 2
    while pool.use().in_use:
        assert time.monotonic() < until
        await asyncio.sleep(0.001)


async def test_a_result_and_an_exception_come_back(pool: Pool, sessions: list[FakeSession]) -> None:
    assert await pool.read(lambda _: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await pool.read(lambda _: 1 // 0)
    assert len(sessions) == 1


async def test_a_thread_knows_the_deadline_of_its_job(pool: Pool, sessions: list[FakeSession]) -> None:
    with deadline.within(3):
        await pool.read(lambda _: None)
    assert 2 < sessions[0].ends_at - time.monotonic() <= 3


async def test_as_many_at_once_as_the_limit_and_the_others_wait_their_turn(
    pool: Pool, sessions: list[FakeSession]
) -> None:
    running = [asyncio.create_task(pool.read(wait)) for _ in range(LIMIT)]
    await started(pool, LIMIT)
    waiting = [asyncio.create_task(pool.read(lambda _: "done")) for _ in range(20)]
    await asyncio.sleep(0.02)
    assert not any(task.done() for task in waiting)
    sessions[0].stop.set()
    assert await asyncio.gather(*waiting) == ["done"] * 20
    for session in sessions:
        session.stop.set()
    assert await asyncio.gather(*running) == ["stopped"] * LIMIT
    assert (len(sessions), pool.use().in_use) == (LIMIT, 0)


async def test_writes_leave_a_connection_to_reads(
    pool: Pool, sessions: list[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "PATIENCE", 0.05)
    running = [asyncio.create_task(pool.write(wait)) for _ in range(LIMIT - 1)]
    await started(pool, LIMIT - 1)
    with pytest.raises(EngineUnavailable, match="at work"):
        await pool.write(lambda _: None)
    assert await pool.read(lambda _: 1) == 1
    for session in sessions:
        session.stop.set()
    await asyncio.gather(*running)
    assert await pool.write(lambda _: 2) == 2


async def test_waiting_for_a_connection_ends_with_the_deadline_or_with_patience(
    pool: Pool, sessions: list[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = [asyncio.create_task(pool.read(wait)) for _ in range(LIMIT)]
    await started(pool, LIMIT)
    with deadline.within(0.05), pytest.raises(DeadlineExceeded, match="nothing was sent"):
        await pool.read(lambda _: None)
    monkeypatch.setattr(pools, "PATIENCE", 0.05)
    with pytest.raises(EngineUnavailable, match="at work"):
        await pool.read(lambda _: None)
    for session in sessions:
        session.stop.set()
    await asyncio.gather(*running)


async def test_who_stops_waiting_interrupts_the_job_and_the_thread_is_free_again(
    pool: Pool, sessions: list[FakeSession]
) -> None:
    task = asyncio.create_task(pool.read(wait))
    await started(pool, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sessions[0].interrupts == 1
    await until_idle(pool)
    assert await pool.read(lambda _: 1) == 1
    assert len(sessions) == 1


async def test_who_stops_waiting_before_the_thread_has_begun_is_heard(pool: Pool) -> None:
    for _ in range(200):
        task = asyncio.create_task(pool.read(wait))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_idle(pool)


async def test_who_stops_waiting_when_the_job_has_just_ended_disturbs_nobody(
    pool: Pool, sessions: list[FakeSession]
) -> None:
    ended = threading.Event()

    def job(_: Session) -> None:
        ended.set()

    task = asyncio.create_task(pool.read(job))
    await asyncio.sleep(0)
    # The loop is kept busy until the thread has handed over its result, and only then is the task cancelled.
    assert ended.wait(2)
    time.sleep(0.05)  # noqa: ASYNC251 - it is to be blocked
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sessions[0].interrupts == 0
    assert pool.use().in_use == 0


async def test_who_stops_waiting_just_when_its_turn_has_come_takes_no_connection_away(
    pool: Pool, sessions: list[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = [asyncio.create_task(pool.read(wait)) for _ in range(LIMIT)]
    await started(pool, LIMIT)
    given_up, next_in_turn = (asyncio.create_task(pool.read(lambda _: "done")) for _ in range(2))
    await asyncio.sleep(0.01)
    release = pool._release

    def release_and_cancel(worker: Any) -> None:
        release(worker)
        given_up.cancel()

    monkeypatch.setattr(pool, "_release", release_and_cancel)
    sessions[0].stop.set()
    assert await asyncio.wait_for(next_in_turn, 2) == "done"
    assert given_up.cancelled()
    for session in sessions:
        session.stop.set()
    await asyncio.gather(*running)
    await until_idle(pool)


async def test_a_refusal_on_an_old_connection_is_tried_once_on_a_new_one(
    pool: Pool, sessions: list[FakeSession]
) -> None:
    tries: list[bool] = []

    def refused_at_first(session: Any) -> str:
        tries.append(session.fresh)
        if not session.closed:
            raise PrivilegeMissing
        return "granted meanwhile"

    assert await pool.write(refused_at_first) == "granted meanwhile"
    assert len(tries) == 2

    def refused_when_fresh(session: Any) -> None:
        session.fresh = True
        tries.append(True)
        raise PrivilegeMissing

    with pytest.raises(PrivilegeMissing):
        await pool.write(refused_when_fresh)
    assert len(tries) == 3
    assert len(sessions) == 1


async def test_closing_interrupts_what_runs_and_ends_the_threads(pool: Pool, sessions: list[FakeSession]) -> None:
    task = asyncio.create_task(pool.read(wait))
    await started(pool, 1)
    await pool.close()
    assert await task == "stopped"
    assert sessions[0].closed == 1
    with pytest.raises(EngineUnavailable):
        await pool.read(lambda _: None)


async def test_a_connection_that_does_not_come_up_is_not_waited_for(
    pool: Pool, sessions: list[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "CONNECTED_WITHIN", 0.05)
    await pool.read(lambda _: None)
    sessions[0].connected = False
    with pytest.raises(EngineUnavailable, match="No connection came up"):
        await pool.read(wait)
    assert sessions[0].interrupts == 1
