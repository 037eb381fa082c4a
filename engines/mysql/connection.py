"""A connection of its own for work that outlives a request: it has no deadline, and names no logical database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from engines.address import Address
from engines.errors import Conflict, EngineError, EngineUnavailable
from engines.mysql.facts import Facts, Flavour
from engines.mysql.tls import Mode, context, requested
from engines.threads import in_own_thread

if TYPE_CHECKING:
    from engines.mysql.driver import Rows, Session

T = TypeVar("T")

ALWAYS_THERE = "information_schema"
"""Where the connection begins: the deployment's own database may have been dropped, and is to come back."""

LOCK_SECONDS = 10
"""How long a statement waits for the tables of an application; meanwhile that application waits behind it."""

LONGEST_STATEMENT = 3600.0
"""Seconds for one job. Dropping a large table takes long; a server that died is noticed by its closed connection."""

TURN_SECONDS = 5
"""How long to wait for another's lock: a session that is cut needs a moment to let it go."""

STALE_SECONDS = 60
"""A restore that runs says something at least every few seconds: one that was silent for so long is dead or frozen."""

# dbvalet's other sessions have limits made for actions. Tables come and go one by one, so no foreign key is checked.
LONG_WORK: dict[Flavour, str] = {
    "mysql": "SET SESSION max_execution_time = 0, wait_timeout = 604800, lock_wait_timeout = %s,"
    " foreign_key_checks = 0, sql_quote_show_create = 1",
    "mariadb": "SET SESSION max_statement_time = 0, wait_timeout = 604800, lock_wait_timeout = %s,"
    " foreign_key_checks = 0, sql_quote_show_create = 1",
}

ENCRYPTED = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"

TAKE = "SELECT GET_LOCK(%s, %s)"

HOLDER = "SELECT IS_USED_LOCK(%s)"

SESSIONS = "SHOW FULL PROCESSLIST"

KILL = "KILL %s"


class Connection:
    """One session in whatever thread is free. A job that was cancelled leaves it closed."""

    def __init__(self, address: Address) -> None:
        """Touches nothing yet.

        Raises: EngineUnavailable, when a TLS file of the URL cannot be read
        """
        from engines.mysql.driver import Login, Session

        tls = requested(address.options)
        try:
            shared = context(tls)
        except OSError as error:
            raise EngineUnavailable(f"A TLS file of the URL cannot be read: {error}.") from error
        login = Login(
            address=replace(address, database=ALWAYS_THERE), context=shared, tls_required=tls.mode >= Mode.REQUIRED
        )
        self._session = Session(login, lambda facts: None)

    @property
    def facts(self) -> Facts:
        """What the login found out."""
        return self._session.facts

    async def run(self, job: Callable[[Session], T], seconds: float = LONGEST_STATEMENT) -> T:
        """Run a job in a thread; when the waiting task is cancelled, its statement is stopped in the engine first.

        Raises: EngineUnavailable, DeadlineExceeded, and whatever the job raises
        """
        self._session.begin(time.monotonic() + seconds)
        work = asyncio.create_task(in_own_thread(job, self._session))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._session.interrupt()
            with suppress(EngineError):
                await work
            raise

    async def execute(self, statement: str, *args: object) -> Rows:
        """Run one statement.

        Raises: as `run`
        """
        return await self.run(lambda session: session.execute(statement, *args))

    async def is_encrypted(self) -> bool:
        """Tell whether the connection uses TLS.

        Raises: as `run`
        """
        return bool((await self.execute(ENCRYPTED))[0][1])

    async def close(self) -> None:
        """Close it; locks that it holds are free then."""
        await in_own_thread(self._session.close)


@asynccontextmanager
async def connected(address: Address, lock: str | None = None) -> AsyncGenerator[Connection]:
    """Log in for long work, and hold a lock of this name, if any, as long as the connection lives.

    Raises: EngineUnavailable, Conflict, when another holds the lock
    """
    connection = await in_own_thread(Connection, address)
    try:
        await connection.run(lambda session: _begin(session, lock), seconds=30.0)
        yield connection
    finally:
        await connection.close()


def _begin(session: Session, lock: str | None) -> None:
    facts = session.log_in()
    session.execute(LONG_WORK[facts.flavour], LOCK_SECONDS)
    if lock is not None:
        take(session, lock)


def lock_name(purpose: str, database: str) -> str:
    """Name a lock of the server's, in at most 64 characters.

    https://dev.mysql.com/doc/refman/9.7/en/locking-functions.html
    """
    return f"dbvalet.{purpose}.{sha256(database.encode()).hexdigest()[:32]}"


def take(session: Session, lock: str) -> None:
    """Take a lock. The holder that has said nothing for a minute is dead or frozen: its connection is ended.

    Raises: Conflict
    """
    for _ in range(2):
        if session.execute(TAKE, lock, TURN_SECONDS)[0][0] == 1:
            return
        holder = session.execute(HOLDER, lock)[0][0]
        idle = [row for row in session.execute(SESSIONS) if row[0] == holder and row[4] == "Sleep"]
        if not idle or idle[0][5] < STALE_SECONDS:
            break
        session.execute(KILL, holder)
    raise Conflict("A restore of this logical database is under way.")


def end_holder(session: Session, lock: str) -> None:
    """End the session that holds a lock, if one does, and wait until it is gone: a program that outlived its dbvalet.

    Raises: Conflict, when it does not end
    """
    holder = session.execute(HOLDER, lock)[0][0]
    if holder is None:
        return
    with suppress(EngineError):
        # It may have ended by itself by now; whether it did is seen below.
        session.execute(KILL, holder)
    until = time.monotonic() + LOCK_SECONDS
    while session.execute(HOLDER, lock)[0][0] == holder:
        if time.monotonic() > until:
            raise Conflict(f"The session {holder} of an interrupted restore does not end.")
        time.sleep(0.05)
