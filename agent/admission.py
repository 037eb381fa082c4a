"""How many requests may be at work on one database, or wait for it: more are shed at once and told when to return.

Without a bound, the requests that wait for a server which does not answer pile up, and memory and connections of
clients with them. Reads and changes are counted apart: whoever comes to cancel a query is let in while all reads hang.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from agent.errors import Overloaded

FEW = 8
"""How many of a kind are let in while the server does not answer: they find out when it does again."""

SOON, LATER = 1, 5
"""Seconds after which to try again: when it is busy, and when it does not answer."""


class Admission:
    """Counts the requests of one kind on one database."""

    def __init__(self, most: int, silent: Callable[[], bool]) -> None:
        """`most`: at a time. `silent` tells whether the server was asked lately and did not answer."""
        self._most = most
        self._silent = silent
        self.at_work = 0

    @contextmanager
    def admitted(self) -> Generator[None]:
        """Count a request as long as it is at work.

        Raises: Overloaded
        """
        if self.at_work >= (min(self._most, FEW) if self._silent() else self._most):
            raise self._refusal()
        self.at_work += 1
        try:
            yield
        finally:
            self.at_work -= 1

    def _refusal(self) -> Overloaded:
        if self._silent():
            return Overloaded(
                f"Nothing was begun: the engine does not answer, and {self.at_work} requests wait for it already.",
                retry_after=LATER,
            )
        return Overloaded(f"Nothing was begun: {self.at_work} requests are at work on this database.", retry_after=SOON)
