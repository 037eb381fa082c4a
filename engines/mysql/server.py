"""The live side of one MySQL or MariaDB database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from engines import deadline
from engines.address import Address
from engines.engine import Description, Engine, Feature, Memory, PoolUse
from engines.errors import DeadlineExceeded, EngineError, EngineUnavailable
from engines.mysql import sql_mode
from engines.mysql.facts import Facts, Flavour, account_of, granted, parse_version, readable, started
from engines.mysql.pool import Pool
from engines.mysql.tls import Mode, context, requested
from engines.neighbours import nobody

if TYPE_CHECKING:
    from engines.mysql.driver import Login, Rows, Session

T = TypeVar("T")

logger = logging.getLogger(__name__)

DESCRIBE: dict[Flavour, str] = {
    "mysql": """
        SELECT @@GLOBAL.version, UTC_TIMESTAMP(), VARIABLE_VALUE,
               @@GLOBAL.require_secure_transport, @@GLOBAL.server_uuid, @@GLOBAL.server_uuid
          FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Uptime'""",
    # MariaDB has no identity of its own: its server_uid is made of the network card and the port.
    "mariadb": """
        SELECT @@GLOBAL.version, UTC_TIMESTAMP(), VARIABLE_VALUE,
               @@GLOBAL.require_secure_transport, NULL,
               CONCAT_WS(' ', @@GLOBAL.hostname, @@GLOBAL.port, @@GLOBAL.datadir)
          FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'UPTIME'""",
}

CREATED = "SELECT MIN(CREATE_TIME) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'mysql'"
"""When the data directory was made: its system tables are as old. NULL where the account may not see them."""

RESTARTS_WITHIN = 5.0
"""Seconds to wait for a server that cut a connection, to see whether the work was done."""

RESERVE = 1.0
"""Seconds kept back from a job that writes, for stopping it in the engine and looking at what is true."""


class MySQLServer:
    """A MySQL or MariaDB server, as the account of one URL sees it."""

    def __init__(self, address: Address, memory: Memory) -> None:
        """Raises: ValueError, when the URL asks for a TLS mode that does not exist."""
        self.address = address
        self.memory = memory
        self.others: Callable[[], Collection[str]] = nobody
        self.sql_mode_lock = asyncio.Lock()
        self._tls = requested(address.options)
        self._login: Login | None = None
        self._facts: Facts | None = None
        self._created: Rows | None = None
        self._restoring = asyncio.Lock()
        self._restored_after: datetime | None = None
        self._pool = Pool(self._new_session)

    @property
    def engine(self) -> Engine:
        """The engine that this is a server of."""
        from engines.mysql import ENGINE

        return ENGINE

    @property
    def account(self) -> str:
        """The account as a GRANT names it: as the server knows it, or from the URL as long as nobody has logged in."""
        return self._facts.account if self._facts else account_of(f"{self.address.user or ''}@%")

    @property
    def facts(self) -> Facts:
        """What the newest login found out.

        Raises: EngineUnavailable, when nobody has logged in yet
        """
        if self._facts is None:
            raise EngineUnavailable
        return self._facts

    def is_own(self, name: str) -> bool:
        """Tell whether this is the deployment's own database, the one of the URL."""
        own = self.address.database
        return name == own or (self.facts.folds_case and name.lower() == own.lower())

    def of_others(self, names: Collection[str]) -> set[str]:
        """Tell which of these are own databases of other deployments on the server.

        Until the first login, when nobody knows yet whether it folds case, it is taken to.
        """
        folds_case = self._facts is None or self._facts.folds_case
        theirs = {_folded(each, folds_case=folds_case) for each in self.others()}
        found = {name for name in names if _folded(name, folds_case=folds_case) in theirs}
        return {name for name in found if name != self.address.database and not (self._facts and self.is_own(name))}

    async def log_in(self) -> Facts:
        """Find out anew what the server and the account are.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        return await self._pool.read(lambda session: session.log_in())

    async def privileges(self) -> frozenset[str]:
        """Ask which global privileges the account has by now.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        return granted(row[0] for row in await self.fetch("SHOW GRANTS"))

    async def fetch(self, statement: str, *args: object) -> Rows:
        """Run a statement that changes nothing, in one round trip.

        Raises: EngineUnavailable, DeadlineExceeded, and what the engine may refuse
        """
        return await self.read(lambda session: session.fetch(statement, *args))

    async def read(self, job: Callable[[Session], T]) -> T:
        """Run statements that change nothing on one connection; the job runs in a thread.

        Raises: as `fetch`
        """
        result = await self._pool.read(job)
        return await self._pool.read(job) if await self._restored() else result

    async def look(self, job: Callable[[Session], T]) -> T:
        """Run statements that change nothing after a cut: the server may be restarting, so try for some seconds.

        Raises: as `fetch`
        """
        until = time.monotonic() + min(RESTARTS_WITHIN, deadline.remaining())
        while True:
            try:
                return await self.read(job)
            except EngineUnavailable:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(0.1)

    async def write(self, job: Callable[[Session], T]) -> T:
        """Run statements that change something on one connection; the job runs in a thread.

        A second of the deadline is kept back for the caller to look at what is true when it raises.

        Raises: as `fetch`, ConnectionLost
        """
        left = deadline.remaining()
        with deadline.within(max(left - RESERVE, left / 2)):
            return await self._pool.write(job)

    async def describe(self) -> Description:
        """Ask the server what it is.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        with deadline.within(2):
            version, now, uptime, secure_transport, uuid, instance = await self._pool.read(_describe)
            if self._created is None:
                self._created = await self._pool.read(lambda session: session.fetch(CREATED))
        [(created_at,)] = self._created
        numbers = parse_version(version)
        return Description(
            version=numbers,
            readable_version=readable(self.facts.flavour, numbers),
            started_at=started(now, uptime),
            resource_id=uuid,
            instance=instance,
            created_at=created_at.replace(tzinfo=UTC) if created_at else None,
            features=(Feature(name="force-ssl"),) if secure_transport else (),
        )

    async def restarted(self, description: Description) -> None:
        """Put back the SQL mode where the server could not keep it.

        Raises: what `set-sqlmode` may raise
        """
        async with self._restoring:
            await sql_mode.restore(self, description.started_at)
        self._restored_after = description.started_at

    def pool_use(self) -> PoolUse:
        """Count connections without waiting."""
        return self._pool.use()

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def _restored(self) -> bool:
        """Put back what was lost by a restart that nobody has noticed before; tell whether to read again."""
        facts = self.facts
        if facts.started_at == self._restored_after:
            return False
        async with self._restoring:
            if facts.started_at != self._restored_after:
                try:
                    await sql_mode.restore(self, facts.started_at)
                except (EngineUnavailable, DeadlineExceeded) as failed:
                    logger.warning("The SQL mode is not set again yet after the server's restart: %s", failed)
                    return False
                except EngineError as failed:
                    # A read must not fail for it; `restarted`, which the service calls, raises.
                    logger.warning("The SQL mode cannot be set again after the server's restart: %s", failed)
                self._restored_after = facts.started_at
        return True

    def _new_session(self) -> Session:
        from engines.mysql.driver import Login, Session

        if self._login is None:
            try:
                shared = context(self._tls)
            except OSError as error:
                raise EngineUnavailable(f"A TLS file of the URL cannot be read: {error}.") from error
            self._login = Login(address=self.address, context=shared, tls_required=self._tls.mode >= Mode.REQUIRED)
        return Session(self._login, self._learned)

    def _learned(self, facts: Facts) -> None:
        self._facts = facts


def _folded(name: str, *, folds_case: bool) -> str:
    return name.lower() if folds_case else name


def _describe(session: Session) -> tuple[Any, ...]:
    return session.fetch(DESCRIBE[session.facts.flavour])[0]
