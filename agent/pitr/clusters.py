"""The clusters that can be brought back to an instant: the recovery of each, and what is remembered of its past."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.databases import Database
from agent.errors import NotSupported, SettingsError
from agent.log import Log
from agent.settings import Settings
from agent.state.state import State
from engines.errors import BackupFailed, EngineError, EngineUnavailable, Precondition
from engines.recovery import Marker, Recovery, Standing, Timeline, Window

if TYPE_CHECKING:
    from sqlalchemy import Connection

MARK_SECONDS = 60.0
"""How often a marker is committed on a cluster that has changed: so old may the latest instant be once it is down."""

MOST_WAITING = 60
"""Markers that wait for the archive; with so many it takes nothing, and more would not help."""

ASK_SECONDS = 20.0
"""How long the repository and the server may take for what a request asks: clients give up at 30."""


class Clusters:
    """The recovery of every database that has one."""

    def __init__(self, settings: Settings, databases: Iterable[Database], state: State, log: Log) -> None:
        """Raises: SettingsError, when `pitr` stands at a database whose engine has no such thing."""
        self._state = state
        self._log = log
        self._recoveries: dict[str, Recovery] = {}
        self._databases: list[Database] = []
        self.first_backups: dict[str, datetime] = {}
        """When the oldest physical backup of a database ended, as last seen."""
        self._watchers: list[asyncio.Task[None]] = []
        for number, database in enumerate(databases):
            chosen = database.settings.pitr
            if chosen is None:
                continue
            recovery = database.engine.recovery_of(database.server, chosen.recovery_settings())
            if recovery is None:
                key = settings.key_of_url(number).rpartition(".")[0]
                raise SettingsError(f"{key}.pitr", f"{database.engine.title} has no point-in-time recovery")
            self._recoveries[database.id] = recovery
            self._databases.append(database)

    def has(self, database: Database) -> bool:
        """Tell whether recovery is set up for a database."""
        return database.id in self._recoveries

    def of(self, database: Database) -> Recovery:
        """Give the recovery of a database.

        Raises: NotSupported, when its engine has none; Precondition, when it is not set up
        """
        recovery = self._recoveries.get(database.id)
        if recovery is not None:
            return recovery
        if database.engine.recovery is None:
            raise NotSupported(
                f"{database.engine.title} cannot be brought back to an instant here: restore a backup instead."
            )
        raise Precondition(
            "Point-in-time recovery is not set up for this database: it needs an archive of pgBackRest, and `pitr` with"
            " `stanza` and `control` at this database in dbvalet's configuration."
        )

    async def ready(self, database: Database) -> Recovery:
        """Give the recovery of a database once it is ready.

        Raises: NotSupported; Precondition, which says what is missing and how to get it; EngineUnavailable
        """
        recovery = self.of(database)
        missing = await recovery.missing()
        if missing:
            raise Precondition(" ".join(missing))
        return recovery

    async def window(self, database: Database) -> Window:
        """Tell what can be recovered now.

        Raises: NotSupported, EngineUnavailable; Precondition, also when the repository cannot be used
        """
        recovery = self.of(database)
        async with _asking():
            try:
                _, lines = await self.learn(database)
            except EngineUnavailable:
                lines = await self._known(database)  # it is down: what was learnt before still holds
            return await recovery.window(lines, await self.markers(database))

    async def check(self, database: Database, at: datetime) -> None:
        """Make sure that an instant can be recovered, and touch nothing.

        Raises: OutsideWindow, NotSupported, EngineUnavailable; Precondition, also when the repository cannot be used
        """
        async with _asking():
            recovery = await self.ready(database)
            standing, lines = await self.learn(database)
            await recovery.choose(at, lines, await self.markers(database))
            await recovery.choose_undo(standing.timeline, lines)

    async def learn(self, database: Database) -> tuple[Standing, list[Timeline]]:
        """Look which timeline the cluster lives on, write down what is new, and give all that are known.

        Raises: Precondition, when the state cannot be used; EngineUnavailable, BackupFailed
        """
        from agent.pitr import record

        recovery = self.of(database)
        standing = await recovery.standing()
        system = standing.system_identifier
        known = await self._state.run(lambda connection: record.timelines_of(connection, database.id, system))
        live = next((each for each in known if each.number == standing.timeline), None)
        if live is not None and live.ended_at is None and _has_its_fork(live):
            return standing, known
        if live is None:
            found = await recovery.fork_of(standing)
        else:
            found = await _completed(recovery, standing, live)
        if not known:
            found = replace(found, began_at=_first_began(standing, found))
        left = [each for each in known if each.ended_at is None and each.number != standing.timeline]
        last_marks = {each.timeline: each.committed_at for each in await self.markers(database)}

        def work(connection: Connection) -> list[Timeline]:
            for each in left:  # somebody else promoted it; when it was left is not known but for the last marker
                ended = max(last_marks.get(each.number, each.began_at), each.began_at)
                record.end_timeline(connection, database.id, system, each.number, ended)
            record.keep_timeline(connection, database.id, system, found)
            return record.timelines_of(connection, database.id, system)

        return standing, await self._state.run(work)

    async def markers(self, database: Database) -> list[Marker]:
        """List the markers of a database.

        Raises: Precondition, when the state cannot be read
        """
        from agent.pitr import record

        return await self._state.run(lambda connection: record.markers_of(connection, database.id))

    async def _known(self, database: Database) -> list[Timeline]:
        from agent.pitr import record

        def work(connection: Connection) -> list[Timeline]:
            system = record.newest_system(connection, database.id)
            return record.timelines_of(connection, database.id, system) if system else []

        return await self._state.run(work)

    def start(self) -> None:
        """Mark the clusters from now on."""
        self._watchers = [asyncio.create_task(self._watch(database)) for database in self._databases]

    def close(self) -> None:
        """Stop that."""
        for watcher in self._watchers:
            watcher.cancel()

    async def _watch(self, database: Database) -> None:
        while True:
            try:
                if database.up:
                    await self.look(database)
            except (EngineError, OSError) as problem:
                self._log.warning("not_marked", database=database.id, reason=str(problem))
            except Exception:  # noqa: BLE001 - the watch must outlive a bug, which is logged
                self._log.exception("bug")
            await asyncio.sleep(MARK_SECONDS)

    async def look(self, database: Database) -> None:
        """Learn the timeline, see which markers the archive has by now, and commit another one if anything changed.

        Raises: Precondition, EngineUnavailable, BackupFailed
        """
        from agent.pitr import record

        recovery = self.of(database)
        await self.learn(database)
        seen = await recovery.archived(await self.markers(database))
        if len([each for each in seen if not each.archived]) < MOST_WAITING:
            made = await recovery.commit(seen[-1] if seen else None)
            seen += [made] if made else []
        await self._state.run(lambda connection: record.keep_markers(connection, database.id, seen))
        sets = [each.stopped_at for each in await recovery.sets() if each.usable]
        if sets:
            self.first_backups[database.id] = min(sets)


@asynccontextmanager
async def _asking() -> AsyncGenerator[None]:
    """Bound what a request asks of server and repository; one that fails is something to set right, no bug."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            yield
    except TimeoutError:
        raise EngineUnavailable(f"Server and archive did not answer within {ASK_SECONDS:g} s.") from None
    except BackupFailed as problem:
        raise Precondition(f"The repository cannot be used: {problem.message}") from problem


def _has_its_fork(timeline: Timeline) -> bool:
    return timeline.number == 1 or timeline.parent is not None


async def _completed(recovery: Recovery, standing: Standing, live: Timeline) -> Timeline:
    """Give a timeline that is known, and is lived on, with where it left its parent as soon as the archive tells that.

    Until then no set of its parent leads to it.
    """
    lived_on = replace(live, ended_at=None)
    if _has_its_fork(live):
        return lived_on
    try:
        fork = await recovery.fork_of(standing)
    except BackupFailed:
        return lived_on
    return replace(lived_on, parent=fork.parent, forked_at_lsn=fork.forked_at_lsn)


def _first_began(standing: Standing, found: Timeline) -> datetime:
    """Tell since when the first timeline that was seen is the live one.

    A cluster on its first timeline was never on another: it began when the cluster was made, which the upper half of
    its identifier holds in seconds. When a later one began, and what was before, is not known.
    """
    if found.number > 1 or not standing.system_identifier.isdigit():
        return found.began_at
    return datetime.fromtimestamp(int(standing.system_identifier) >> 32, UTC)
