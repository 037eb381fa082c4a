"""How often one token may ask, by effect. Without limits in the configuration nothing is counted."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from agent.errors import RateLimited
from agent.settings_tokens import LimitSettings
from engines.action import Effect

PARTS = 100
"""What is asked within a hundredth of a window is counted together, so that no rate needs much memory."""


class Limits:
    """Moving windows, one a token and effect.

    They are counted here and not in the storage of `limits`: that one begins a thread a hundred times a second while it
    is asked, moves as many entries with each request as there are, and goes by a clock that may be set.
    """

    def __init__(self, settings: LimitSettings) -> None:
        rates = {
            Effect.READ: settings.read,
            Effect.WRITE: settings.write,
            Effect.DESTRUCTIVE: settings.destructive,
        }
        self._rates: dict[Effect, Any] = {}
        if any(rates.values()):
            import limits

            self._rates = {effect: limits.parse(rate) for effect, rate in rates.items() if rate}
        self._windows: dict[tuple[str, Effect], _Window] = {}

    def count(self, token: str, effect: Effect) -> None:
        """Count one request of a token, unless it is refused.

        Raises: RateLimited
        """
        rate = self._rates.get(effect)
        if rate is None:
            return
        window = self._windows.get((token, effect))
        if window is None:
            window = self._windows[token, effect] = _Window(rate.amount, rate.get_expiry())
        wait = window.count(time.monotonic())
        if wait:
            seconds = math.ceil(wait)
            raise RateLimited(f"More than {rate} with this token. Try again in {seconds} s.", retry_after=seconds)


@dataclass(slots=True)
class _Part:
    first: float
    last: float
    number: int


class _Window:
    def __init__(self, most: int, length: float) -> None:
        self._most, self._length = most, length
        self._parts: deque[_Part] = deque()
        self._number = 0

    def count(self, now: float) -> float:
        """Count one more, or give the seconds after which there is room for it again."""
        parts = self._parts
        while parts and parts[0].last <= now - self._length:
            self._number -= parts.popleft().number
        if self._number >= self._most:
            return parts[0].last + self._length - now
        self._number += 1
        if parts and now - parts[-1].first < self._length / PARTS:
            parts[-1].last = now
            parts[-1].number += 1
        else:
            parts.append(_Part(now, now, 1))
        return 0
