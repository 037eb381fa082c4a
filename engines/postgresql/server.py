"""One PostgreSQL database as dbvalet sees it: sessions for reads, one kept back for cancel and terminate."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from engines import deadline
from engines.address import Address
from engines.engine import Description, Engine, Memory, PoolUse
from engines.errors import Conflict, Precondition
from engines.postgresql import ENGINE

if TYPE_CHECKING:
    from engines.postgresql.driver import Sessions

READERS = 4
"""Sessions of one database, beside the one that is kept back."""

READERS_OF_ALL = 64
"""Sessions over all PostgreSQL databases of the process, the ones kept back left out. Each database gets an equal part,
and at least one."""

DESCRIBE = """
SELECT pg_catalog.current_setting('server_version_num')::int AS version_num,
       pg_catalog.current_setting('server_version') AS version_text,
       pg_catalog.pg_postmaster_start_time() AS started_at,
       system.system_identifier
  FROM pg_catalog.pg_control_system() AS system
"""


class UnreadableText(Precondition):
    """The server holds text that is not in the encoding it claims to be in, and refuses to give it."""


class UndefinedObject(Conflict):
    """What a statement names is not there (any more)."""


class ChangedMeanwhile(Conflict):
    """Another transaction changed the same row of a catalogue first; nothing was done, and it may be tried again."""


class PostgresServer:
    """The live side of one database."""

    _with_sessions: ClassVar[WeakSet[PostgresServer]] = WeakSet()

    def __init__(self, address: Address, memory: Memory) -> None:
        """`memory` is not used: PostgreSQL forgets nothing that dbvalet set."""
        self.engine: Engine = ENGINE
        self.address = address
        self.statistics_schema = "public"
        """Where pg_stat_statements was when it was last looked up; it may be in any schema."""
        self._reading: Sessions | None = None
        self._signalling: Sessions | None = None

    async def read(self, statement: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run a statement that changes nothing, once more when its session was cut.

        Raises: EngineUnavailable, DeadlineExceeded, PrivilegeMissing, Precondition
        """
        reading = self._reading or await self._share_sessions()
        return await reading.read(statement, params)

    async def write(self, statement: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run a statement that changes something, once.

        Raises: ConnectionLost when its outcome is not known, EngineUnavailable, DeadlineExceeded, PrivilegeMissing,
            Precondition, Conflict
        """
        reading = self._reading or await self._share_sessions()
        return await reading.write(statement, params)

    async def verifier(self, role: str, password: str) -> str:
        """Make of a password what the server keeps of it.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        reading = self._reading or await self._share_sessions()
        return await reading.verifier(role, password)

    @property
    def signalling(self) -> Sessions:
        """The session that is kept back for cancel and terminate, so that busy readers cannot hold them up."""
        if self._signalling is None:
            from engines.postgresql.driver import Sessions

            self._signalling = Sessions(self.address, 1)
        return self._signalling

    async def describe(self) -> Description:
        """Ask for version, start and birth (the upper half of the system identifier is its second of creation).

        Raises: EngineUnavailable, DeadlineExceeded
        """
        with deadline.within(2):
            (row,) = await self.read(DESCRIBE)
        number: int = row["version_num"]
        identifier: int = row["system_identifier"]
        return Description(
            version=(number // 10000, number % 10000),
            readable_version=row["version_text"].split()[0],
            started_at=row["started_at"],
            resource_id=str(identifier),
            created_at=datetime.fromtimestamp(identifier >> 32 & 0xFFFFFFFF, UTC),
        )

    async def restarted(self, description: Description) -> None:
        """Do nothing: PostgreSQL keeps across a restart whatever dbvalet did."""

    def pool_use(self) -> PoolUse:
        """Count sessions, the one that is kept back included."""
        uses = [sessions.use() for sessions in (self._reading, self._signalling) if sessions]
        return PoolUse(
            open=sum(use.open for use in uses),
            in_use=sum(use.in_use for use in uses),
            limit=(self._reading.use().limit if self._reading else READERS) + 1,
        )

    async def close(self) -> None:
        """Close every session."""
        self._with_sessions.discard(self)
        for sessions in (self._reading, self._signalling):
            if sessions:
                await sessions.close()

    async def _share_sessions(self) -> Sessions:
        """Make the readers, and divide the sessions of the process among all databases that have any."""
        from engines.postgresql.driver import Sessions

        self._with_sessions.add(self)
        limit = max(1, min(READERS, READERS_OF_ALL // len(self._with_sessions)))
        reading = self._reading = Sessions(self.address, limit)
        for server in self._with_sessions:
            if server._reading:
                await server._reading.resize(limit)
        return reading
