"""Reads that share a run: of the same read, a server sees at most one running and one waiting.

A read that arrives while the same read runs waits for the *next* run, so no answer is older than its request. Runs are
tasks of their own: a waiter that leaves or gives up never cancels the run of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

Run = Callable[[], Awaitable[bytes]]


@dataclass
class _Slot:
    waiting: list[asyncio.Future[bytes]] = field(default_factory=list[asyncio.Future[bytes]])
    next_run: Run | None = None


class Coalescer:
    """Shares the bytes of a read among those that asked before it began."""

    def __init__(self, shared: Callable[[], None] = lambda: None) -> None:
        """`shared` is called for each request that gets another's bytes."""
        self._slots: dict[Hashable, _Slot] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._shared = shared

    async def read(self, key: Hashable, run: Run) -> bytes:
        """Give the bytes of a run that begins now or later, never of one that has begun.

        Whoever waits bounds the wait with a timeout of its own. Raises: what the run raises
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        slot = self._slots.get(key)
        if slot is None:
            self._slots[key] = slot = _Slot()
            task = loop.create_task(self._work(key, slot, run, [future]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            if slot.waiting:
                self._shared()
            slot.waiting.append(future)
            slot.next_run = run
        return await future

    async def _work(self, key: Hashable, slot: _Slot, run: Run, askers: list[asyncio.Future[bytes]]) -> None:
        """Run for these askers, then for those that came meanwhile, until nobody waits."""
        try:
            while True:
                try:
                    answer = await run()
                except Exception as problem:  # noqa: BLE001 - every cause goes to those who asked
                    for asker in askers:
                        if not asker.done():
                            asker.set_exception(problem)
                else:
                    for asker in askers:
                        if not asker.done():
                            asker.set_result(answer)
                askers = [asker for asker in slot.waiting if not asker.done()]
                slot.waiting = []
                if not askers or slot.next_run is None:
                    return
                run = slot.next_run
        finally:
            del self._slots[key]
            for asker in (*askers, *slot.waiting):
                if not asker.done():
                    asker.cancel()
