"""The operations of backups: make one, bring one back, clean up after one that was cut off."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from agent.backups.archive import pack, stoppable, unpack
from agent.backups.storage import Check, Storage
from agent.databases import Database
from agent.errors import BackupNotFound, BackupUnfinished, Interrupted, LeftBehind
from agent.log import Log
from agent.operations.kind import Run
from agent.pitr.clusters import Clusters
from agent.settings_backups import KeepSettings
from agent.state.state import State
from agent.tasks import CREATE_BACKUP, RESTORE_BACKUP
from engines.backup import MANIFEST, Backups, Progress
from engines.errors import EngineError, EngineUnavailable, Precondition

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agent.backups.record import Backup

CLEAN_UP_SECONDS = 20.0
"""How long cleaning up after a crash may take before it is put off: an operation must end, and soon."""

READY_SECONDS = 15.0
"""How long an engine may take to say whether it is ready for backups."""


def offered(database: Database) -> Backups:
    """Give what makes and restores the backups of a database.

    Raises: Precondition, when its engine has no such thing
    """
    backups = database.engine.backups_of(database.server)
    if backups is None:
        raise Precondition(f"There are no backups of {database.engine.title} here.")
    return backups


async def ready(database: Database) -> Backups:
    """Give what makes and restores the backups of a database, once it is ready to.

    Raises: Precondition, which says what is missing and how to get it; EngineUnavailable
    """
    backups = offered(database)
    try:
        async with asyncio.timeout(READY_SECONDS):
            missing = await backups.missing()
    except TimeoutError:
        raise EngineUnavailable("The engine does not say whether it is ready for backups.") from None
    if missing:
        raise Precondition(" ".join(missing))
    return backups


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
        await asyncio.to_thread(_make_empty, folder)
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def remove(self, operation_id: str) -> None:
        """Remove what an operation that was cut off has left."""
        await asyncio.to_thread(shutil.rmtree, self._place / operation_id, ignore_errors=True)


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(0o700, parents=True, exist_ok=True)
    folder.mkdir(0o700)


class MakeBackup:
    """Dump, pack, check, keep; then remove what is no longer to be kept."""

    type = "backup"
    task = CREATE_BACKUP

    def __init__(
        self, state: State, storage: Storage, spool: Spool, keep: KeepSettings, *, clusters: Clusters, log: Log
    ) -> None:
        self._state = state
        self._storage = storage
        self._spool = spool
        self._keep = keep
        self._clusters = clusters
        self._log = log

    async def run(self, run: Run) -> list[str]:
        """Make a backup; when that fails or is cancelled nothing of it is kept.

        Raises: Precondition, EngineError, OSError
        """
        from agent.backups import record

        backup = await _backup_of(self._state, run)
        backups = await ready(run.database)
        async with self._spool.folder(run.operation.id) as folder:
            await backups.clean_up()
            manifest = await backups.dump(folder, _part(run, 0, 70))
            packing = _part(run, 70, 95)
            written = await stoppable(
                lambda check: self._storage.write(
                    backup.place,
                    lambda target: pack(folder, target, lambda share: packing(100 * share, "packing the dump")),
                    check,
                )
            )
            as_json = await asyncio.to_thread((folder / MANIFEST).read_bytes)

        def work(connection: Connection) -> None:
            record.done(
                connection,
                backup.id,
                size=written.size,
                sha256=written.sha256,
                manifest=orjson.dumps(orjson.loads(as_json)),
                now=self._state.now(connection),
            )

        run.progress(95, "writing it down")
        await self._state.run(work)
        run.progress(97, "removing what is no longer to be kept")
        notes = await self._thin_out(run.database.id)
        return [*manifest.notes, *notes, *await self._back_up_cluster(run)]

    async def recover(self, run: Run) -> list[str]:
        """Find a backup done, or remove what there is of it.

        Raises: Interrupted
        """
        backup = await _backup_of(self._state, run)
        await self._spool.remove(run.operation.id)
        if backup.is_done:
            return ["dbvalet ended just after this backup was done."]
        await asyncio.to_thread(self._storage.remove, backup.place)
        raise Interrupted(
            "dbvalet ended in the middle of this backup: nothing of it is kept. Older backups are as they were."
        )

    async def _back_up_cluster(self, run: Run) -> list[str]:
        """Make the backup that point-in-time recovery begins with, where that is set up; a failure is a note."""
        if not self._clusters.has(run.database):
            return []
        try:
            await self._clusters.of(run.database).full_backup(_part(run, 97, 99))
        except EngineError as failed:
            return [f"The backup of the whole server, for going back to an instant, failed: {failed.message}"]
        return ["A backup of the whole server was made too, for going back to an instant."]

    async def _thin_out(self, database_id: str) -> list[str]:
        """Remove the archives that are too many or too old, but never the last good one; a failure is a note."""
        from agent.backups import record

        def look(connection: Connection) -> list[Backup]:
            return too_many(record.newest(connection, database_id), self._keep, self._state.now(connection))

        notes: list[str] = []
        for each in await self._state.run(look):
            try:
                await asyncio.to_thread(self._storage.remove, each.place)
            except OSError as problem:
                notes.append(f"The older backup {each.name} could not be removed: {problem.strerror or problem}.")
                continue
            await self._state.run(lambda connection, each=each: record.remove(connection, each.id))
            self._log.info("backup_expired", backup=each.id, name=each.name, database=database_id)
        return notes


class RestoreBackup:
    """Fetch, unpack, check, then let the engine bring it back."""

    type = "backup_restore"
    task = RESTORE_BACKUP

    def __init__(self, state: State, storage: Storage, spool: Spool) -> None:
        self._state = state
        self._storage = storage
        self._spool = spool

    async def run(self, run: Run) -> list[str]:
        """Restore a backup; when that fails or is cancelled the data of before stays.

        Raises: Precondition, BackupNotFound, BackupUnfinished, LeftBehind, EngineError, OSError
        """
        backup = await _backup_of(self._state, run)
        if not backup.is_done or backup.size is None or backup.sha256 is None:
            raise BackupUnfinished
        size, digest = backup.size, backup.sha256
        backups = await ready(run.database)
        async with self._spool.folder(run.operation.id) as folder:
            unpacking = _part(run, 0, 30)

            def fetch(check: Check) -> None:
                with self._storage.open(backup.place) as source:
                    unpack(
                        source,
                        folder,
                        size=size,
                        sha256_hex=digest,
                        told=lambda share: unpacking(100 * share, "fetching and unpacking the archive"),
                        check=check,
                    )

            await stoppable(fetch)
            run.progress(30, "checking the dump")
            await backups.verify(folder)
            await backups.clean_up()
            try:
                return await backups.restore(folder, _part(run, 35, 99))
            except BaseException:
                run.progress(run.percent, "undoing it")
                await _undo(backups)
                raise

    async def recover(self, run: Run) -> list[str]:
        """Finish or undo a restore that was cut off.

        Raises: Interrupted, LeftBehind
        """
        await self._spool.remove(run.operation.id)
        await _undo(offered(run.database))
        raise Interrupted(
            "dbvalet ended in the middle of this restore: the database holds the data of before or that of the backup,"
            " whole. Look which, and restore again if need be."
        )


class CleanUp:
    """Finish or undo what an interrupted restore left on a server that could not be reached then."""

    type = "clean_up"
    task = RESTORE_BACKUP

    async def run(self, run: Run) -> list[str]:
        """Clean up.

        Raises: LeftBehind
        """
        run.progress(0, "cleaning up after an interrupted restore")
        await _undo(offered(run.database))
        return []

    recover = run


async def _undo(backups: Backups) -> None:
    try:
        async with asyncio.timeout(CLEAN_UP_SECONDS):
            await backups.clean_up()
    except (EngineError, TimeoutError, OSError) as problem:
        reason = str(problem) or "the engine does not answer"
        raise LeftBehind(
            f"It was cut off, and what it had begun cannot be undone yet ({reason}):"
            " that is done as soon as the engine can be reached."
        ) from problem


async def _backup_of(state: State, run: Run) -> Backup:
    from agent.backups import record

    found = await state.run(lambda connection: record.find(connection, str(run.operation.params["backup_id"])))
    if found is None or found.database_id != run.database.id:
        raise BackupNotFound
    return found


_FAILED = ("error", "cancelled")


def _part(run: Run, begin: float, end: float) -> Progress:
    """Tell the progress of a part as that of the whole."""
    return lambda percent, words: run.progress(begin + (end - begin) * percent / 100, words)


def too_many(newest_first: list[Backup], keep: KeepSettings, now: datetime) -> list[Backup]:
    """Choose the done ones that are too many or too old, and as many failed ones beyond the count."""
    done = [each for each in newest_first if each.is_done]
    failed = [each for each in newest_first if each.status in _FAILED]
    too_many = done[keep.count :] + failed[keep.count :]
    if keep.days is not None:
        oldest = now - timedelta(days=keep.days)
        too_many += [each for each in done[1 : keep.count] if each.created_at < oldest]
    return too_many
