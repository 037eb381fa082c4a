"""The removal of a backup by a request: what a thread has begun is followed to its end, however late."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.audit.journal import Journal
from agent.audit.line import Change
from agent.backups import storage as storage_module
from agent.backups.storage import Storage
from agent.errors import OperationOpen, StateUnavailable, StorageFailed
from agent.log import Log
from agent.operations.runner import Begin
from agent.state.state import State
from engines.errors import DeadlineExceeded

if TYPE_CHECKING:
    from agent.backups.record import Backup

NOT_BEGUN = "The archive cannot be removed: the storage does not answer in time. Nothing was begun."

NOT_KNOWN = (
    "The storage has not answered in time, and whether the archive was removed is not known yet. "
    "Once it was, the backup is not in the list any more; otherwise delete it again."
)


class Removals:
    """Removes archives and their backups, each by one request at a time."""

    def __init__(self, state: State, storage: Storage, journal: Journal, log: Log) -> None:
        self._state = state
        self._storage = storage
        self._journal = journal
        self._log = log
        self._asked: set[str] = set()
        """Ids of backups whose removal a request waits for."""
        self._late: dict[str, asyncio.Task[None]] = {}
        """Removals that no request waits for any more."""

    async def remove(self, backup: Backup, change: Change, *, begin: Begin) -> None:
        """Remove a backup and its archive.

        Raises: OperationOpen, when it is being removed already; StorageFailed; DeadlineExceeded, when the storage has
        not answered yet; Precondition, when the state cannot be written; whatever `begin` raises
        """
        if backup.id in self._asked or backup.id in self._late:
            raise OperationOpen("This backup is being deleted, and its storage has not answered yet.")
        self._asked.add(backup.id)
        try:
            await begin()
            await self._remove_in_time(backup, change)
        finally:
            self._asked.discard(backup.id)

    async def _remove_in_time(self, backup: Backup, change: Change) -> None:
        from agent.backups import record

        work = self._storage.begin(self._storage.remove, backup.place)
        removed = asyncio.wrap_future(work)
        try:
            await asyncio.wait({removed}, timeout=storage_module.ANSWER_SECONDS)
        except asyncio.CancelledError:
            # What no thread has begun is not done any more.
            if not work.cancel():
                self._follow(backup, change, removed)
            raise
        if not removed.done():
            if work.cancel():
                raise StorageFailed(NOT_BEGUN)
            self._follow(backup, change, removed)
            raise DeadlineExceeded(NOT_KNOWN)
        try:
            removed.result()
        except OSError as problem:
            raise StorageFailed(f"The archive cannot be removed: {problem.strerror or problem}.") from problem
        await self._state.run(lambda connection: record.remove(connection, backup.id))

    def _follow(self, backup: Backup, change: Change, removed: asyncio.Future[None]) -> None:
        self._late[backup.id] = task = asyncio.create_task(self._end(backup, replace(change, also=None), removed))
        task.add_done_callback(lambda _: self._late.pop(backup.id))

    async def _end(self, backup: Backup, change: Change, removed: asyncio.Future[None]) -> None:
        """Write down how a removal ended whose request has its answer: a line without a status, as of an operation."""
        from agent.backups import record

        about = {"who": change.who, "backup": backup.id, "name": backup.name, "database": backup.database_id}
        with suppress(StateUnavailable):  # which is in the log
            try:
                await removed
            except OSError as problem:
                self._log.error("backup_not_deleted", **about, reason=problem.strerror or str(problem))
                await self._journal.end(change, None, "error")
            else:
                change.also = lambda connection: record.remove(connection, backup.id)
                await self._journal.end(change, None, "ok")
                self._log.info("backup_deleted", **about)

    async def close(self) -> None:
        """Give up what the storage has not answered yet: then its backup stays in the list, to be deleted again."""
        late = list(self._late.values())
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
