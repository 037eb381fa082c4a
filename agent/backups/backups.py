"""The backups of every database: begin, find, delete, restore and read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING

from agent.audit.journal import Journal
from agent.audit.line import Change
from agent.backups.keep import Keep
from agent.backups.kinds import SAFETY, CleanUp, MakeBackup, RestoreBackup, Spool
from agent.backups.reading import Readers
from agent.backups.removal import Removals
from agent.backups.storage import Storage
from agent.backups.target import make_room, require_ready_at
from agent.backups.trial import problem_of
from agent.databases import Database
from agent.errors import (
    AnswerUnknown,
    BackupNotFound,
    BackupUnfinished,
    OperationOpen,
    RestorationNotFound,
    StorageFailed,
)
from agent.log import Log
from agent.once import not_again
from agent.operations.kind import LOGICAL
from agent.operations.outcome import told
from agent.operations.runner import Begin, Operations
from agent.pitr.clusters import Clusters
from agent.settings import Settings
from agent.state.state import State
from engines import deadline

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agent.backups.record import Backup, Method
    from agent.operations.record import Operation


class DatabaseBackups:
    """What the API can do with backups."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        operations: Operations,
        clusters: Clusters,
        *,
        journal: Journal,
        log: Log,
    ) -> None:
        """Give `operations` the kinds of them that backups need."""
        chosen = settings.backups
        self._state = state
        self._operations = operations
        self.storage = Storage(chosen.storage or str(settings.beside_state("dbvalet-backups")), chosen.options)
        self._readers = Readers()
        self._removals = Removals(state, self.storage, journal, log)
        self._spool = spool = Spool(chosen.spool or settings.beside_state("dbvalet-spool"))
        operations.undeclared.remove_files = spool.remove
        keep = Keep(state, self.storage, chosen.keep, journal, log)
        make = MakeBackup(state, self.storage, spool, keep, clusters)
        for kind in (make, RestoreBackup(state, self.storage, spool, make, keep), CleanUp()):
            operations.kinds[kind.type] = kind

    async def newest(self, database_id: str) -> list[Backup]:
        """List the backups of a database, newest first.

        Raises: Precondition, when the state cannot be read
        """
        if not await self._state.holds_work():
            return []
        from agent.backups import record

        return await self._state.run(lambda connection: record.newest(connection, database_id))

    async def find(self, backup_id: str) -> Backup:
        """Find a backup.

        Raises: BackupNotFound; Precondition, when the state cannot be read
        """
        from agent.backups import record

        found = None
        if await self._state.holds_work():
            found = await self._state.run(lambda connection: record.find(connection, backup_id))
        if found is None:
            raise BackupNotFound
        return found

    async def begin(
        self, database: Database, started_by: str, logical_database: str | None = None, *, method: Method = "manual"
    ) -> Backup:
        """Begin a backup, of the deployment's own logical database unless another is named.

        Raises: Precondition, EngineUnavailable, OperationOpen; AnswerUnknown, when an earlier request with the key of
        this one made one that is gone
        """
        before = await self._operations.begun_before(database.id)
        if before is not None:
            try:
                return await self.find(before.params["backup_id"])
            except BackupNotFound:
                raise AnswerUnknown(not_again("The backup that it made is gone")) from None
        await require_ready_at(database, logical_database)
        backup_id = token_hex(12)

        def rows(connection: Connection, operation: Operation) -> None:
            add_backup(connection, operation, backup_id, method, logical_database)

        params = {"backup_id": backup_id, **_about(logical_database)}
        await self._operations.begin(database, "backup", params, started_by, rows)
        return await self.find(backup_id)

    async def require_possible(self, database: Database, logical_database: str | None = None) -> None:
        """Refuse what `begin` would refuse, or where what it begins could not write; nothing is left of that.

        Raises: Precondition, EngineUnavailable, OperationOpen
        """
        from engines.errors import Precondition

        await require_ready_at(database, logical_database)
        with deadline.waiting_for("the state"):
            await self._operations.require_none(database.id)
        try:
            await self.storage.in_time(self._spool.try_to_write)
            await self.storage.in_time(self.storage.try_to_write, database.id)
        except OSError as problem:
            raise Precondition(told(problem)) from problem

    async def unwritable(self, database_id: str) -> dict[str, str]:
        """Tell what of `backups` in the configuration cannot be written to, and why; nothing is left of the tries."""
        spool, storage = await asyncio.gather(
            problem_of(self._spool.try_to_write), problem_of(lambda: self.storage.try_to_write(database_id))
        )
        return {place: why for place, why in (("spool", spool), ("storage", storage)) if why is not None}

    async def restore(self, database: Database, backup: Backup, started_by: str, *, safely: bool = False) -> Operation:
        """Begin to restore a backup of this database; `safely`: what it replaces is backed up first.

        Raises: BackupUnfinished, ArchiveNotFound, StorageFailed, Precondition, EngineUnavailable, OperationOpen
        """
        if not backup.is_done:
            raise BackupUnfinished
        await self._require_archive(backup)
        if backup.logical_database is not None:
            await make_room(database, backup.logical_database)
        await require_ready_at(database, backup.logical_database)
        params = {"backup_id": backup.id, **_about(backup.logical_database)}
        if not safely:
            return await self._operations.begin(database, "backup_restore", params, started_by)
        safety_id = token_hex(12)

        def rows(connection: Connection, operation: Operation) -> None:
            add_backup(connection, operation, safety_id, "safety", backup.logical_database)

        return await self._operations.begin(database, "backup_restore", {**params, SAFETY: safety_id}, started_by, rows)

    async def restoration(self, database_id: str, restoration_id: str) -> Operation:
        """Find the restoration of a backup.

        Raises: RestorationNotFound; Precondition, when the state cannot be read
        """
        from agent.errors import OperationNotFound

        try:
            operation = await self._operations.find(database_id, restoration_id)
        except OperationNotFound:
            raise RestorationNotFound from None
        if operation.type != "backup_restore":
            raise RestorationNotFound
        return operation

    async def delete(self, backup: Backup, change: Change, *, begin: Begin) -> None:
        """Delete a backup and its archive, for the request that is to have `change` as its lines in the audit.

        Raises: OperationOpen, when it is being made, restored or deleted; StorageFailed; DeadlineExceeded, when the
        storage has not answered yet; Precondition, when the state cannot be written; whatever `begin` raises
        """
        current = await self._operations.current(backup.database_id)
        if current is not None and backup.id in (current.params.get("backup_id"), current.params.get(SAFETY)):
            raise OperationOpen(f"This backup is in use: {current.type} {current.id}.")
        await self._removals.remove(backup, change, begin=begin)

    async def close(self) -> None:
        """Stop waiting for deletions that the storage has not answered."""
        await self._removals.close()

    async def require_download(self, backup: Backup) -> None:
        """Check that there is something to download.

        Raises: BackupUnfinished, ArchiveNotFound, StorageFailed
        """
        if not backup.is_done:
            raise BackupUnfinished
        await self._require_archive(backup)

    async def read(self, backup: Backup, first: int, length: int) -> AsyncGenerator[bytes]:
        """Give bytes of an archive, a block at a time.

        Raises: ArchiveNotFound, OSError
        """
        async with aclosing(self._readers.blocks(partial(self.storage.open, backup.place), first, length)) as blocks:
            async for block in blocks:
                yield block

    async def _require_archive(self, backup: Backup) -> None:
        """Raises: ArchiveNotFound, StorageFailed"""
        try:
            await self.storage.in_time(self.storage.size, backup.place)
        except OSError as problem:
            raise StorageFailed(f"The archive cannot be read: {problem.strerror or problem}.") from problem


def _about(logical_database: str | None) -> dict[str, str]:
    return {} if logical_database is None else {LOGICAL: logical_database}


def add_backup(
    connection: Connection, operation: Operation, backup_id: str, method: Method, logical_database: str | None = None
) -> None:
    """Add the row of the backup that an operation is going to make, in the operation's own transaction."""
    from agent.backups import record

    record.add(
        connection,
        backup_id=backup_id,
        database_id=operation.database_id,
        operation_id=operation.id,
        method=method,
        created_at=operation.created_at,
        logical_database=logical_database,
    )
