"""The operations of backups: make one, bring one back, clean up after one that was cut off."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from agent.backups.archive import pack, stoppable, unpack
from agent.backups.keep import Keep, day_of
from agent.backups.storage import Check, Storage, try_folder
from agent.backups.target import make_room, require_ready, target
from agent.errors import BackupNotFound, BackupUnfinished, Interrupted, LeftBehind
from agent.operations.kind import LOGICAL, Run
from agent.pitr.clusters import Clusters
from agent.state.state import State
from agent.tasks import CREATE_BACKUP, RESTORE_BACKUP
from engines.backup import MANIFEST, Backups, Progress
from engines.errors import EngineError
from engines.threads import in_own_thread

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agent.backups.record import Backup
    from engines.recovery import Recovery

PACKINGS = 4
"""How many dumps are packed at a time: schedules meet at midnight, and each keeps a core busy."""

CLEAN_UP_SECONDS = 20.0
"""How long cleaning up after a crash may take before it is put off: an operation must end, and soon."""


class Spool:
    """Where dumps stand while they are packed, unpacked and restored: a folder an operation."""

    def __init__(self, place: Path) -> None:
        self._place = place

    @asynccontextmanager
    async def folder(self, operation_id: str) -> AsyncGenerator[Path]:
        """Make an empty folder, and remove it with all that is in it.

        Raises: OSError
        """
        folder = self._place / operation_id
        await in_own_thread(_make_empty, folder)
        try:
            yield folder
        finally:
            await in_own_thread(shutil.rmtree, folder, ignore_errors=True)

    def try_to_write(self) -> None:
        """Make sure that a dump can stand here, and leave nothing. It blocks.

        Raises: OSError
        """
        try_folder(self._place)

    async def remove(self, operation_id: str) -> None:
        """Remove what an operation that was cut off has left."""
        await in_own_thread(shutil.rmtree, self._place / operation_id, ignore_errors=True)


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(0o700, parents=True, exist_ok=True)
    folder.mkdir(0o700)


class MakeBackup:
    """Dump, pack, check, keep; then remove what is no longer to be kept."""

    type = "backup"
    task = CREATE_BACKUP
    may_leave = False

    def __init__(self, state: State, storage: Storage, spool: Spool, keep: Keep, clusters: Clusters) -> None:
        self._state = state
        self._storage = storage
        self._spool = spool
        self._keep = keep
        self._clusters = clusters
        self._turns = asyncio.Semaphore(PACKINGS)

    async def run(self, run: Run) -> list[str]:
        """Make a backup; when that fails or is cancelled nothing of it is kept.

        Raises: Precondition, EngineError, OSError
        """
        backup = await _backup_of(self._state, run, "backup_id")
        notes = await self.make(run, backup, 97)
        run.progress(97, "removing what is no longer to be kept")
        notes += await self._keep.thin_out(run.operation)
        return notes if backup.logical_database else [*notes, *await self._back_up_cluster(run, backup)]

    async def make(self, run: Run, backup: Backup, until: float) -> list[str]:
        """Make a backup as the first part of an operation, up to so many percent of it.

        Raises: Precondition, EngineError, OSError; OperationLost, when another dbvalet has taken the operation over
        """
        from agent.backups import record

        dumped, packed = until * 70 / 97, until * 95 / 97
        async with (
            target(run.database, backup.logical_database) as backups,
            self._spool.folder(run.operation.id) as folder,
        ):
            await require_ready(backups)
            await backups.clean_up()
            manifest = await backups.dump(folder, part(run, 0, dumped))
            packing = part(run, dumped, packed)
            run.progress(dumped, "waiting for others to be packed")
            async with self._turns:
                written = await stoppable(
                    lambda check: self._storage.write(
                        backup.place,
                        lambda place: pack(folder, place, lambda done: packing(100 * done, "packing the dump")),
                        check,
                    )
                )
            as_json = await in_own_thread((folder / MANIFEST).read_bytes)

        def work(connection: Connection) -> None:
            record.done(
                connection,
                backup,
                run.operation.owner,
                size=written.size,
                sha256=written.sha256,
                manifest=orjson.dumps(orjson.loads(as_json)),
                now=self._state.now(connection),
            )

        run.progress(packed, "writing it down")
        await self._state.run(work)
        run.progress(until, "it is made")
        return [*manifest.notes]

    async def recover(self, run: Run) -> list[str]:
        """Find a backup done, or remove what there is of it.

        Raises: Interrupted
        """
        backup = await _backup_of(self._state, run, "backup_id")
        if await self.recovered(run, backup):
            return [f"{run.cut} just after this backup was done."]
        raise Interrupted(
            f"{run.cut} in the middle of this backup: nothing of it is kept. Older backups are as they were."
        )

    async def recovered(self, run: Run, backup: Backup) -> bool:
        """Find a backup done after a crash, or remove what there is of it; tell which."""
        await self._spool.remove(run.operation.id)
        if not backup.is_done:
            await in_own_thread(self._storage.remove, backup.place)
        return backup.is_done

    async def _back_up_cluster(self, run: Run, backup: Backup) -> list[str]:
        """Make the backup that point-in-time recovery begins with, where that is set up; a failure is a note.

        Each pushes out the oldest by the repository's own retention, and every instant with it that leads from there:
        so one a day is made, whoever asks for how many backups, and at however many hours.
        """
        if not self._clusters.has(run.database):
            return []
        recovery = self._clusters.of(run.database)
        try:
            newest = await self._newest_that_is_enough(recovery, backup)
            if newest is not None:
                return [f"No backup of the whole server was made: there is one of {newest:%Y-%m-%d %H:%M} UTC."]
            await recovery.full_backup(part(run, 97, 99))
        except EngineError as failed:
            return [f"The backup of the whole server, for going back to an instant, failed: {failed.message}"]
        return ["A backup of the whole server was made too, for going back to an instant."]

    async def _newest_that_is_enough(self, recovery: Recovery, backup: Backup) -> datetime | None:
        """Tell of when the newest one of the whole server is, where another one is not to be made.

        That of the schedule is made with the first backup of a day, or a later one of it if that failed: by 24 hours a
        day would be left out whenever one is done a little sooner than the day before. One of the timeline before does
        not count there, as the restore that ended that one may have gone back behind it.

        Raises: EngineError
        """
        sets = [each for each in await recovery.sets() if each.usable and each.kind == "full"]
        since = datetime.now(UTC) - timedelta(days=1)
        if backup.method == "periodic":
            live = (await recovery.standing()).timeline
            sets = [each for each in sets if each.timeline == live]
            since = await self._first_of_its_day(backup)
        return max((each.stopped_at for each in sets if each.stopped_at >= since), default=None)

    async def _first_of_its_day(self, backup: Backup) -> datetime:
        """Tell when the first periodic backup of the same day was begun, in whole seconds as sets are told of."""
        from agent.backups import record

        known = await self._state.run(lambda connection: record.newest(connection, backup.database_id))
        of_the_day = [each for each in known if each.method == "periodic" and day_of(each) == day_of(backup)]
        return min(each.created_at for each in [backup, *of_the_day]).replace(microsecond=0)


SAFETY = "safety_backup_id"
"""Among the params of a restore: the backup that it makes first of what it replaces."""


class RestoreBackup:
    """Back up what is there if that is wished; fetch, unpack, check, then let the engine bring it back."""

    type = "backup_restore"
    task = RESTORE_BACKUP
    may_leave = True

    def __init__(self, state: State, storage: Storage, spool: Spool, make: MakeBackup, keep: Keep) -> None:
        self._state = state
        self._storage = storage
        self._spool = spool
        self._make = make
        self._keep = keep

    async def run(self, run: Run) -> list[str]:
        """Restore a backup; when that fails or is cancelled the data of before stays.

        Raises: Precondition, BackupNotFound, BackupUnfinished, LeftBehind, EngineError, OSError
        """
        backup = await _backup_of(self._state, run, "backup_id")
        if not backup.is_done or backup.size is None or backup.sha256 is None:
            raise BackupUnfinished
        begin, notes = 0.0, list[str]()
        if SAFETY in run.operation.params:
            begin = 40.0
            safety = await _backup_of(self._state, run, SAFETY)
            # What is no longer to be kept goes afterwards: the backup that is to be brought back may be among it.
            await self._make.make(run, safety, begin)
            notes = [f"What it replaced is in the backup {safety.name} ({safety.id})."]
        if backup.logical_database is not None:
            await make_room(run.database, backup.logical_database)
        async with (
            target(run.database, backup.logical_database) as backups,
            self._spool.folder(run.operation.id) as folder,
        ):
            await require_ready(backups)
            await self._fetch(backup, folder, part(run, begin, begin + 0.3 * (100 - begin)))
            run.progress(begin + 0.3 * (100 - begin), "checking the dump")
            await backups.verify(folder)
            await backups.clean_up()
            try:
                notes += await backups.restore(folder, part(run, begin + 0.35 * (100 - begin), 99))
            except BaseException:
                if not run.lost:  # who takes it over undoes it, and may have begun the next one there since
                    run.progress(run.percent, "undoing it")
                    await _undo(backups)
                raise
        if SAFETY in run.operation.params:
            notes += await self._keep.thin_out(run.operation, spare=backup.id)
        return notes

    async def _fetch(self, backup: Backup, folder: Path, progress: Progress) -> None:
        def fetch(check: Check) -> None:
            with self._storage.open(backup.place) as source:
                unpack(
                    source,
                    folder,
                    size=backup.size or 0,
                    sha256_hex=backup.sha256 or "",
                    told=lambda share: progress(100 * share, "fetching and unpacking the archive"),
                    check=check,
                )

        await stoppable(fetch)

    async def recover(self, run: Run) -> list[str]:
        """Finish or undo a restore that was cut off.

        Raises: Interrupted, LeftBehind
        """
        await self._spool.remove(run.operation.id)
        if SAFETY in run.operation.params:
            await self._make.recovered(run, await _backup_of(self._state, run, SAFETY))
        async with target(run.database, run.operation.params.get(LOGICAL)) as backups:
            await _undo(backups)
        raise Interrupted(
            f"{run.cut} in the middle of this restore: the database holds the data of before or that of the backup,"
            " whole. Look which, and restore again if need be."
        )


class CleanUp:
    """Finish or undo what an interrupted restore left on a server that could not be reached then."""

    type = "clean_up"
    task = RESTORE_BACKUP
    may_leave = True

    async def run(self, run: Run) -> list[str]:
        """Clean up.

        Raises: LeftBehind
        """
        run.progress(0, "cleaning up after an interrupted restore")
        async with target(run.database, run.operation.params.get(LOGICAL)) as backups:
            # However long it takes: one that is stopped half-way may have to begin anew.
            await _undo(backups, at_once=False)
        return []

    recover = run


async def _undo(backups: Backups, *, at_once: bool = True) -> None:
    """Finish or undo what a restore has begun; `at_once`: within `CLEAN_UP_SECONDS`.

    Raises: LeftBehind, whatever the cause: what is left must not be forgotten
    """
    try:
        async with asyncio.timeout(CLEAN_UP_SECONDS if at_once else None):
            await backups.clean_up()
    except Exception as problem:  # a bug is in the log, by its cause
        reason = str(problem) or "the engine does not answer"
        raise LeftBehind(
            f"It was cut off, and what it had begun cannot be undone yet ({reason}):"
            " that is tried again, after pauses that grow, whenever the engine can be reached."
        ) from problem


async def _backup_of(state: State, run: Run, param: str) -> Backup:
    from agent.backups import record

    found = await state.run(lambda connection: record.find(connection, str(run.operation.params[param])))
    if found is None or found.database_id != run.database.id:
        raise BackupNotFound
    return found


def part(run: Run, begin: float, end: float) -> Progress:
    """Tell the progress of a part as that of the whole."""
    return lambda percent, words: run.progress(begin + (end - begin) * percent / 100, words)
