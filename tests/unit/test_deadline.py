"""How long the action under way may still take."""

import asyncio

import pytest

from engines import deadline


def test_outside_an_action_there_is_a_default():
    assert deadline.remaining() == deadline.DEFAULT


def test_inside_it_is_what_is_left():
    with deadline.within(5):
        assert 4.9 < deadline.remaining() <= 5
    assert deadline.remaining() == deadline.DEFAULT


def test_an_inner_limit_never_lengthens_an_outer_one():
    with deadline.within(1):
        with deadline.within(5):
            assert deadline.remaining() <= 1
        with deadline.within(0.5):
            assert deadline.remaining() <= 0.5
        assert 0.5 < deadline.remaining() <= 1


def test_what_is_over_is_never_zero_which_engines_take_for_no_limit():
    with deadline.within(-5):
        assert deadline.remaining() == 0.001


def test_it_is_put_back_after_an_error():
    with pytest.raises(ZeroDivisionError), deadline.within(1):
        raise ZeroDivisionError
    assert deadline.remaining() == deadline.DEFAULT


async def test_each_task_has_its_own():
    async def inside(seconds: float) -> float:
        with deadline.within(seconds):
            await asyncio.sleep(0.01)
            return deadline.remaining()

    one, two = await asyncio.gather(inside(1), inside(9))
    assert one < 1
    assert two > 8


@pytest.mark.parametrize("what", ["the engine", "the state"])
async def test_who_gives_up_is_told_what_it_waited_for(what: str):
    async def wait():
        if what == "the engine":
            await asyncio.sleep(60)
        with deadline.waiting_for(what):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError) as late:
        async with asyncio.timeout(0.01):
            await wait()
    assert deadline.awaited(late.value) == what
    assert deadline.awaited(TimeoutError()) == "the engine"
