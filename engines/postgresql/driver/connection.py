"""One session of dbvalet on PostgreSQL."""

from __future__ import annotations

import asyncio
import math
import select
import time
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import psycopg
import psycopg.abc
from psycopg import AsyncConnection, AsyncCursor
from psycopg.abc import AdaptContext, Buffer, PQGen
from psycopg.adapt import Loader, Transformer
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import dict_row
from psycopg.waiting import Ready, Wait, wait_async

from engines import deadline
from engines.postgresql.session import CONNECT_TIMEOUT, STATEMENT_TIMEOUT

if TYPE_CHECKING:
    from engines.postgresql.driver.sessions import Sessions

Row = dict[str, Any]
Params = Mapping[str, Any]

AT_ONCE = 0.0002
"""Seconds to look for an answer before the event loop is asked to wait for it. A server nearby answers a read sooner
than the loop could go to sleep and be woken, which costs as much as the read."""

CLOSE_ENOUGH = 0.4
"""Seconds by which the session's limit may exceed what is left, rather than spend a round trip on setting it.
Below `deadline.GRACE`, so that the engine still stops before dbvalet gives up."""

DO_NOT_CONVERT = b"""
SELECT pg_catalog.set_config('client_encoding', pg_catalog.current_setting('server_encoding'), false)
"""

SET_STATEMENT_TIMEOUT = b"SELECT pg_catalog.set_config('statement_timeout', %(timeout)s, false)"


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


class Prepared:
    """A statement without params as a session knows it."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.columns: list[str] | None = None
        """Known since it was first executed."""

    def row(self, values: Sequence[Any]) -> Row:
        """Put names to the values of a row."""
        return dict(zip(self.columns or (), values, strict=True))


class Connection(AsyncConnection[Row]):
    """A session of dbvalet.

    Statements without params, as the usual reads are, pass psycopg's cursors by: libpq is told the name of the
    prepared statement, and psycopg's loaders read the rows, in half the CPU time of `AsyncCursor.execute`.
    """

    kept_cursor: AsyncCursor[Row]
    """For everything else; used again and again, as a new one costs as much as reading the rows."""
    loaders: psycopg.abc.Transformer
    prepared: dict[str, Prepared]
    ends_at = math.inf
    """By the monotonic clock: when to give up waiting for the server."""
    usual_wait = 0.0
    """Seconds, a moving average of the time to an answer."""
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
        connection.kept_cursor = connection.cursor(binary=True, row_factory=dict_row)
        connection.loaders = Transformer(connection.kept_cursor)
        connection.prepared = {}
        opener.opened(connection)
        return connection

    async def wait(self, gen: Generator[Any, Any, Any], interval: float = 0, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - psycopg's signature
        """Wait as psycopg does, but until `ends_at`, and not at all when the task is cancelled.

        psycopg would then ask the server to stop and wait up to 10 s for that: a server that hangs would hold the
        answer so long. The pool closes a session that comes back at work; statement_timeout ends the statement.

        Raises: TimeoutError
        """
        patience = min(max(self.ends_at - time.monotonic(), 0.001), deadline.LONGEST)
        try:
            return await wait_async(gen, self.pgconn.socket, interval=patience, timeout=patience)
        except psycopg.OperationalError as error:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
                raise TimeoutError from error
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
        self.loaders = Transformer(self.kept_cursor)
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
        if params is None:
            return await self._run_prepared(self.prepared.get(statement) or await self._prepare(statement))
        cursor = await self.kept_cursor.execute(statement.encode(), params)
        return await cursor.fetchall() if cursor.description else []

    async def _run_prepared(self, prepared: Prepared) -> list[Row]:
        self.pgconn.send_query_prepared(prepared.name, None, result_format=Format.BINARY)
        result = await self._result()
        if prepared.columns is None:
            prepared.columns = [(result.fname(number) or b"").decode() for number in range(result.nfields)]
        self.loaders.set_pgresult(result)
        return self.loaders.load_rows(0, result.ntuples, prepared.row)

    async def _prepare(self, statement: str) -> Prepared:
        prepared = Prepared(f"dbvalet_{len(self.prepared)}".encode())
        self.pgconn.send_prepare(prepared.name, statement.encode())
        await self._result()
        self.prepared[statement] = prepared
        return prepared

    def _at_once(self, answering: PQGen[list[PGresult]], began: float) -> list[PGresult] | None:
        """Give the answer if it comes within `AT_ONCE`; otherwise `answering` is to be waited for as if not begun."""
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        try:
            wanted = next(answering)
            while wanted == Wait.R and time.perf_counter() - began < AT_ONCE:
                if poll.poll(0):
                    wanted = answering.send(Ready.R)
        except StopIteration as answered:
            return answered.value
        return None

    async def _result(self) -> PGresult:
        """Wait for what was sent.

        Raises: psycopg.Error
        """
        began = time.perf_counter()
        answering = execute(self.pgconn)
        results = self._at_once(answering, began) if self.usual_wait < AT_ONCE else None
        (result,) = results or await self.wait(answering)
        self.usual_wait += (time.perf_counter() - began - self.usual_wait) / 8
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise error_from_result(result, self.info.encoding)
        return result


def _readable(fileno: int) -> bool:
    poll = select.poll()
    poll.register(fileno, select.POLLIN)
    return bool(poll.poll(0))
