"""How often one token may ask, by effect. Without limits in the configuration nothing is counted."""

from __future__ import annotations

import math
import time
from typing import Any

from agent.errors import RateLimited
from agent.settings_tokens import LimitSettings
from engines.action import Effect


class Limits:
    """Moving windows, one a token and effect."""

    def __init__(self, settings: LimitSettings) -> None:
        rates = {
            Effect.READ: settings.read,
            Effect.WRITE: settings.write,
            Effect.DESTRUCTIVE: settings.destructive,
        }
        self._rates: dict[Effect, Any] = {}
        if any(rates.values()):
            import limits

            from agent.windows import Windows

            self._window: Any = limits.strategies.MovingWindowRateLimiter(Windows())
            self._rates = {effect: limits.parse(rate) for effect, rate in rates.items() if rate}

    def count(self, token: str, effect: Effect) -> None:
        """Count one request of a token, unless it is refused.

        Raises: RateLimited
        """
        rate = self._rates.get(effect)
        if rate is None or self._window.hit(rate, token, effect):
            return
        wait = self._window.get_window_stats(rate, token, effect).reset_time - time.monotonic()
        seconds = max(1, math.ceil(wait))
        raise RateLimited(f"More than {rate} with this token. Try again in {seconds} s.", retry_after=seconds)
