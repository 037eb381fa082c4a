"""Who lives is seen by a locked file beside the state, and by nothing that another dbvalet does to it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.operations import keeper, runner
from agent.state.presence import Presence
from tests.fakes.driver import Gate
from tests.fakes.kinds import FakeKind
from tests.fakes.service import Valet, running, until
from tests.unit.test_once import SECOND, act, code
from tests.unit.test_operations import begin


@pytest.fixture
async def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Valet, Valet]]:
    """Two dbvalets on one state file."""
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.05)
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as first, running(state=state) as other:
        yield first, other


def presence_of(valet: Valet) -> Presence:
    presence = valet.service.state.presence
    assert presence is not None
    return presence


def lock_of(valet: Valet) -> Path:
    return presence_of(valet)._path(valet.service.operations.owner)


@contextmanager
def unable_to_show_itself(valet: Valet) -> Iterator[None]:
    """Let something stand where a dbvalet makes its lock."""
    in_the_way = lock_of(valet).with_suffix(".lock.new")
    in_the_way.mkdir()
    try:
        yield
    finally:
        in_the_way.rmdir()


async def test_one_that_lost_an_operation_and_lives_on_is_not_taken_for_dead(
    two: tuple[Valet, Valet], monkeypatch: pytest.MonkeyPatch
):
    first, other = two
    kinds = [FakeKind(), FakeKind()]
    for valet, kind in zip(two, kinds, strict=True):
        valet.service.operations.kinds["fake"] = kind
    kinds[0].gate = Gate()
    with monkeypatch.context() as patched:
        # As one that is stopped with SIGSTOP, or whose disk is full for a while.
        patched.setattr(keeper, "BEAT_SECONDS", 2)
        patched.setattr(runner, "ABANDONED_SECONDS", 0.3)
        await begin(first)
        await until(lambda: other.lines("operation_taken_over"))
        await until(lambda: first.lines("operation_lost"))
    assert presence_of(other).lives(first.service.operations.owner)

    gate = first.server().gate = Gate()
    asked = asyncio.create_task(act(first, "add-thing", SECOND))
    await until(lambda: gate.waiting)
    assert code(await act(other, "add-thing", SECOND)) == "in_progress"
    gate.open.set()
    assert code(await asked) == "ok"
    assert (first.server().performed, other.server().performed) == (["add-thing second"], [])


async def test_one_whose_lock_was_removed_shows_itself_again_with_what_it_begins_next(two: tuple[Valet, Valet]):
    first, other = two
    owner = first.service.operations.owner
    assert code(await act(first, "add-thing", SECOND)) == "ok"
    lock_of(first).unlink()
    assert not presence_of(other).lives(owner)

    gate = first.server().gate = Gate()
    asked = asyncio.create_task(act(first, "drop-thing", {"name": "second"}, "key-2"))
    await until(lambda: gate.waiting)
    assert presence_of(other).lives(owner)
    assert code(await act(other, "drop-thing", {"name": "second"}, "key-2")) == "in_progress"
    gate.open.set()
    assert code(await asked) == "ok"


async def test_what_is_asked_for_with_a_key_is_not_begun_where_nobody_would_see_that_its_dbvalet_lives(
    two: tuple[Valet, Valet],
):
    first, other = two
    with unable_to_show_itself(first):
        refused = await act(first, "add-thing", SECOND)
    assert (refused.status_code, code(refused)) == (503, "state_unavailable")
    assert refused.json()["error"].startswith("Nothing was done, since it cannot be written down.")
    assert first.server().performed == []
    assert code(await act(other, "add-thing", SECOND)) == "ok"
    assert (await act(first, "add-thing", SECOND)).headers["Idempotent-Replayed"] == "true"


async def test_what_another_one_left_in_doubt_is_not_taken_over_there_either(two: tuple[Valet, Valet]):
    first, other = two
    gate = first.server().gate = Gate()
    asked = asyncio.create_task(act(first, "add-thing", SECOND))
    await until(lambda: gate.waiting)
    asked.cancel()
    presence_of(first).forget(first.service.operations.owner)
    with unable_to_show_itself(other):
        assert code(await act(other, "add-thing", SECOND)) == "state_unavailable"
    assert other.server().performed == []
    assert code(await act(other, "add-thing", SECOND)) == "ok"
    gate.open.set()


def test_who_looks_keeps_nobody_from_looking_or_claiming(tmp_path: Path):
    one, other = Presence(tmp_path / "state.db"), Presence(tmp_path / "state.db")
    one.claim("a")
    assert other.lives("a")
    assert not other.is_gone("a")
    one.claim("a")
    assert [each.name for each in tmp_path.iterdir()] == ["state.db-a.lock"]
    one.forget("a")
    assert not other.lives("a")
    assert list(tmp_path.iterdir()) == []
