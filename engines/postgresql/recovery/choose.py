"""Which backup and which timeline an instant is recovered from: chosen here, and never left to a default.

By default pgBackRest and PostgreSQL take the newest timeline, which gives other rows, and no error, for an instant of
an abandoned one; and a set from an abandoned branch leaves a server that does not start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from engines.errors import OutsideWindow
from engines.recovery import BackupSet, Target, Timeline, Window

SECOND = timedelta(seconds=1)
"""`timestamp.stop` is cut to seconds, and the rule is "stop time less than target"."""


_LSN = re.compile("[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")


@dataclass(frozen=True, kw_only=True)
class Fork:
    """Where a timeline left another one."""

    parent: int
    lsn: int


Forks = Mapping[int, Fork]
"""Of each timeline but the first."""


def earliest(sets: Sequence[BackupSet], timelines: Sequence[Timeline]) -> datetime | None:
    """Give the first instant that can be recovered; None without a backup.

    The history before the first timeline that dbvalet saw is not known.
    """
    usable = [each.stopped_at + SECOND for each in sets if each.usable]
    if not usable or not timelines:
        return None
    return max(min(usable), min(each.began_at for each in timelines))


def choose(
    at: datetime, window: Window, timelines: Sequence[Timeline], sets: Sequence[BackupSet], forks: Forks
) -> Target:
    """Choose the newest backup before an instant that lies on its timeline or on an ancestor, before it was left.

    Raises: OutsideWindow
    """
    if window.earliest is None or window.latest is None:
        raise OutsideWindow("Nothing can be recovered: there is no backup yet, or no archive.")
    stated = f"from {window.earliest.isoformat()} to {window.latest.isoformat()}"
    if not window.earliest <= at <= window.latest:
        raise OutsideWindow(f"It must be {stated}.")
    lived = max((each for each in timelines if each.began_at <= at), key=lambda each: each.began_at)
    if lived.ended_at is not None and at > lived.ended_at:
        raise OutsideWindow(
            f"The server was down then, or about to be: take {lived.ended_at.isoformat()}, or another instant {stated}."
        )
    label = newest(lived.number, sets, forks, at)
    if label is None:
        raise OutsideWindow(f"No backup lies before it on its timeline, {lived.number}; others are {stated}.")
    return Target(label=label, timeline=lived.number, at=at)


def newest(timeline: int, sets: Sequence[BackupSet], forks: Forks, at: datetime | None = None) -> str | None:
    """Find the newest usable backup from which a timeline can be reached, of those that ended before an instant."""
    before = [each for each in sets if at is None or (each.usable and each.stopped_at + SECOND <= at)]
    return next(iter(leading_to(timeline, before, forks)), None)


def leading_to(timeline: int, sets: Sequence[BackupSet], forks: Forks) -> list[str]:
    """List the usable backups from which a timeline can be reached, newest first."""
    limits = limits_of(timeline, forks)
    fitting = [each for each in sets if each.usable and _is_reached(each, limits)]
    return [each.label for each in sorted(fitting, key=lambda each: (each.stopped_at, each.label), reverse=True)]


def limits_of(timeline: int, forks: Forks) -> dict[int, int | None]:
    """Give a timeline and its ancestors, each with where the way to the timeline leaves it; None for the timeline."""
    limits: dict[int, int | None] = {timeline: None}
    while (fork := forks.get(timeline)) is not None and fork.parent not in limits:
        limits[fork.parent] = fork.lsn
        timeline = fork.parent
    return limits


def _is_reached(each: BackupSet, limits: Mapping[int, int | None]) -> bool:
    if each.timeline not in limits:
        return False
    limit = limits[each.timeline]
    return limit is None or read_lsn(each.stop_lsn) <= limit


def read_lsn(text: str) -> int:
    """Read a place in the log, as in `0/3000148`.

    Raises: ValueError
    """
    if not _LSN.fullmatch(text):
        raise ValueError(f"{text!r} is no place in the log")
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def write_lsn(lsn: int) -> str:
    """Write a place in the log as PostgreSQL does."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
