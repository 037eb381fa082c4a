"""Whether an action whose answer nobody has was carried out: the whole table of what can be found."""

import pytest

from engines.aftermath import AS_ASKED, UNTOLD, Goal, Verdict, judge

DONE, NOT_DONE, UNKNOWN = Verdict.DONE, Verdict.NOT_DONE, Verdict.UNKNOWN

FOUND: list[tuple[Goal, list[str], list[str], Verdict]] = [
    (Goal.GONE, ["a"], [], DONE),
    (Goal.GONE, ["a", "b"], ["b"], NOT_DONE),
    (Goal.GONE, ["a"], ["a"], NOT_DONE),
    (Goal.GONE, ["a"], ["z"], UNKNOWN),
    (Goal.GONE, ["a"], ["a", "z"], UNKNOWN),
    (Goal.GONE, [], [], NOT_DONE),
    (Goal.ENDED, ["a"], [], DONE),
    (Goal.ENDED, ["a"], ["z"], DONE),
    (Goal.ENDED, ["a", "b"], ["b"], NOT_DONE),
    (Goal.ENDED, ["a", "b"], ["b", "z"], UNKNOWN),
    (Goal.ENDED, [], [], NOT_DONE),
    (Goal.ENDED, [], ["z"], UNKNOWN),
    (Goal.FORGOTTEN, ["a", "b"], [], DONE),
    (Goal.FORGOTTEN, ["a", "b"], ["z"], DONE),
    (Goal.FORGOTTEN, ["a", "b"], ["b"], NOT_DONE),
    (Goal.FORGOTTEN, ["a", "b"], ["b", "z"], NOT_DONE),
    (Goal.FORGOTTEN, [], [], UNKNOWN),
    (Goal.FORGOTTEN, [], ["z"], UNKNOWN),
    (Goal.THERE, [], [AS_ASKED], DONE),
    (Goal.THERE, ["z"], [AS_ASKED], DONE),
    (Goal.THERE, [AS_ASKED, "a"], [AS_ASKED], DONE),
    (Goal.THERE, [AS_ASKED], [AS_ASKED], NOT_DONE),
    (Goal.THERE, [], [], NOT_DONE),
    (Goal.THERE, [], ["z"], UNKNOWN),
    (Goal.THERE, ["a"], [], NOT_DONE),
    (Goal.CHANGED, ["a"], ["b"], DONE),
    (Goal.CHANGED, ["b"], ["a"], DONE),
    (Goal.CHANGED, ["a"], [], DONE),
    (Goal.CHANGED, ["a"], ["a", "b"], DONE),
    (Goal.CHANGED, ["a"], ["a"], NOT_DONE),
    (Goal.CHANGED, [], [], NOT_DONE),
]


@pytest.mark.parametrize(("goal", "before", "now", "verdict"), FOUND)
def test_what_is_there_tells_what_was_done(goal: Goal, before: list[str], now: list[str], verdict: Verdict):
    assert judge(goal, before, now) is verdict
    assert judge(goal, [*before, *before], [*reversed(now)]) is verdict


@pytest.mark.parametrize("goal", Goal)
def test_where_the_server_cannot_tell_nothing_is_known(goal: Goal):
    for before, now in ((None, ["a"]), (["a"], None), (None, None)):
        assert judge(goal, before, now) is UNKNOWN


async def test_an_action_that_leaves_nothing_behind_is_never_told():
    assert await UNTOLD.look("server", "params") is None
    assert UNTOLD.result("params") is None
