"""Which backups are kept, and the removal of those that are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from agent.audit.journal import Journal
from agent.audit.line import Change
from agent.backups.storage import Storage
from agent.errors import StateUnavailable
from agent.log import Log
from agent.settings_backups import KeepSettings
from agent.state.state import State
from agent.tasks import DELETE_BACKUP
from engines.threads import in_own_thread

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agent.backups.record import Backup
    from agent.operations.record import Operation

_FAILED = ("error", "cancelled")


class Keep:
    """Removes the archives that are too many or too old, but never the last good one."""

    def __init__(self, state: State, storage: Storage, chosen: KeepSettings, journal: Journal, log: Log) -> None:
        self._state = state
        self._storage = storage
        self._chosen = chosen
        self._journal = journal
        self._log = log

    async def thin_out(self, operation: Operation, *, spare: str | None = None) -> list[str]:
        """Remove, as a part of an operation, what is no longer to be kept of its database; a failure is a note.

        spare: a backup that stays whatever its age
        """
        from agent.backups import record

        def look(connection: Connection) -> list[Backup]:
            found: dict[str | None, list[Backup]] = {}
            for each in record.newest(connection, operation.database_id):
                found.setdefault(each.logical_database, []).append(each)
            now = self._state.now(connection)
            return [each for of_one in found.values() for each in too_many(of_one, self._chosen, now)]

        notes: list[str] = []
        for each in await self._state.run(look):
            if each.id == spare:
                continue
            try:
                await self._remove(each, _line_of(each, operation))
            except OSError as problem:
                notes.append(f"The older backup {each.name} could not be removed: {problem.strerror or problem}.")
            except StateUnavailable as problem:
                notes.append(f"The older backup {each.name} was to be removed. {problem.message}")
            else:
                self._log.info("backup_expired", backup=each.id, name=each.name, database=each.database_id)
        return notes

    async def _remove(self, backup: Backup, change: Change) -> None:
        """Remove a backup and its archive, with a line in the audit before and one after, as the route does.

        Raises: OSError; StateUnavailable, when that cannot be written down
        """
        from agent.backups import record

        await self._journal.begin(change)
        try:
            await in_own_thread(self._storage.remove, backup.place)
        except OSError:
            await self._journal.end(change, None, "error")
            raise
        change.also = lambda connection: record.remove(connection, backup.id)
        await self._journal.end(change, None, "ok")


def _line_of(backup: Backup, operation: Operation) -> Change:
    return Change(
        request_id=operation.id,
        who=operation.started_by,
        address=None,
        method="KEEP",
        path=f"/api/databases/{backup.database_id}/backups/{backup.id}",
        action=DELETE_BACKUP.name,
        effect=DELETE_BACKUP.effect,
        database=backup.database_id,
        params={"backup_id": backup.id, "name": backup.name},
    )


def too_many(newest_first: list[Backup], keep: KeepSettings, now: datetime) -> list[Backup]:
    """Choose of one logical database the done ones that are too many or too old, and as many failed ones.

    Too many are those of a kind, and of one token: to make backups takes less than to delete those of others. It takes
    no more to choose the hours of the schedule: the first of a day is pushed out by days alone, however many hours.
    """
    done = [each for each in newest_first if each.is_done]
    failed = [each for each in newest_first if each.status in _FAILED]
    of_days = _first_of_days(done, keep.count)
    too_many: list[Backup] = []
    for those in (done, failed):
        alike: Counter[tuple[str, str | None]] = Counter()
        for each in those:
            alike[each.method, each.started_by] += 1
            if alike[each.method, each.started_by] > keep.count and each.id not in of_days:
                too_many.append(each)
    if keep.days is not None:
        oldest = now - timedelta(days=keep.days)
        too_many += [each for each in done[1:] if each.created_at < oldest and each not in too_many]
    return too_many


def _first_of_days(newest_first: Iterable[Backup], days: int) -> set[str]:
    """Tell the ids of the first periodic backup of each of the last days, in UTC, that have one."""
    first: dict[date, str] = {}
    for each in newest_first:
        if each.method == "periodic":
            first[day_of(each)] = each.id
    return set(list(first.values())[:days])


def day_of(backup: Backup) -> date:
    """Give the day of a backup: the hours of the schedule are UTC."""
    return backup.created_at.astimezone(UTC).date()
