"""Periodic backups: begun at the hours that were chosen, each by one dbvalet, made up for once after a pause.

There is no timer for an hour, which a clock that is set back would carry along: every few seconds, by the monotonic
clock, it is looked up which hour was the last one, whether its row is there already, and how its backup ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Protocol

from agent.audit.journal import Journal, Told
from agent.audit.line import Change
from agent.backups.backups import add_backup
from agent.choices import chosen
from agent.databases import Database
from agent.errors import OperationOpen
from agent.log import Log
from agent.state.state import State
from agent.tasks import CREATE_BACKUP
from engines.errors import Precondition

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agent.operations.record import Operation

LOOK_SECONDS = 20.0
"""How often the hour is looked up."""

AHEAD = timedelta(hours=25)
"""A row of an hour that lies further ahead was written by a clock that was wrong: it must not stand in the way when
that hour comes. A clock that is set back by less finds the hours that it meets again done already."""

PAUSE = timedelta(minutes=5)
"""How long after a backup that failed it is begun again; after each further one twice as long as before."""

DOUBLED = 8
"""How often that is doubled at most: no day has more, unless its hours come again because the clock is set back."""

SLOTS_KEPT = 200
"""Rows of a database: more than a week, whatever the hours."""


@dataclass(frozen=True, kw_only=True)
class Due:
    """What has to be begun."""

    slot: datetime
    """The hour that it is for."""
    failed: str | None
    """The operation by which it was tried last, if it was."""


class Begins(Protocol):
    """What begins operations."""

    async def begin(
        self,
        database: Database,
        kind: str,
        params: dict[str, Any],
        started_by: str,
        rows: Callable[[Connection, Operation], None],
    ) -> Operation:
        """Begin one, and add its rows in the same transaction.

        Raises: OperationOpen, also when a row is there already
        """
        ...


class Scheduler:
    """Looks which periodic backups are due, and begins them."""

    def __init__(
        self, state: State, databases: Iterable[Database], operations: Begins, journal: Journal, log: Log
    ) -> None:
        self._state = state
        self._databases = list(databases)
        self._operations = operations
        self._journal = journal
        self._log = log
        self._watcher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from now on."""
        self._watcher = asyncio.create_task(self._watch())

    def close(self) -> None:
        """Begin nothing any more."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except Precondition as problem:
                self._log.warning("schedule_not_read", reason=problem.message)
            except Exception:  # noqa: BLE001 - the watch must outlive a bug, which is logged
                self._log.exception("bug")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Begin what is due; a database on which something else is in progress has its turn at a later look.

        Raises: Precondition, when the state cannot be used
        """
        if not await self._state.holds_work():
            return
        for database in self._databases:
            try:
                await self._look_at(database)
            except Precondition:
                raise
            except Exception:  # noqa: BLE001 - the others must outlive a bug, which is logged
                self._log.exception("bug", database=database.id)

    async def _look_at(self, database: Database) -> None:
        due = await self._state.run(lambda connection: self._due(connection, database.id))
        if due is not None:
            await self._begin(database, due)

    async def _begin(self, database: Database, due: Due) -> None:
        backup_id = token_hex(12)
        told: list[Told] = []

        def rows(connection: Connection, operation: Operation) -> None:
            from sqlalchemy import delete, insert

            from agent.state.tables import schedule_slots

            row = {"database_id": database.id, "slot": due.slot, "operation_id": operation.id}
            if due.failed is not None:
                # Of several who saw the same failure the others find another row in place of it.
                connection.execute(delete(schedule_slots).filter_by(**{**row, "operation_id": due.failed}))
            connection.execute(insert(schedule_slots).values(row))
            add_backup(connection, operation, backup_id, "periodic")
            # One that is kept out holds no backup up: its operation is written down, and nothing is destroyed.
            told.append(self._journal.add(connection, _line_of(operation), "ok"))

        try:
            await self._operations.begin(database, "backup", {"backup_id": backup_id}, "schedule", rows)
        except OperationOpen:
            return  # or another dbvalet was faster, which the next look sees
        told[-1]()

    def _due(self, connection: Connection, database_id: str) -> Due | None:
        """Tell for which hour a backup has to be begun now."""
        from sqlalchemy import delete, select, update

        from agent.state.tables import database_settings, schedule_slots

        choices = chosen(connection, database_id)
        if not choices.periodic_backups_enabled:
            return None
        now = self._state.now(connection)
        mine = schedule_slots.c.database_id == database_id
        if choices.scheduled_since is not None and choices.scheduled_since > now + AHEAD:
            connection.execute(
                update(database_settings)
                .where(database_settings.c.database_id == database_id)
                .values(scheduled_since=now)
            )
            return None
        slot = last_slot(choices.periodic_backups_scheduled_at, now)
        if slot is None or (choices.scheduled_since is not None and slot < choices.scheduled_since):
            return None
        begun = select(schedule_slots.c.operation_id).where(mine, schedule_slots.c.slot == slot)
        tried: str | None = connection.execute(begun).scalar()
        if tried is not None:
            again = _is_due_again(connection, database_id, slot, tried, now)
            return Due(slot=slot, failed=tried) if again else None
        connection.execute(delete(schedule_slots).where(mine, schedule_slots.c.slot > now + AHEAD))
        oldest = connection.execute(
            select(schedule_slots.c.slot).where(mine).order_by(schedule_slots.c.slot.desc()).offset(SLOTS_KEPT).limit(1)
        ).scalar()
        if oldest is not None:
            connection.execute(delete(schedule_slots).where(mine, schedule_slots.c.slot <= oldest))
        return Due(slot=slot, failed=None)


def _is_due_again(connection: Connection, database_id: str, slot: datetime, operation_id: str, now: datetime) -> bool:
    """Tell whether the backup of an hour has failed long enough ago, in a way that may pass by itself.

    Not when it was cancelled or somebody has to change something first: then it is left to a person.
    """
    from sqlalchemy import func, select

    from agent.operations import record
    from agent.state.tables import backups, operations

    last = record.find(connection, database_id, operation_id)
    if last is None or last.finished_at is None or last.status is not record.Status.ERROR:
        return False
    if last.finished_at > now:
        return True  # by a clock that has been set back since: nobody knows how long ago
    failed = connection.execute(
        select(func.count())
        .select_from(backups.join(operations, backups.c.operation_id == operations.c.id))
        .where(
            backups.c.database_id == database_id,
            backups.c.method == "periodic",
            backups.c.created_at.between(slot, last.created_at),
            operations.c.status == record.Status.ERROR,
        )
    ).scalar_one()
    return now >= last.finished_at + PAUSE * 2 ** min(max(0, failed - 1), DOUBLED)


def _line_of(operation: Operation) -> Change:
    return Change(
        request_id=operation.id,
        who=operation.started_by,
        address=None,
        method="SCHEDULE",
        path=f"/api/databases/{operation.database_id}/backups",
        action=CREATE_BACKUP.name,
        effect=CREATE_BACKUP.effect,
        database=operation.database_id,
        params=operation.params,
    )


def last_slot(hours: Iterable[int], now: datetime) -> datetime | None:
    """Give the last of some hours in UTC that has begun; those before it are not made up for."""
    wanted = set(hours)
    this_hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    candidates = (this_hour - timedelta(hours=back) for back in range(24))
    return next((each for each in candidates if each.hour in wanted), None)
