"""The session of a restore: one transaction, as long as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg.waiting import wait_async

from engines.address import Address
from engines.errors import (
    BackupFailed,
    Conflict,
    ConnectionLost,
    EngineError,
    EngineUnavailable,
    Precondition,
    PrivilegeMissing,
)
from engines.postgresql.locks import NoRoomForLocks
from engines.postgresql.restore import NotResolved
from engines.postgresql.session import RESTORING, WITHOUT_LIMITS, parameters

SETTINGS = b"""
SET search_path = '';
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET synchronous_commit = on;
SET default_tablespace = '';
"""
"""What pg_restore sets, and that a restore which is told to be done is on disk."""

NEWER_LIMITS = """
SELECT pg_catalog.set_config(name, '0', false)
  FROM pg_catalog.pg_settings
 WHERE name IN ('idle_session_timeout', 'transaction_timeout')
"""
"""There since 14 and 17; to an older server they cannot be given at connect."""

# LATIN1 is any bytes: a database of SQL_ASCII keeps names in any encoding, and converts nothing.
READ_NAMES = """
SELECT pg_catalog.set_config(
    'client_encoding',
    CASE pg_catalog.current_setting('server_encoding') WHEN 'SQL_ASCII' THEN 'LATIN1' ELSE 'UTF8' END,
    false)
"""

LOOK_SECONDS = 10.0
"""How often psycopg looks up from waiting for the server, which it is woken by."""

BEGIN = b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"

CAUSES: dict[str, type[EngineError]] = {
    "25006": Precondition,  # a standby
    "40": Conflict,
    "42": NotResolved,
    "42501": PrivilegeMissing,
    "53200": NoRoomForLocks,  # locks are counted as memory
    "55006": Conflict,
    "55P03": Conflict,
    "57014": Conflict,  # cancelled by somebody else, or waited too long for the first locks
}
"""Causes by SQLSTATE or its class; any other is a failed restore."""

WITH_ROWS = ("22", "23")
"""Classes of errors whose details show what is in the rows."""


class Connection(AsyncConnection[dict[str, Any]]):
    """A connection that is left at once when its task is cancelled."""

    async def wait(self, gen: Generator[Any, Any, Any], interval: float = 0, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - psycopg's signature
        """Wait as psycopg does, but not for the server to hear of a cancellation: one that hangs never would.

        The backend is ended through another session.
        """
        try:
            return await wait_async(gen, self.pgconn.socket, interval=LOOK_SECONDS, timeout=timeout)
        except asyncio.CancelledError:
            self.pgconn.finish()
            raise


class Session:
    """A session that everything of a restore goes through."""

    def __init__(self, connection: Connection, where: str) -> None:
        self._connection = connection
        self._where = where
        self.pid = connection.info.backend_pid
        """Of its backend."""

    async def begin(self) -> int:
        """Begin the transaction and give its number, by which its end can be looked up.

        Raises: EngineError
        """
        await self.run(SETTINGS)
        await self.rows(NEWER_LIMITS)
        await self.rows(READ_NAMES)
        await self.run(BEGIN)
        return await self.transaction()

    async def transaction(self) -> int:
        """Give the number of the transaction.

        Raises: EngineError
        """
        (row,) = await self.rows("SELECT pg_catalog.txid_current() AS number")
        return row["number"]

    async def set(self, name: str, value: str) -> None:
        """Set a parameter of the session.

        Raises: EngineError
        """
        await self.rows("SELECT pg_catalog.set_config(%(name)s, %(value)s, false)", {"name": name, "value": value})

    async def say(self, statement: str) -> None:
        """Run a statement that names what `rows` gave.

        Raises: EngineError
        """
        await self.run(statement.encode(self._connection.info.encoding))

    async def run(self, sql: bytes) -> None:
        """Run statements as they stand.

        Raises: EngineError
        """
        try:
            await self._connection.execute(sql)
        except psycopg.Error as error:
            self._raise(error)

    async def rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Ask.

        Raises: EngineError
        """
        try:
            return await (await self._connection.execute(sql.encode(), params)).fetchall()
        except psycopg.Error as error:
            self._raise(error)

    async def copy(self, sql: bytes, rows: AsyncIterator[bytes]) -> None:
        """Load rows as a COPY takes them.

        Raises: EngineError, and what `rows` raises
        """
        try:
            async with self._connection.cursor().copy(sql) as copy:
                async for block in rows:
                    await copy.write(block)
        except psycopg.Error as error:
            self._raise(error)

    def _raise(self, error: psycopg.Error) -> NoReturn:
        if (task := asyncio.current_task()) and task.cancelling():
            raise asyncio.CancelledError from error
        text = error.diag.message_primary or "the connection was cut"
        if self._connection.closed:
            raise ConnectionLost(f"{self._where}: {text}.") from error
        state = error.sqlstate or ""
        cause = CAUSES.get(state) or CAUSES.get(state[:2]) or BackupFailed
        detail = None if state[:2] in WITH_ROWS else error.diag.message_detail
        # After the colon the context of a COPY shows the row.
        context = (error.diag.context or "").split("\n")[0].split(":")[0].split(", column")[0]
        words = " ".join(
            f"{part.strip().rstrip('.')}." for part in (text, detail, error.diag.message_hint, context) if part
        )
        raise cause(f"{self._where}: {words}") from error


@asynccontextmanager
async def restoring(address: Address) -> AsyncGenerator[Session]:
    """Log in for a restore; the session ends with the block, and what was not committed never was.

    Raises: EngineUnavailable
    """
    where = f"PostgreSQL at {address.host}:{address.port}"
    settings = {
        **parameters(address),
        "application_name": RESTORING,
        "options": f"{address.options.get('options', '')} {WITHOUT_LIMITS}".strip(),
    }
    try:
        connection = await Connection.connect(
            make_conninfo("", **settings), autocommit=True, prepare_threshold=None, row_factory=dict_row
        )
    except psycopg.Error as error:
        text = " ".join(str(error).split())
        raise EngineUnavailable(
            f"{where} cannot be used: {text.replace(address.password, '***') if address.password else text}"
        ) from None
    try:
        yield Session(connection, where)
    finally:
        await connection.close()
