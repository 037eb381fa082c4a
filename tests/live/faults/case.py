"""An action, what it finds, and what the server shows of it: told by the engine's own driver."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MADE_ANEW = "There is one of the name that others have made since, and it is never taken for the one that was there."


@dataclass
class Case:
    """An action that changes something, with a server on which it can be carried out."""

    action: str
    params: Any
    is_done: Callable[[], bool]
    prepare: Callable[[], object] = lambda: None
    """Make it so that it can be carried out, once more if it was; may give other `params`."""
    meanwhile: Callable[[], object] = lambda: None
    """What somebody else does once it is done, which no retry may undo …"""
    is_left_alone: Callable[[], bool] = lambda: True
    """… and whether it still stands."""
    cannot_tell: str = ""
    """Why this server never shows whether it was done; empty where it does."""
    others_changed_it: str = ""
    """Why whoever asks again is told `answer_unknown` once somebody did `meanwhile`; empty where it is still `ok` …"""
    take_back: Callable[[], object] = lambda: None
    """… and how they undo that, after which it is `ok`."""
    dies_with_the_server: bool = False
    """Whether what it is about does not outlive the server."""


@dataclass
class Look:
    """An action that reads."""

    action: str
    shows: Callable[[Any], bool]
    """Whether a result is what the server itself says."""
    prepare: Callable[[], object] = lambda: None
    """Make sure that there is something to be seen."""


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Poll until a condition holds."""
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, f"not within {seconds} s"
        time.sleep(0.02)
