"""A few threads, each with its own kept connection, behind the event loop.

A pair of queues is lighter than `run_in_executor`: a read of 30 µs costs some 30 µs more instead of 90.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from engines import deadline
from engines.engine import PoolUse
from engines.errors import DeadlineExceeded, EngineUnavailable, PrivilegeMissing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from engines.mysql.driver import Session

T = TypeVar("T")

LIMIT = 4
"""Connections of one server. Writes leave one of them to reads: DDL may wait long for other people's locks."""

PATIENCE = 3.0
"""Seconds to wait for a free connection before saying that there is none."""

CONNECTED_WITHIN = 5.0
"""Seconds for a connection to come up, name resolution included, which has no limit of its own."""


@dataclass(eq=False, slots=True)
class _Call:
    """One job on its way through a thread."""

    job: Callable[[Session], Any]
    ends_at: float
    """On the clock of `time.monotonic`."""
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    ended: bool = False
    """The worker is free again, or at work for somebody else."""


class _Worker:
    """A thread and the session that it alone uses."""

    def __init__(self, session: Session, finished: Callable[[_Worker, _Call, Any, BaseException | None], None]) -> None:
        self.session = session
        self._finished = finished
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="dbvalet-mysql", daemon=True)
        self.thread.start()

    def begin(self, call: _Call) -> None:
        # Here and not in the thread, where it could come after an interruption and undo it.
        self.session.begin(call.ends_at)
        self._calls.put(call)

    def end(self) -> None:
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            result: Any = None
            raised: BaseException | None = None
            try:
                result = self._done(call.job)
            except BaseException as error:  # noqa: BLE001 - handed over to the task that waits for it
                raised = error
            try:
                call.loop.call_soon_threadsafe(self._finished, self, call, result, raised)
            except RuntimeError:
                # The loop has been closed: nobody waits any more.
                break
        self.session.close()

    def _done(self, job: Callable[[Session], T]) -> T:
        try:
            return job(self.session)
        except PrivilegeMissing:
            # Global privileges count from the login on: this connection may be older than a GRANT.
            if self.session.fresh:
                raise
            self.session.close()
            return job(self.session)


class Pool:
    """Runs jobs, each in a thread with a session, `LIMIT` at a time."""

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._open_session = open_session
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._waiting: deque[asyncio.Future[_Worker]] = deque()
        self._writers = asyncio.Semaphore(LIMIT - 1)
        self._closed = False

    async def read(self, job: Callable[[Session], T]) -> T:
        """Run a job that changes nothing.

        Raises: EngineUnavailable (all connections are at work, or the server is away), and whatever the job raises
        """
        return await self._run(job, await self._free_worker())

    async def write(self, job: Callable[[Session], T]) -> T:
        """Run a job that may hold its connection for long, so not on all of them at once.

        Raises: as `read`
        """
        async with self._turn_to_write():
            return await self._run(job, await self._free_worker())

    def use(self) -> PoolUse:
        """Count connections."""
        opened = sum(worker.session.connected for worker in self._workers)
        return PoolUse(open=opened, in_use=len(self._workers) - len(self._idle), limit=LIMIT)

    async def close(self) -> None:
        """End the threads, and with them the connections; a job under way is interrupted."""
        self._closed = True
        for worker in self._workers:
            worker.session.interrupt()
            worker.end()
        for worker in self._workers:
            await asyncio.to_thread(worker.thread.join, 2.0)
        self._workers.clear()
        self._idle.clear()

    async def _run(self, job: Callable[[Session], T], worker: _Worker) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        call = _Call(job, time.monotonic() + deadline.remaining(), loop, future)
        worker.begin(call)
        try:
            if not worker.session.connected:
                await self._wait_for_connection(worker, future)
            return await future
        except asyncio.CancelledError:
            future.cancel()
            if not call.ended:
                # The thread notices at once, stops the statement in the engine, and is free again.
                worker.session.interrupt()
            raise

    async def _wait_for_connection(self, worker: _Worker, future: asyncio.Future[Any]) -> None:
        await asyncio.wait({future}, timeout=CONNECTED_WITHIN)
        if not future.done() and not worker.session.connected:
            worker.session.interrupt()
            future.cancel()
            raise EngineUnavailable(f"No connection came up within {CONNECTED_WITHIN:g} s.")

    def _finished(self, worker: _Worker, call: _Call, result: Any, raised: BaseException | None) -> None:
        call.ended = True
        if not call.future.done():
            if raised is None:
                call.future.set_result(result)
            else:
                call.future.set_exception(raised)
        self._release(worker)

    def _release(self, worker: _Worker) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(worker)
                return
        self._idle.append(worker)

    async def _free_worker(self) -> _Worker:
        if self._closed:
            raise EngineUnavailable("dbvalet is closing its connections.")
        # Last in, first out: the connections that are not needed age, and the others stay warm.
        if self._idle:
            return self._idle.pop()
        if len(self._workers) < LIMIT:
            worker = _Worker(self._open_session(), self._finished)
            self._workers.append(worker)
            return worker
        waiter: asyncio.Future[_Worker] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with _patience():
                return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._release(waiter.result())
            raise

    @asynccontextmanager
    async def _turn_to_write(self) -> AsyncGenerator[None]:
        async with _patience():
            await self._writers.acquire()
        try:
            yield
        finally:
            self._writers.release()


@asynccontextmanager
async def _patience() -> AsyncGenerator[None]:
    left = deadline.remaining()
    try:
        async with asyncio.timeout(min(PATIENCE, left)):
            yield
    except TimeoutError:
        if left <= PATIENCE:
            raise DeadlineExceeded("No connection became free in time: nothing was sent to the engine.") from None
        raise EngineUnavailable(
            f"All {LIMIT} connections to this server have been at work for {PATIENCE:g} s: nothing was sent to it."
        ) from None
