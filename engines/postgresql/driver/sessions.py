"""The sessions of one database: how many, which is given to whom, and what their errors mean."""

from __future__ import annotations

import asyncio
import logging
import time
from weakref import WeakSet

import psycopg
from psycopg.conninfo import make_conninfo
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
from engines.postgresql.driver.connection import Connection, Params, Row
from engines.postgresql.server import ChangedMeanwhile, UndefinedObject, UnreadableText
from engines.postgresql.session import CONNECT_TIMEOUT, STATEMENT_TIMEOUT, parameters

# The pool warns of what is told to those who wait for a session anyway.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

MAX_IDLE = 60.0
"""Seconds after which the pool lets an unused session go, one at a time."""

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
    "2BP01": Conflict,  # something depends on it: what others have granted to a role that is to be dropped
    "55P03": Conflict,
    "0A000": Precondition,  # the extension is not among the server's files
    "58P01": Precondition,  # the same, before 13
    "55000": Precondition,  # its library is not preloaded
    "22021": UnreadableText,
    "22P05": UnreadableText,
    "25006": Precondition,  # a standby
    "3F000": Precondition,  # there is no schema `public`
    "23505": AlreadyExists,  # CREATE … IF NOT EXISTS by two sessions at the same moment
    "42704": UndefinedObject,  # a role that was dropped meanwhile
    "42710": AlreadyExists,
}
"""Causes by SQLSTATE or its class: https://www.postgresql.org/docs/current/errcodes-appendix.html"""

CONCURRENTLY = ("tuple concurrently updated", "tuple concurrently deleted")
"""Two transactions changed one row of a catalogue. PostgreSQL has no SQLSTATE for it but that of any internal error,
and does not translate the text: https://github.com/postgres/postgres/blob/REL_18_0/src/backend/access/heap/heapam.c"""


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

    async def verifier(self, role: str, password: str) -> str:
        """Make of a password what the server keeps (SCRAM), so that the password itself is in no statement and no log.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        connection = await self._take(time.monotonic() + min(deadline.remaining(), STATEMENT_TIMEOUT), answering=False)
        try:
            made = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
            return bytes(made).decode()
        finally:
            await self._put(connection)

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
        ends_at = time.monotonic() + limit
        try:
            connection = await self._take(ends_at, answering=answering)
            try:
                if self._met_odd_text and not connection.takes_any_text:
                    await connection.take_any_text()
                return await connection.run(statement, params, ends_at - time.monotonic())
            except psycopg.Error as error:
                cause = self._cause(error, connection, time_up=time.monotonic() > ends_at - 0.05)
                if cause is None:
                    raise
                raise cause from error
            finally:
                await self._put(connection)
        except TimeoutError:
            raise DeadlineExceeded(f"{self._where} does not answer: given up after {limit:.3g} s.") from None

    async def _take(self, ends_at: float, *, answering: bool) -> Connection:
        """Give a session that was not cut while it was idle; with `answering`, make sure by asking."""
        patient_until = min(ends_at, time.monotonic() + CONNECT_TIMEOUT)
        while True:
            connection = await self._get(patient_until - time.monotonic())
            connection.ends_at = ends_at + 0.8 * deadline.GRACE
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
        """Give a session back; it goes back even when the caller leaves while the pool is locked."""
        if self._pool:
            returning = asyncio.create_task(self._pool.putconn(connection))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
            await asyncio.shield(returning)

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
        if state == "XX000" and error.diag.message_primary in CONCURRENTLY:
            cause = ChangedMeanwhile
        if cause is None and connection.closed:
            cause = ConnectionLost
        return cause and cause(f"{self._where}: {error.diag.message_primary or 'the connection was cut'}.")
