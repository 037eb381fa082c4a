"""Archives that are read for who downloads them, in a few threads of their own."""

from __future__ import annotations

from asyncio import wrap_future
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any, BinaryIO, TypeVar

from engines.backup import BLOCK

T = TypeVar("T")

READERS = 32
"""Threads of all downloads: each is taken for one block, so that slow clients take none. The storage is one."""


class Readers:
    """Reads files a block at a time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(READERS, "download")

    async def blocks(self, open_it: Callable[[], BinaryIO], first: int, length: int) -> AsyncGenerator[bytes]:
        """Give bytes of a file, a block at a time; who leaves in the middle waits for no thread.

        Raises: whatever `open_it` raises, OSError
        """
        with closing(_File(self._threads)) as file:
            source = await file.open(open_it)
            await file.do(partial(source.seek, first))
            while length > 0 and (block := await file.do(partial(source.read, min(BLOCK, length)))):
                length -= len(block)
                yield block


class _File:
    """A file that is opened, read and closed in threads, by one at a time."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._source: BinaryIO | None = None
        self._last: Future[Any] | None = None

    async def open(self, open_it: Callable[[], BinaryIO]) -> BinaryIO:
        """Open it. Also when nobody waits for that any more, it is known then, and closed."""

        def work() -> BinaryIO:
            self._source = source = open_it()
            return source

        return await self.do(work)

    async def do(self, work: Callable[[], T]) -> T:
        """Let a thread do something with it."""
        self._last = future = self._threads.submit(work)
        return await wrap_future(future)

    def close(self) -> None:
        """Close it as soon as no thread is at it: until then closing it would wait, and the event loop with it."""
        if self._last is not None and not self._last.done():
            self._last.add_done_callback(lambda _: self._close())
        elif self._source is not None:
            # What is raised there is in the log, as with the callback above.
            self._threads.submit(self._close).add_done_callback(lambda closed: closed.result())

    def _close(self) -> None:
        if self._source is not None:
            self._source.close()
