"""Where the library `limits` keeps what it counts."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import ClassVar

from limits.storage import MemoryStorage

PARTS = 100
"""What is asked within a hundredth of a window is counted together, so that no rate needs much memory."""


class Windows(MemoryStorage):
    """Moving windows, by a clock that only goes forward.

    Those of the library's own storage take a tenth of the time of a read: it begins a thread a hundred times a second
    while it is asked, and moves as many entries with each request as there are.
    """

    STORAGE_SCHEME: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride] - as limits reads it

    def __init__(self) -> None:
        super().__init__()
        self._windows: defaultdict[str, _Window] = defaultdict(_Window)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` more in the window of a key, unless its `limit` within `expiry` seconds would be passed."""
        now, window = time.monotonic(), self._windows[key]
        window.forget(now - expiry)
        if window.number + amount > limit:
            return False
        window.add(amount, now, expiry / PARTS)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Give when the window of a key began, in seconds of `time.monotonic`, and what it holds."""
        now, window = time.monotonic(), self._windows[key]
        window.forget(now - expiry)
        return window.parts[0].last if window.parts else now, window.number


@dataclass(slots=True)
class _Part:
    first: float
    last: float
    number: int


@dataclass(slots=True)
class _Window:
    parts: deque[_Part] = field(default_factory=deque["_Part"])
    number: int = 0

    def forget(self, until: float) -> None:
        while self.parts and self.parts[0].last <= until:
            self.number -= self.parts.popleft().number

    def add(self, number: int, now: float, length: float) -> None:
        self.number += number
        if self.parts and now - self.parts[-1].first < length:
            self.parts[-1].last = now
            self.parts[-1].number += number
        else:
            self.parts.append(_Part(now, now, number))
