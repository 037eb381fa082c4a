"""The declared databases: settings, server, and what was last seen of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.errors import DatabaseNotFound, SettingsError
from agent.log import Log
from agent.settings import DatabaseSettings
from agent.store import DatabaseMemory, Store
from agent.tokens import Principal
from engines import deadline
from engines.address import parse_address
from engines.engine import Description, Engine, Memory, PoolUse, Server, engine_for
from engines.errors import EngineError

FRESH_SECONDS = 5.0
"""How old the live part of a database resource may be, and how often each server is looked at."""

LOOK_SECONDS = 2.0
"""How long one look may take before the server counts as stopped."""

CLOCK_TOLERANCE = timedelta(seconds=3)
"""Start times are computed from an uptime in whole seconds by some engines: less than this is the same start."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What is found once about a deployment and stays the same."""

    resource_id: str
    created_at: datetime | None
    """None until the server was first reached."""


class Database:
    """One managed deployment."""

    def __init__(self, settings: DatabaseSettings, server: Server, memory: Memory, log: Log) -> None:
        self.id = settings.id
        self.settings = settings
        self.server = server
        self.engine: Engine = server.engine
        self.disabled_actions = frozenset(settings.disabled_actions)
        self.description: Description | None = None
        """As last seen; None until the server was first reached."""
        self.up: bool | None = None
        self._memory = memory
        self._log = log
        self._seen_at = -FRESH_SECONDS
        self._looking: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Describe the server anew unless that was done in the last seconds; those who ask at once share one look."""
        if time.monotonic() - self._seen_at < FRESH_SECONDS:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)

    async def watch(self) -> None:
        """Look at the server for ever, so that a restart is noticed and `up` is known without asking."""
        while True:
            await self.look()
            await asyncio.sleep(FRESH_SECONDS)

    async def identity(self) -> Identity:
        """Give what the configuration says, else what was found once: on the server, or the moment of looking.

        Raises: OSError, when it cannot be kept
        """
        resource_id, created_at = self.settings.resource_id, self.settings.created_at
        if resource_id is None or created_at is None:
            known: dict[str, str] = await self._memory.recall("identity") or {}
            found = self.description
            # An engine that is down is asked again later: a guess must not become the truth for good.
            if not known and found is not None:
                created = found.created_at or datetime.now(UTC).replace(microsecond=0)
                known = {"resource_id": found.resource_id or self.id, "created_at": created.isoformat()}
                await self._memory.remember("identity", known)
            resource_id = resource_id or known.get("resource_id") or self.id
            created_at = created_at or (datetime.fromisoformat(known["created_at"]) if known else None)
        return Identity(resource_id=resource_id, created_at=created_at)

    async def _look(self) -> None:
        try:
            with deadline.within(LOOK_SECONDS):
                async with asyncio.timeout(LOOK_SECONDS + deadline.GRACE):
                    description = await self.server.describe()
            if self.description is None or _restarted(self.description, description):
                await self.server.restarted(description)
            self.description, up, reason = description, True, None
        except (EngineError, TimeoutError) as problem:
            up, reason = False, str(problem) or "the engine does not answer"
        except Exception:  # noqa: BLE001 - the watch must outlive a bug, which is logged
            self._log.exception("look", database=self.id)
            up, reason = False, "a bug of dbvalet: see the line before"
        if up != self.up:
            self._log.info("engine_up" if up else "engine_down", database=self.id, reason=reason)
        self.up = up
        self._seen_at = time.monotonic()


def _restarted(before: Description, now: Description) -> bool:
    return abs(now.started_at - before.started_at) > CLOCK_TOLERANCE


class Databases:
    """Every declared database."""

    def __init__(self, databases: Iterable[Database]) -> None:
        self._by_id = {database.id: database for database in databases}
        self._watchers: list[asyncio.Task[None]] = []

    def find(self, principal: Principal, database_id: str) -> Database:
        """Find a database in a token's scope.

        Raises: DatabaseNotFound, the same for an unknown id and for one outside the scope
        """
        database = self._by_id.get(database_id)
        if database is None or not principal.sees(database_id):
            raise DatabaseNotFound
        return database

    def seen_by(self, principal: Principal) -> list[Database]:
        """List the databases in a token's scope, as declared."""
        return [database for database in self if principal.sees(database.id)]

    def observed(self) -> Iterator[tuple[str, bool | None, PoolUse]]:
        """Give `(id, up or unknown, pool)` of each, without waiting."""
        for database in self:
            yield database.id, database.up, database.server.pool_use()

    def start(self) -> None:
        """Begin to watch the servers."""
        self._watchers = [asyncio.create_task(database.watch()) for database in self]

    async def close(self) -> None:
        """Stop watching and close every connection."""
        for watcher in self._watchers:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher
        await asyncio.gather(*(database.server.close() for database in self))

    def __iter__(self) -> Iterator[Database]:
        return iter(self._by_id.values())


def declare(settings: Iterable[DatabaseSettings], engines: Mapping[str, Engine], store: Store, log: Any) -> Databases:
    """Make the databases of a configuration; nothing is connected yet.

    Raises: SettingsError
    """
    found: list[Database] = []
    for number, each in enumerate(settings):
        key = f"databases.{number}.url"
        url = each.address().get_secret_value()
        engine = engine_for(url.partition("://")[0], engines)
        if engine is None:
            schemes = ", ".join(f"{scheme}://" for engine in engines.values() for scheme in engine.schemes)
            raise SettingsError(key, f"must begin with one of {schemes}")
        try:
            address = parse_address(url, engine.default_port)
        except ValueError as problem:
            raise SettingsError(key, str(problem)) from None
        unknown = [name for name in each.disabled_actions if name not in engine.actions]
        if unknown:
            raise SettingsError(f"databases.{number}.disabled_actions", f"{engine.title} has no action {unknown[0]}")
        memory = DatabaseMemory(store, each.id)
        found.append(Database(each, engine.connect(address, memory), memory, log))
    return Databases(found)
