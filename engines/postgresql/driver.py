"""psycopg: sessions that are kept, one statement at a time on each, and the causes behind its errors.

This is the one module that imports the driver; `server` imports it when a session is first needed.
"""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections.abc import Generator, Mapping
from typing import Any, Self
from weakref import WeakSet

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import make_conninfo
from psycopg.pq import Format, TransactionStatus
from psycopg.waiting import wait_async
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from engines import deadline
from engines.address import Address
from engines.engine import PoolUse
from engines.errors import (
    AlreadyExists,
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    Precondition,
    PrivilegeMissing,
)
from engines.postgresql.server import UnreadableText
from engines.postgresql.session import CONNECT_TIMEOUT, STATEMENT_TIMEOUT, parameters

# The pool warns of what is told to those who wait for a session anyway.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

Row = dict[str, Any]
Params = Mapping[str, Any]

MAX_IDLE = 60.0
"""Seconds after which the pool lets an unused session go, one at a time."""

CLOSE_ENOUGH = 0.4
"""Seconds by which the session's limit may exceed what is left, rather than spend a round trip on setting it.
Below `deadline.GRACE`, so that the engine still stops before dbvalet gives up."""

DO_NOT_CONVERT = b"""
SELECT pg_catalog.set_config('client_encoding', pg_catalog.current_setting('server_encoding'), false)
"""

SET_STATEMENT_TIMEOUT = b"SELECT pg_catalog.set_config('statement_timeout', %(timeout)s, false)"

CAUSES: dict[str, type[EngineError]] = {
    "08": ConnectionLost,
    "57P01": ConnectionLost,  # terminated by an administrator, also when the server shuts down
    "57P02": ConnectionLost,
    "57P03": ConnectionLost,
    "57P05": ConnectionLost,  # idle_session_timeout, 14 and later
    "53": EngineUnavailable,
    "42501": PrivilegeMissing,
    "40": Conflict,
    "55006": Conflict,
    "55P03": Conflict,
    "0A000": Precondition,  # the extension is not among the server's files
    "58P01": Precondition,  # the same, before 13
    "55000": Precondition,  # its library is not preloaded
    "22021": UnreadableText,
    "22P05": UnreadableText,
    "25006": Precondition,  # a standby
    "3F000": Precondition,  # there is no schema `public`
    "23505": AlreadyExists,  # CREATE … IF NOT EXISTS by two sessions at the same moment
    "42710": AlreadyExists,
}
"""Causes by SQLSTATE or its class: https://www.postgresql.org/docs/current/errcodes-appendix.html"""


class LenientTextLoader(Loader):
    """Reads text of any bytes, with U+FFFD for those that are no characters."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        encoding = context.connection.info.encoding if context and context.connection else "ascii"
        self._encoding = "utf-8" if encoding == "ascii" else encoding

    def load(self, data: Buffer) -> str:
        """Decode."""
        return bytes(data).decode(self._encoding, errors="replace")


class LenientBinaryTextLoader(LenientTextLoader):
    """The same for results in binary form, where text looks the same."""

    format = Format.BINARY


class Connection(AsyncConnection[tuple[Any, ...]]):
    """A session of dbvalet, with one cursor that is used again and again: a new one costs a fifth of a read."""

    kept_cursor: AsyncCursor[tuple[Any, ...]]
    column_names: dict[str, tuple[str, ...]]
    """By statement: psycopg describes the columns of each result anew, which costs another fifth."""
    timeout_set = STATEMENT_TIMEOUT
    """The session's statement_timeout in seconds."""
    takes_any_text = False

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Open a session for the `opener` among kwargs, which hears of a failure sooner than from the pool."""
        opener: Sessions = kwargs.pop("opener")
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT + 1):  # psycopg's own limit leaves out looking up the host
                connection = await super().connect(conninfo, **kwargs)
        except Exception as failure:
            opener.failed(failure)
            raise
        connection.kept_cursor = connection.cursor(binary=True)
        connection.column_names = {}
        opener.opened(connection)
        return connection

    async def wait(self, gen: Generator[Any, Any, Any], interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - psycopg's signature
        """Wait as psycopg does, but let go at once when told to.

        psycopg would first ask the server to stop and wait up to 10 s for that: a server that hangs would hold the
        answer so long. statement_timeout ends the statement there.
        """
        try:
            return await wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)
        except asyncio.CancelledError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise

    async def take_any_text(self) -> None:
        """Read text from now on that is not in the encoding of the database; slower, so only where it is met.

        A database of encoding SQL_ASCII keeps any bytes, and shared catalogues hold names in the encoding of whichever
        database they were made in. Asked to convert, PostgreSQL fails with 22021.
        """
        await self.kept_cursor.execute(DO_NOT_CONVERT)
        for name in ("text", "varchar", "name"):
            self.kept_cursor.adapters.register_loader(name, LenientTextLoader)
            self.kept_cursor.adapters.register_loader(name, LenientBinaryTextLoader)
        self.takes_any_text = True

    def is_stale(self) -> bool:
        """Tell, without sending anything, whether the server closed this session while nobody used it."""
        try:
            while _readable(self.pgconn.socket):
                # What arrives unasked is the change of a setting, a notice, or the end.
                self.pgconn.consume_input()
        except psycopg.Error:
            return True
        return False

    async def answers(self) -> bool:
        """Tell whether the server answers on this session."""
        try:
            await self.kept_cursor.execute(b"")
        except psycopg.OperationalError:
            return False
        return True

    async def run(self, statement: str, params: Params | None, limit: float) -> list[Row]:
        """Run one statement for at most `limit` seconds."""
        if not limit <= self.timeout_set <= limit + CLOSE_ENOUGH:
            await self.kept_cursor.execute(SET_STATEMENT_TIMEOUT, {"timeout": f"{max(round(limit * 1000), 1)}ms"})
            self.timeout_set = limit
        cursor = await self.kept_cursor.execute(statement.encode(), params)
        names = self.column_names.get(statement)
        if names is None:
            names = self.column_names[statement] = tuple(column.name for column in cursor.description or ())
        return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()] if names else []


def _readable(fileno: int) -> bool:
    poll = select.poll()
    poll.register(fileno, select.POLLIN)
    return bool(poll.poll(0))


class Sessions:
    """The sessions of one database for one purpose: at most `limit`, opened when needed, kept while they are used."""

    def __init__(self, address: Address, limit: int) -> None:
        self._address = address
        self._where = f"PostgreSQL at {address.host}:{address.port}"
        self._limit = limit
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._connections: WeakSet[Connection] = WeakSet()
        self._waiting: set[asyncio.Future[Exception]] = set()
        self._failure: Exception | None = None
        self._returning: set[asyncio.Task[None]] = set()
        self._met_odd_text = False

    async def read(self, statement: str, params: Params | None = None) -> list[Row]:
        """Run a statement that changes nothing; when its session is cut, once more on another.

        Raises: EngineUnavailable, DeadlineExceeded, PrivilegeMissing, Precondition
        """
        try:
            return await self._run(statement, params, answering=False)
        except ConnectionLost:
            # Whatever cut this session may have cut the other kept ones too.
            return await self._run(statement, params, answering=True)
        except (UnicodeDecodeError, UnreadableText):
            self._met_odd_text = True
            return await self._run(statement, params, answering=False)

    async def write(self, statement: str, params: Params | None = None) -> list[Row]:
        """Run a statement once, on a session that answered just before.

        Raises: ConnectionLost when it was cut meanwhile, so that whether it was done must be looked up; and as `read`
        """
        return await self._run(statement, params, answering=True)

    def use(self) -> PoolUse:
        """Count sessions."""
        opened = sum(not connection.closed for connection in self._connections)
        idle = self._pool.get_stats()["pool_available"] if self._pool else 0
        return PoolUse(open=opened, in_use=max(opened - idle, 0), limit=self._limit)

    async def resize(self, limit: int) -> None:
        """Allow this many from now on."""
        self._limit = limit
        if self._pool:
            await self._pool.resize(0, limit)

    async def close(self) -> None:
        """Close every session."""
        if self._pool:
            await self._pool.close(timeout=1)
        for connection in list(self._connections):
            await connection.close()

    def opened(self, connection: Connection) -> None:
        """Hear that a session was opened."""
        self._connections.add(connection)
        self._failure = None

    def failed(self, failure: Exception) -> None:
        """Hear that no session could be opened: those who wait are told, unless one may come free for them."""
        self._failure = failure
        if all(connection.closed for connection in self._connections):
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_result(failure)

    async def _run(self, statement: str, params: Params | None, *, answering: bool) -> list[Row]:
        limit = min(deadline.remaining(), STATEMENT_TIMEOUT)
        started = time.monotonic()
        try:
            async with asyncio.timeout(limit + 0.8 * deadline.GRACE):
                connection = await self._take(limit, answering=answering)
                try:
                    if self._met_odd_text and not connection.takes_any_text:
                        await connection.take_any_text()
                    return await connection.run(statement, params, limit - (time.monotonic() - started))
                except psycopg.Error as error:
                    cause = self._cause(error, connection, time_up=time.monotonic() - started > limit - 0.05)
                    if cause is None:
                        raise
                    raise cause from error
                finally:
                    await self._put(connection)
        except TimeoutError:
            raise DeadlineExceeded(f"{self._where} does not answer: given up after {limit:.3g} s.") from None

    async def _take(self, limit: float, *, answering: bool) -> Connection:
        """Give a session that was not cut while it was idle; with `answering`, make sure by asking."""
        ends_at = time.monotonic() + min(limit, CONNECT_TIMEOUT)
        while True:
            connection = await self._get(ends_at - time.monotonic())
            usable = False
            try:
                usable = not connection.is_stale() and (not answering or await connection.answers())
            finally:
                if not usable:
                    await connection.close()
                    await self._put(connection)
            if usable:
                return connection

    async def _get(self, patience: float) -> Connection:
        try:
            pool = self._pool or await self._open()
            if pool.get_stats()["pool_available"]:
                return await pool.getconn(patience)
            return await self._wait_for_one(asyncio.create_task(pool.getconn(patience)))
        except (PoolTimeout, PoolClosed) as failure:
            raise self._unavailable(failure) from None

    async def _wait_for_one(self, getting: asyncio.Task[Connection]) -> Connection:
        """Wait for a session to be opened or to come free, or for the news that none can be opened."""
        refused: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._waiting.add(refused)
        try:
            await asyncio.wait((getting, refused), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._abandon(getting)
            raise
        finally:
            self._waiting.discard(refused)
        if getting.done():
            return getting.result()
        self._abandon(getting)
        raise self._unavailable(refused.result())

    def _abandon(self, getting: asyncio.Task[Connection]) -> None:
        """Stop waiting for a session; one that comes all the same goes back."""
        getting.cancel()
        getting.add_done_callback(self._put_back)

    def _put_back(self, getting: asyncio.Task[Connection]) -> None:
        if not getting.cancelled() and not getting.exception():
            returning = asyncio.create_task(self._put(getting.result()))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)

    async def _put(self, connection: Connection) -> None:
        if self._pool:
            await self._pool.putconn(connection)

    async def _open(self) -> AsyncConnectionPool[Connection]:
        try:
            conninfo = make_conninfo("", **parameters(self._address))
        except psycopg.Error as invalid:
            raise self._unavailable(invalid) from None
        pool = self._pool = AsyncConnectionPool(
            conninfo,
            connection_class=Connection,
            kwargs={"opener": self, "autocommit": True, "prepare_threshold": 0},
            min_size=0,
            max_size=self._limit,
            max_idle=MAX_IDLE,
            # A failure is told to those who wait; the next request tries again.
            reconnect_timeout=0,
            reconnect_failed=lambda _: self.failed(self._failure or ConnectionError("cannot connect")),
            num_workers=2,
            open=False,
        )
        await pool.open()
        return pool

    def _unavailable(self, failure: Exception) -> EngineUnavailable:
        if isinstance(failure, PoolClosed):
            return EngineUnavailable("dbvalet is closing its connections.")
        if isinstance(failure, PoolTimeout):
            use = self.use()
            if use.in_use >= use.limit:
                return EngineUnavailable(
                    f"All {use.limit} connections that dbvalet may hold to this database are in use."
                )
            failure = self._failure or failure
        if isinstance(failure, (PoolTimeout, psycopg.errors.ConnectionTimeout, TimeoutError)):
            return EngineUnavailable(f"{self._where} did not accept a connection within {CONNECT_TIMEOUT} s.")
        text = " ".join(str(failure).split())
        if self._address.password:
            text = text.replace(self._address.password, "***")
        return EngineUnavailable(f"{self._where} cannot be used: {text}")

    def _cause(self, error: psycopg.Error, connection: Connection, *, time_up: bool) -> EngineError | None:
        """Find the cause of a failed statement by its SQLSTATE; None is a bug of ours."""
        state = error.sqlstate or ""
        if state == "57014" and time_up:
            return DeadlineExceeded(f"{self._where} stopped the statement: its time was up.")
        if state == "57014":
            return EngineUnavailable(f"{self._where}: dbvalet's statement was cancelled by somebody else.")
        cause = CAUSES.get(state) or CAUSES.get(state[:2])
        if cause is None and connection.closed:
            cause = ConnectionLost
        return cause and cause(f"{self._where}: {error.diag.message_primary or 'the connection was cut'}.")
