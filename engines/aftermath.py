"""Whether an action was carried out whose answer nobody has: told by what is in the engine before it and after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

AS_ASKED = "as asked"
"""What `look` gives of a thing that is already as the params would have it."""


class Goal(StrEnum):
    """What an action is after, of the things that `look` finds."""

    GONE = "gone"
    """There is nothing any more."""
    ENDED = "ended"
    """None of those that were there is there any more; others may be."""
    FORGOTTEN = "forgotten"
    """None of those that were there is there any more; others come all the time, and change nothing of it."""
    THERE = "there"
    """It is `AS_ASKED`."""
    CHANGED = "changed"
    """It is not what it was."""


class Verdict(StrEnum):
    """What became of an action."""

    DONE = "done"
    NOT_DONE = "not done"
    """Or a part of it: to do it again completes it and touches nothing else."""
    UNKNOWN = "unknown"
    """Others have changed the same thing since: to do it again could undo what they did."""


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """How to tell whether an action was carried out."""

    look: Callable[..., Awaitable[Sequence[str] | None]]
    """Called as the action: what there is of what the action is about, each by something that no later one of the same
    name has, as far as the engine gives such a thing; None where the server cannot tell."""
    goal: Goal
    result: Callable[[Any], Any] = lambda _: None
    """`params` to the result of an action that was carried out."""


async def _cannot_tell(*_: Any) -> None:
    return None


UNTOLD = Aftermath(look=_cannot_tell, goal=Goal.CHANGED)
"""Of an action that leaves nothing by which it could be told."""


def judge(goal: Goal, before: Sequence[str] | None, now: Sequence[str] | None) -> Verdict:
    """Tell what became of an action from what `look` gave before it was begun and gives now."""
    if before is None or now is None:
        return Verdict.UNKNOWN
    was, is_now = {*before}, {*now}
    match goal:
        case Goal.GONE:
            done = bool(was) and not is_now
        case Goal.ENDED:
            done = bool(was) and not was & is_now
        case Goal.FORGOTTEN:
            if not was:
                return Verdict.UNKNOWN
            return Verdict.NOT_DONE if was & is_now else Verdict.DONE
        case Goal.THERE:
            done = is_now != was and AS_ASKED in is_now
        case _:  # Goal.CHANGED
            done = is_now != was
    if done:
        return Verdict.DONE
    # What was not there before came later, and is not what was asked about.
    return Verdict.NOT_DONE if is_now <= was else Verdict.UNKNOWN
