"""Reads that share a run."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent.coalesce import Coalescer
from engines.errors import EngineUnavailable, NotFound
from tests.fakes.driver import Gate

LONG = 10.0


class Reads:
    """Runs of one read, each held until it is let go, which say how many there were."""

    def __init__(self) -> None:
        self.gates: list[Gate] = []
        self.running = 0
        self.most_running = 0
        self.problem: BaseException | None = None

    async def run(self) -> bytes:
        gate = Gate()
        self.gates.append(gate)
        number = len(self.gates)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await gate.passed()
        finally:
            self.running -= 1
        if self.problem is not None:
            raise self.problem
        return b"run %d" % number

    def let_go(self, number: int) -> None:
        self.gates[number - 1].open.set()


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def reads() -> Reads:
    return Reads()


def asking(coalescer: Coalescer, run: Callable[[], Awaitable[bytes]], patience: float = LONG) -> "asyncio.Task[bytes]":
    return asyncio.create_task(coalescer.read("key", run, patience))


async def test_a_read_alone_gets_its_own_run_and_so_does_the_one_after_it(reads: Reads):
    coalescer = Coalescer()
    for number in (1, 2):
        asked = asking(coalescer, reads.run)
        await settled()
        reads.let_go(number)

        assert await asked == b"run %d" % number
        assert len(coalescer) == 0


async def test_a_read_that_comes_while_one_runs_gets_the_next_run(reads: Reads):
    coalescer = Coalescer()
    first = asking(coalescer, reads.run)
    await settled()
    second = asking(coalescer, reads.run)
    await settled()
    assert len(reads.gates) == 1
    reads.let_go(1)
    assert await first == b"run 1"
    await settled()
    reads.let_go(2)

    assert await second == b"run 2"


async def test_an_answer_is_never_older_than_its_request():
    coalescer = Coalescer()
    state = 0

    async def run() -> bytes:
        seen = state
        await asyncio.sleep(0.002)
        return b"%d" % seen

    async def one() -> tuple[int, int]:
        at_request = state
        return at_request, int(await coalescer.read("key", run, LONG))

    asked: list[asyncio.Task[tuple[int, int]]] = []
    for _ in range(200):
        state += 1
        asked.append(asyncio.create_task(one()))
        await asyncio.sleep(0.0003)
    for each in asked:
        at_request, answered = await each
        assert answered >= at_request


async def test_at_most_one_runs_and_all_who_wait_share_one_more(reads: Reads):
    shared = 0

    def count() -> None:
        nonlocal shared
        shared += 1

    coalescer = Coalescer(count)
    asked = [asking(coalescer, reads.run)]
    await settled()
    asked += [asking(coalescer, reads.run) for _ in range(50)]
    await settled()
    reads.let_go(1)
    await settled()
    reads.let_go(2)
    answers = await asyncio.gather(*asked)

    assert answers == [b"run 1"] + [b"run 2"] * 50
    assert (len(reads.gates), reads.most_running) == (2, 1)
    assert shared == 49


async def test_those_who_come_during_a_shared_run_get_the_one_after_it(reads: Reads):
    coalescer = Coalescer()
    asked = [asking(coalescer, reads.run)]
    for number in (1, 2, 3):
        await settled()
        asked += [asking(coalescer, reads.run), asking(coalescer, reads.run)]
        await settled()
        reads.let_go(number)
    await settled()
    reads.let_go(4)

    assert await asyncio.gather(*asked) == [b"run 1"] + [b"run 2"] * 2 + [b"run 3"] * 2 + [b"run 4"] * 2
    assert reads.most_running == 1


async def test_reads_of_different_keys_run_beside_each_other(reads: Reads):
    coalescer = Coalescer()
    asked = [asyncio.create_task(coalescer.read(key, reads.run, LONG)) for key in "abc"]
    await settled()
    assert reads.most_running == 3
    for number in (1, 2, 3):
        reads.let_go(number)
    await asyncio.gather(*asked)


async def test_a_waiter_that_leaves_harms_nobody(reads: Reads):
    coalescer = Coalescer()
    first = asking(coalescer, reads.run)
    await settled()
    waiting = [asking(coalescer, reads.run) for _ in range(3)]
    await settled()
    waiting[0].cancel()
    reads.let_go(1)
    await settled()
    waiting[1].cancel()
    await settled()
    reads.let_go(2)

    assert await first == b"run 1"
    assert await waiting[2] == b"run 2"


async def test_the_first_one_that_leaves_takes_only_its_own_run_along(reads: Reads):
    coalescer = Coalescer()
    first = asking(coalescer, reads.run)
    await settled()
    second = asking(coalescer, reads.run)
    await settled()
    first.cancel()
    await settled()
    assert (len(reads.gates), reads.running) == (2, 1)
    reads.let_go(2)

    assert await second == b"run 2"
    assert first.cancelled()


async def test_nothing_runs_for_those_who_have_all_left(reads: Reads):
    coalescer = Coalescer()
    first = asking(coalescer, reads.run)
    await settled()
    waiting = [asking(coalescer, reads.run) for _ in range(3)]
    await settled()
    for each in waiting:
        each.cancel()
    reads.let_go(1)
    await first
    await settled()

    assert len(reads.gates) == 1
    assert len(coalescer) == 0


@pytest.mark.parametrize("problem", [NotFound(), RuntimeError("a bug"), TimeoutError()])
async def test_what_a_run_raises_reaches_everyone_who_shares_it(reads: Reads, problem: Exception):
    coalescer = Coalescer()
    first = asking(coalescer, reads.run)
    await settled()
    waiting = [asking(coalescer, reads.run) for _ in range(3)]
    await settled()
    reads.let_go(1)
    await first
    reads.problem = problem
    await settled()
    reads.let_go(2)
    answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert answers == [problem] * 3
    assert len(coalescer) == 0


async def test_after_a_failure_the_next_read_runs_anew(reads: Reads):
    coalescer = Coalescer()
    reads.problem = NotFound()
    failing = asking(coalescer, reads.run)
    await settled()
    waiting = asking(coalescer, reads.run)
    await settled()
    reads.let_go(1)
    with pytest.raises(NotFound):
        await failing
    reads.problem = None
    await settled()
    reads.let_go(2)
    assert await waiting == b"run 2"


async def test_a_waiter_gives_up_at_its_own_deadline_while_the_engine_is_frozen(reads: Reads):
    coalescer = Coalescer()
    loop = asyncio.get_running_loop()
    first = asking(coalescer, reads.run)
    await settled()
    began = loop.time()
    with pytest.raises(TimeoutError):
        await coalescer.read("key", reads.run, 0.05)

    assert 0.04 < loop.time() - began < 1
    assert len(reads.gates) == 1
    reads.let_go(1)
    assert await first == b"run 1"


async def test_a_waiter_gives_up_in_the_middle_of_its_run_and_the_others_get_it(reads: Reads):
    coalescer = Coalescer()
    first = asking(coalescer, reads.run)
    await settled()
    hasty, patient = asking(coalescer, reads.run, 0.05), asking(coalescer, reads.run)
    await settled()
    reads.let_go(1)
    await first
    with pytest.raises(TimeoutError):
        await hasty
    reads.let_go(2)

    assert await patient == b"run 2"


async def test_no_slot_and_no_task_is_left_over():
    coalescer = Coalescer()
    before = len(asyncio.all_tasks())

    async def run() -> bytes:
        await asyncio.sleep(0.001)
        return b""

    for _ in range(5):
        await asyncio.gather(*(coalescer.read(key, run, LONG) for key in "abcabcabc"))
    await settled()

    assert len(coalescer) == 0
    assert len(asyncio.all_tasks()) == before


async def test_those_who_wait_are_told_when_the_service_is_stopped(reads: Reads):
    coalescer = Coalescer()
    before = asyncio.all_tasks()
    first = asking(coalescer, reads.run)
    await settled()
    sharing = asking(coalescer, reads.run)
    await settled()
    reads.let_go(1)
    await first
    await settled()
    late = asking(coalescer, reads.run)
    await settled()
    (shared_run,) = asyncio.all_tasks() - before - {sharing, late, first}
    shared_run.cancel()

    for each in (sharing, late):
        with pytest.raises(EngineUnavailable, match="being stopped"):
            await each
    assert len(coalescer) == 0
