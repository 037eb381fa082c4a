"""The declared databases: settings, server, and what was last seen of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from agent.admission import Admission
from agent.errors import DatabaseNotFound, SettingsError
from agent.log import Log
from agent.neighbours import introduce
from agent.settings import Settings
from agent.settings_databases import DatabaseSettings
from agent.state.state import State
from agent.tasks import TASKS
from agent.tokens import Principal
from engines import deadline
from engines.action import Effect
from engines.address import parse_address
from engines.engine import Description, Engine, Memory, PoolUse, Server, engine_for
from engines.errors import EngineError, Precondition

T = TypeVar("T")

FRESH_SECONDS = 5.0
"""How old the live part of a database resource may be, and how often each server is looked at."""

LOOK_SECONDS = 2.0
"""How long one look may take before the server counts as stopped."""

SILENT_SECONDS = LOOK_SECONDS / 2
"""A look in vain that took longer met a server that does not answer, a shorter one a refusal."""

CLOSE_SECONDS = 3.0
"""How long the servers may take to close their connections at the end; they do so at the same time."""

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

    def __init__(self, settings: DatabaseSettings, server: Server, memory: Memory, log: Log, concurrent: int) -> None:
        """`concurrent`: requests at a time where `settings` does not say."""
        self.id = settings.id
        self.settings = settings
        self.server = server
        self.engine: Engine = server.engine
        self.disabled_actions = frozenset(settings.disabled_actions)
        self.description: Description | None = None
        """As last seen; None until the server was first reached."""
        self.up: bool | None = None
        """None until it was first looked at."""
        self.down_reason: str | None = None
        """Why the server counts as stopped, for people."""
        self.silent = False
        """Whether it was asked and did not answer, which takes whoever asks a long time, unlike a refusal."""
        concurrent = settings.concurrent or concurrent
        self._reads, self._changes = (Admission(concurrent, lambda: self.silent) for _ in range(2))
        self._host = ThreadPoolExecutor(1, "host")
        self._memory = memory
        self._log = log
        self._seen_at = -FRESH_SECONDS
        self._looking: asyncio.Task[None] | None = None
        self._put_back_at: datetime | None = None
        """The `started_at` after which the server got back what it forgets."""
        self._put_back_problem: str | None = None
        self._identity: Identity | None = None
        self._identifying = asyncio.Lock()

    async def look(self) -> None:
        """Describe the server anew unless that was done in the last seconds; those who ask at once share one look."""
        if self._looking is None or self._looking.done():
            if time.monotonic() - self._seen_at < FRESH_SECONDS:
                return
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)

    def admitted(self, effect: Effect) -> AbstractContextManager[None]:
        """Count a request that goes to the server as long as it is at work.

        Raises: Overloaded, when it is entered
        """
        return (self._reads if effect is Effect.READ else self._changes).admitted()

    async def on_host(self, read: Callable[[], T]) -> T:
        """Let a thread read what the host has of it, a log or a disk: one that stands still keeps no other thread busy.

        Raises: whatever `read` raises
        """
        return await asyncio.get_running_loop().run_in_executor(self._host, read)

    def forget(self) -> None:
        """Let the next look be a new one: something was changed on the server that it shows."""
        self._seen_at = -FRESH_SECONDS

    async def watch(self) -> None:
        """Look at the server for ever, so that a restart is noticed and `up` is known without asking."""
        while True:
            await self.look()
            await asyncio.sleep(FRESH_SECONDS)

    async def identity(self) -> Identity:
        """Give what the configuration says, else what was found once on the server.

        An engine that was never reached is asked again later: a guess must not become the truth for good.
        """
        async with self._identifying:
            self._identity = self._identity or await self._find_identity()
        return self._identity or Identity(
            resource_id=self.settings.resource_id or self.id, created_at=self.settings.created_at
        )

    def stop_looking(self) -> list[asyncio.Task[None]]:
        """Cancel a look under way and give its task."""
        if self._looking is None:
            return []
        self._looking.cancel()
        return [self._looking]

    async def _find_identity(self) -> Identity | None:
        resource_id, created_at = self.settings.resource_id, self.settings.created_at
        if resource_id is not None and created_at is not None:
            return Identity(resource_id=resource_id, created_at=created_at)
        found = self.description
        known: dict[str, str] | None = None
        try:
            known = await self._memory.recall("identity")
            if known is None and found is not None:
                known = _identity_of(found, self.id)
                await self._memory.remember("identity", known)
        except Precondition as problem:
            # A folder that cannot be written is no reason to show nothing. What an engine knows of itself stays the
            # same anyway; only the others get another `created_at` with the next start.
            self._log.warning("identity_not_kept", database=self.id, reason=problem.message)
            known = known or (_identity_of(found, self.id) if found else None)
        if known is None:
            return None
        return Identity(
            resource_id=resource_id or known["resource_id"],
            created_at=created_at or datetime.fromisoformat(known["created_at"]),
        )

    async def _look(self) -> None:
        began = time.monotonic()
        description = None
        try:
            async with _within_a_look():
                description = await self.server.describe()
        except (EngineError, TimeoutError) as problem:
            self._saw(False, _reason(problem))
        except Exception:  # noqa: BLE001 - the watch must outlive a bug, which is logged
            self._log.exception("bug", database=self.id)
            self._saw(False, "The engine's answer could not be read: dbvalet's log says why.")
        else:
            self.description = description
            self._saw(True, None)
        self.silent = not self.up and time.monotonic() - began >= SILENT_SECONDS
        if description is not None:
            await self._put_back(description)
        self._seen_at = began

    def _saw(self, up: bool, reason: str | None) -> None:
        if up != self.up:
            self._log.info("engine_up" if up else "engine_down", database=self.id, reason=reason)
        self.up = up
        self.down_reason = reason

    async def _put_back(self, description: Description) -> None:
        """Let the server have back what it forgot in a restart; tried again at the next look if that fails."""
        if self._put_back_at is not None and abs(description.started_at - self._put_back_at) <= CLOCK_TOLERANCE:
            return
        problem: str | None = None
        try:
            async with _within_a_look():
                await self.server.restarted(description)
            self._put_back_at = description.started_at
        except (EngineError, TimeoutError) as refused:
            problem = _reason(refused)
        except Exception:  # noqa: BLE001 - as in a look
            self._log.exception("bug", database=self.id)
        if problem is not None and problem != self._put_back_problem:
            self._log.warning("not_put_back", database=self.id, reason=problem)
        self._put_back_problem = problem


@asynccontextmanager
async def _within_a_look() -> AsyncGenerator[None]:
    with deadline.within(LOOK_SECONDS):
        async with asyncio.timeout(LOOK_SECONDS + deadline.GRACE):
            yield


def _reason(problem: EngineError | TimeoutError) -> str:
    if isinstance(problem, EngineError):
        return problem.message
    return f"{deadline.awaited(problem).capitalize()} does not answer."


def _identity_of(found: Description, database_id: str) -> dict[str, str]:
    created = found.created_at or datetime.now(UTC).replace(microsecond=0)
    return {"resource_id": found.resource_id or database_id, "created_at": created.isoformat()}


class Databases:
    """Every declared database."""

    def __init__(self, databases: Iterable[Database], log: Log) -> None:
        self._by_id = {database.id: database for database in databases}
        self._log = log
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
        """Stop watching and close every connection; a server that hangs is left after `CLOSE_SECONDS`."""
        looking = [task for database in self for task in database.stop_looking()]
        for watcher in self._watchers:
            watcher.cancel()
        closing = {asyncio.create_task(database.server.close()): database for database in self}
        _, hanging = await asyncio.wait([*self._watchers, *looking, *closing], timeout=CLOSE_SECONDS)
        for task, database in closing.items():
            if task in hanging:
                task.cancel()
                self._log.warning("not_closed", database=database.id, reason="The engine does not answer.")
            elif not task.cancelled() and task.exception() is not None:
                self._log.warning("not_closed", database=database.id, reason=str(task.exception()))

    def __iter__(self) -> Iterator[Database]:
        return iter(self._by_id.values())


def declare(settings: Settings, engines: Mapping[str, Engine], state: State, log: Log) -> Databases:
    """Make the databases of a configuration; nothing is connected yet.

    Raises: SettingsError
    """
    found: list[Database] = []
    for number, each in enumerate(settings.all_databases()):
        key = settings.key_of_url(number)
        url = each.address().get_secret_value()
        engine = engine_for(url.partition("://")[0], engines)
        if engine is None:
            schemes = ", ".join(f"{scheme}://" for engine in engines.values() for scheme in engine.schemes)
            raise SettingsError(key, f"must begin with one of {schemes}")
        memory = state.memory_of(each.id)
        try:
            # An engine too may find a mistake in the URL: a TLS option that it does not know, say.
            server = engine.connect(parse_address(url, engine.default_port), memory)
        except ValueError as problem:
            raise SettingsError(key, str(problem)) from None
        if (shown := each.for_applications()) is not None:
            _check_shown(shown.get_secret_value(), engine, f"databases.{number}.application_url")
        unknown = [name for name in each.disabled_actions if name not in engine.actions and name not in TASKS]
        if unknown:
            raise SettingsError(f"databases.{number}.disabled_actions", f"{engine.title} has no action {unknown[0]}")
        found.append(Database(each, server, memory, log, settings.limits.concurrent))
    introduce(found)
    return Databases(found, log)


def _check_shown(url: str, engine: Engine, key: str) -> None:
    try:
        scheme = parse_address(url, engine.default_port).scheme
    except ValueError as problem:
        raise SettingsError(key, str(problem)) from None
    if scheme not in engine.schemes:
        raise SettingsError(key, f"must be the URL of a {engine.title}")
