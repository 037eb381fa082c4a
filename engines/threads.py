"""Threads for what may take long: asyncio's own few are shared by all databases, for what is over in a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_own_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do blocking work in a thread of its own, so that however long it takes nothing else waits for a thread.

    For backups and restores, of which a database has one at a time. Where many may ask at once, who calls it sets a
    bound. When the waiting task is cancelled the work goes on, as with `asyncio.to_thread`.

    Raises: whatever `work` raises
    """
    thread = ThreadPoolExecutor(1, "own")
    try:
        return await asyncio.get_running_loop().run_in_executor(
            thread, partial(copy_context().run, work, *args, **kwargs)
        )
    finally:
        thread.shutdown(wait=False)
