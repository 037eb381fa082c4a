"""The live side of an InfluxDB deployment."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from engines import deadline
from engines.address import Address
from engines.engine import Description, Engine, Feature, Memory, PoolUse
from engines.errors import DeadlineExceeded, EngineUnavailable, PrivilegeMissing
from engines.influxdb import ENGINE

if TYPE_CHECKING:
    from engines.influxdb.driver import Client, Rows

T = TypeVar("T")

CONNECTIONS = 4
WAIT_SECONDS = 3.0
DESCRIBE_SECONDS = 2.0


class InfluxServer:
    """An InfluxDB 1.x server, asked through `read` and `write`, each in a thread with a kept connection."""

    def __init__(self, address: Address, memory: Memory) -> None:
        self.engine: Engine = ENGINE
        self.address = address
        self._threads: ThreadPoolExecutor | None = None
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._kept: list[Client] = []
        """Connections that no thread uses, the last used last, so that few are kept warm."""
        self._open = 0
        self._in_use = 0
        self._first_seen: datetime | None = None

    async def read(self, statement: str) -> Rows:
        """Run an InfluxQL statement that changes nothing.

        Raises: EngineUnavailable, DeadlineExceeded, PrivilegeMissing and the causes of `engines.influxdb.driver`
        """
        ends_at = time.monotonic() + deadline.remaining()
        return await self._in_thread(lambda client: client.read(statement, ends_at))

    async def write(self, statement: str) -> Rows:
        """Run an InfluxQL statement that changes something, once.

        Raises: ConnectionLost, when it may or may not have been done; and as `read`
        """
        ends_at = time.monotonic() + deadline.remaining()
        return await self._in_thread(lambda client: client.write(statement, ends_at))

    async def write_nothing(self) -> None:
        """Write no points to the logical database, to learn whether the account may.

        Raises: PrivilegeMissing, and as `read`
        """
        ends_at = time.monotonic() + deadline.remaining()
        await self._in_thread(lambda client: client.write_nothing(ends_at))

    async def describe(self) -> Description:
        """Ask the server what it is: one round trip for an admin.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        with deadline.within(DESCRIBE_SECONDS):
            try:
                diagnostics = await self.read("SHOW DIAGNOSTICS")
            except PrivilegeMissing:
                # Nothing tells an ordinary account when the server started, so it never seems restarted.
                version, now = await self._version_and_clock()
                self._first_seen = started_at = self._first_seen or now
            else:
                version = diagnostics["build"][0]["Version"]
                started_at = datetime.fromisoformat(diagnostics["system"][0]["started"])
        return Description(
            version=tuple(int(part) for part in re.findall(r"\d+", version)[:3]),
            readable_version=version,
            started_at=started_at,
            # Where HTTPS is on, InfluxDB answers nothing else.
            features=(Feature(name="force-ssl"),) if self.address.scheme.startswith("https") else (),
        )

    async def restarted(self, description: Description) -> None:
        """Do nothing: InfluxDB keeps across a restart all that the actions change."""

    def pool_use(self) -> PoolUse:
        """Count connections without waiting."""
        return PoolUse(open=len(self._kept) + self._in_use, in_use=self._in_use, limit=CONNECTIONS)

    async def close(self) -> None:
        """Close every connection; one at work is closed when its request ends."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
        while self._kept:
            self._kept.pop().close()

    async def _version_and_clock(self) -> tuple[str, datetime]:
        ends_at = time.monotonic() + deadline.remaining()
        return await self._in_thread(lambda client: client.version_and_clock(ends_at))

    async def _in_thread(self, work: Callable[[Client], T]) -> T:
        """Let a thread do this with a connection; it ends by its own limit when nobody waits for it any more."""
        seconds = deadline.remaining()
        try:
            async with asyncio.timeout(min(WAIT_SECONDS, seconds)):
                await self._free.acquire()
        except TimeoutError:
            raise EngineUnavailable(f"All {CONNECTIONS} connections to InfluxDB are in use.") from None
        self._in_use += 1
        if self._threads is None:
            self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="influxdb")
        done = self._threads.submit(self._with_connection, self._threads, work)
        done.add_done_callback(partial(self._tell, asyncio.get_running_loop()))
        try:
            async with asyncio.timeout(seconds + deadline.GRACE / 3):
                return await asyncio.wrap_future(done)
        except TimeoutError:
            # The limit of the library is for each piece of an answer, not for all of it.
            raise DeadlineExceeded(
                "The time for this action is up: InfluxDB answers too slowly. What was asked may still be done."
            ) from None

    def _tell(self, loop: asyncio.AbstractEventLoop, _: object) -> None:
        """Say in the event loop that a thread is done; dbvalet may have ended while it waited for the server."""
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._freed)

    def _freed(self) -> None:
        self._in_use -= 1
        self._free.release()

    def _with_connection(self, threads: ThreadPoolExecutor, work: Callable[[Client], T]) -> T:
        # In this thread, as the import takes a while that the event loop should not wait for.
        from engines.influxdb.driver import Client

        client = self._kept.pop() if self._kept else Client(self.address)
        try:
            return work(client)
        finally:
            if self._threads is threads:
                self._kept.append(client)
            else:
                client.close()
