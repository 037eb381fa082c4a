"""How long what was read of the state lets anybody in while it cannot be read again."""

from __future__ import annotations

import time

HELD_SECONDS = 300.0
"""Longer than a state takes to fail over to another server; a token that was revoked meanwhile is good no longer than
this."""


class Held:
    """The time of the last reading."""

    def __init__(self) -> None:
        self._read_at = time.monotonic()

    def renew(self) -> None:
        """Say that it was read just now."""
        self._read_at = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether it was read too long ago."""
        return time.monotonic() - self._read_at > HELD_SECONDS
