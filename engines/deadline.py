"""How long the action under way may still take: set by `perform`, pushed by each driver into its engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_ends_at: ContextVar[float | None] = ContextVar("ends_at", default=None)

ENGINE = "the engine"
"""What is waited for unless something else is named."""

_WAITED_FOR = "It was stopped while it waited for "

LONGEST = 24.0
"""Seconds an action may declare: clients give up at 30, and no answer may hold longer than 25."""

DEFAULT = 10.0
"""Seconds for whatever runs outside an action (describing a server, checking privileges)."""

GRACE = 0.75
"""Seconds that dbvalet waits beyond the engine's own limit, for the engine to say itself that it stopped."""


@contextmanager
def within(seconds: float) -> Generator[None]:
    """Let the work inside take `seconds`, or what is left of an outer limit if that is less."""
    ends_at = time.monotonic() + seconds
    outer = _ends_at.get()
    token = _ends_at.set(ends_at if outer is None else min(ends_at, outer))
    try:
        yield
    finally:
        _ends_at.reset(token)


@contextmanager
def waiting_for(what: str) -> Generator[None]:
    """Name what is waited for inside, where it is not the engine: for `awaited`."""
    try:
        yield
    except asyncio.CancelledError as stopped:
        stopped.add_note(_WAITED_FOR + what)
        raise


def awaited(late: TimeoutError) -> str:
    """Tell what did not answer until an `asyncio.timeout` was over: the engine, or what `waiting_for` names."""
    notes: list[str] = getattr(late.__cause__, "__notes__", [])
    return next((each.removeprefix(_WAITED_FOR) for each in notes if each.startswith(_WAITED_FOR)), ENGINE)


def at_most(seconds: float) -> float:
    """Give so many seconds, or what is left of an outer limit if that is less."""
    ends_at = _ends_at.get()
    return seconds if ends_at is None else min(seconds, remaining())


def remaining() -> float:
    """Give the seconds that are left, never below 0.001: engines take 0 as "no limit"."""
    ends_at = _ends_at.get()
    return DEFAULT if ends_at is None else max(ends_at - time.monotonic(), 0.001)
