"""Reads that share a run: of the same read, a server sees at most one running and one waiting.

A read that arrives while the same read runs waits for the *next* run, so no answer is older than its request. The first
run belongs to one request alone and happens in its own task; later ones, which are shared, are tasks of their own: a
waiter that leaves or gives up never cancels the run of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

from engines.errors import EngineUnavailable

Run = Callable[[], Awaitable[bytes]]


@dataclass(slots=True)
class _Slot:
    """One read that is running now, and who waits for its next run."""

    waiting: list[asyncio.Future[bytes]] = field(default_factory=list[asyncio.Future[bytes]])
    next_run: Run | None = None


class Coalescer:
    """Shares the bytes of a read among those that asked before it began."""

    def __init__(self, shared: Callable[[], None] = lambda: None) -> None:
        """`shared` is called for each request that gets another's bytes."""
        self._slots: dict[Hashable, _Slot] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._shared = shared

    async def read(self, key: Hashable, run: Run, patience: float) -> bytes:
        """Give the bytes of a run that begins now or later, never of one that has begun.

        A run bounds itself; `patience` bounds in seconds, the run included, how long to wait for a later one.
        Raises: what the run raises; TimeoutError, when patience ends first
        """
        slot = self._slots.get(key)
        if slot is not None:
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            slot.waiting.append(future)
            slot.next_run = run
            async with asyncio.timeout(patience):
                return await future
        slot = self._slots[key] = _Slot()
        try:
            return await run()
        finally:
            if slot.waiting:
                task = asyncio.get_running_loop().create_task(self._run_for_waiting(key, slot))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                del self._slots[key]

    def __len__(self) -> int:
        """Count the reads that are running."""
        return len(self._slots)

    async def _run_for_waiting(self, key: Hashable, slot: _Slot) -> None:
        """Run for those who wait, then for those that came meanwhile, until nobody waits."""
        askers: list[asyncio.Future[bytes]] = []
        try:
            while slot.next_run is not None and (askers := _still_there(slot.waiting)):
                slot.waiting = []
                for _ in askers[1:]:
                    self._shared()
                try:
                    answer = await slot.next_run()
                except Exception as problem:  # noqa: BLE001 - every cause goes to those who asked
                    for asker in _still_there(askers):
                        asker.set_exception(problem)
                else:
                    for asker in _still_there(askers):
                        asker.set_result(answer)
        finally:
            del self._slots[key]
            # Somebody is left only when this task was cancelled: the service is being stopped.
            for asker in _still_there([*askers, *slot.waiting]):
                asker.set_exception(EngineUnavailable("The read was cut off: dbvalet is being stopped."))


def _still_there(askers: list[asyncio.Future[bytes]]) -> list[asyncio.Future[bytes]]:
    return [asker for asker in askers if not asker.done()]
