"""An action, what it finds, and what the server shows of it: told by the engine's own driver."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


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
    cannot_tell: bool = False
    """Whether this server does not show whether it was done."""
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
