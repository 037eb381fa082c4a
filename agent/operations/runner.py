"""Runs operations: one a database at a time, each by one dbvalet, none left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from agent.audit.journal import Journal
from agent.databases import Database
from agent.errors import AgentError, OperationEnded, OperationNotFound, OperationOpen
from agent.log import Log
from agent.once import begun
from agent.operations.keeper import Keeper
from agent.operations.kind import (
    ASKED_UNDER,
    CLEAN_UP,
    ENDED,
    ENDED_OR_CUT_OFF,
    LOGICAL,
    STATE_SILENT,
    Kind,
    Run,
)
from agent.operations.undeclared import Heartbeats, Undeclared
from agent.state.state import State
from agent.tasks import Task
from engines import deadline
from engines.errors import EngineError, Precondition

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agent.operations.record import Operation

LOOK_SECONDS = 5.0
"""How often the others look for operations that nobody works on."""

ABANDONED_SECONDS = 30.0
"""How long a heartbeat may stand still, by the clock of who looks, before another dbvalet takes over."""

CLEAN_UP_SECONDS, LONGEST_PAUSE = 60.0, 3600.0
"""How long to wait after a try to clean up that failed, twice as long after each further one, up to an hour."""

CLOSE_SECONDS = 12.0
"""How long operations may take to stop when dbvalet is told to end."""

Rows = Callable[["Connection", "Operation"], None]

Begin = Callable[[], Awaitable[None]]
"""Called when all that refuses has been looked at, just before something is changed."""


def _no_rows(_connection: Connection, _operation: Operation) -> None:
    return


class Operations:
    """The operations of every declared database."""

    def __init__(
        self, state: State, databases: Iterable[Database], kinds: dict[str, Kind], journal: Journal, log: Log
    ) -> None:
        self.owner = token_hex(8)
        self._state = state
        self._databases = {database.id: database for database in databases}
        self.kinds = kinds
        self._log = log
        self._keeper = Keeper(state, self.owner, kinds, journal, log)
        self._beginning: dict[str, asyncio.Task[Operation]] = {}
        self._working: dict[str, asyncio.Task[None]] = {}
        self._beats = Heartbeats()
        self.undeclared = Undeclared(self._keeper, kinds, self._beats, log)
        self._cleaned_up: dict[str, tuple[float, float]] = {}
        """When cleaning up a database was tried last, and how long to wait after that, by its id."""
        """When that was last tried."""
        self._watcher: asyncio.Task[None] | None = None

    def task_of(self, operation: Operation) -> Task | None:
        """Tell what a token must be allowed to do to begin an operation; None for a kind of a newer dbvalet."""
        kind = self.kinds.get(operation.type)
        return None if kind is None else kind.task

    async def begin(
        self, database: Database, kind: str, params: dict[str, Any], started_by: str, rows: Rows = _no_rows
    ) -> Operation:
        """Begin an operation; `rows` adds what belongs to it in the same transaction.

        Raises: OperationOpen; Precondition, when the state cannot be written; AnswerUnknown, when another dbvalet has
        taken the request over
        """
        from sqlalchemy.exc import IntegrityError

        from agent.operations import record

        key = begun.get()
        if key is not None:
            params = {**params, ASKED_UNDER: key.mark}
        operation_id = token_hex(12)

        def work(connection: Connection) -> Operation:
            self.claim()
            if key is not None:
                key.hold(connection)
            operation = record.Operation(
                id=operation_id,
                database_id=database.id,
                type=kind,
                status=record.Status.PENDING,
                progress=0,
                step="waiting to begin",
                error=None,
                params=params,
                notes=[],
                started_by=started_by,
                created_at=self._state.now(connection),
                finished_at=None,
                owner=self.owner,
                heartbeat=0,
                clean_up_due=False,
            )
            record.add(connection, operation)
            rows(connection, operation)
            return operation

        async def begun_and_worked_on() -> Operation:
            try:
                operation = await self._state.run(work)
            except IntegrityError:
                raise await self._open(database.id) from None
            self._log.info("operation_began", operation=operation.id, type=kind, who=started_by, database=database.id)
            self._work(operation, self.kinds[kind].run)
            return operation

        if key is not None:
            key.begins()
        # A row is committed by its thread even when nobody waits for it any more: it is worked on then, too.
        beginning = asyncio.create_task(begun_and_worked_on())
        self._beginning[operation_id] = beginning
        beginning.add_done_callback(lambda _: self._beginning.pop(operation_id))
        try:
            with deadline.waiting_for("the state"):
                await asyncio.wait([beginning])
        except asyncio.CancelledError:
            beginning.add_done_callback(self._told_nobody)
            raise
        return beginning.result()

    async def begun_before(self, database_id: str) -> Operation | None:
        """Give what an earlier request with the key of this one has begun, if its end was not seen; None otherwise.

        Raises: Precondition, when the state cannot be read
        """
        from agent.operations import record

        key = begun.get()
        if key is None or not key.in_doubt:
            return None
        known = await self._state.run(lambda connection: record.newest(connection, database_id))
        return next((each for each in known if each.params.get(ASKED_UNDER) == key.mark), None)

    async def find(self, database_id: str, operation_id: str) -> Operation:
        """Find an operation.

        Raises: OperationNotFound, Precondition, when the state cannot be read
        """
        from agent.operations import record

        found = None
        if await self._state.holds_work():
            found = await self._state.run(lambda connection: record.find(connection, database_id, operation_id))
        if found is None:
            raise OperationNotFound
        return found

    async def newest(self, database_id: str) -> list[Operation]:
        """List the operations of a database that are remembered, newest first.

        Raises: Precondition, when the state cannot be read
        """
        if not await self._state.holds_work():
            return []
        from agent.operations import record

        return await self._state.run(lambda connection: record.newest(connection, database_id))

    async def current(self, database_id: str) -> Operation | None:
        """Find the operation of a database that has not ended.

        Raises: Precondition, when the state cannot be read
        """
        if not await self._state.holds_work():
            return None
        from agent.operations import record

        return await self._state.run(lambda connection: record.open_one(connection, database_id))

    async def require_none(self, database_id: str) -> None:
        """Refuse while an operation of a database is open; `begin` does so too, but what comes before may take long.

        Raises: OperationOpen; Precondition, when the state cannot be read
        """
        if await self.current(database_id) is not None:
            raise await self._open(database_id)

    async def cancel(self, database_id: str, operation_id: str, *, begin: Begin) -> Operation:
        """Ask for an operation to be stopped, whichever dbvalet works on it; it ends when it has been undone.

        Raises: OperationNotFound, OperationEnded; Precondition, when the state cannot be written; whatever `begin`
        raises
        """
        from agent.operations import record

        if not (await self.find(database_id, operation_id)).is_open:
            raise OperationEnded
        await begin()
        await self._state.run(lambda connection: record.ask_to_cancel(connection, operation_id))
        return await self.find(database_id, operation_id)

    async def wait(self, operation_id: str, seconds: float) -> None:
        """Wait until an operation of this process has ended, but not longer than so many seconds."""
        task = self._working.get(operation_id)
        if task is not None:
            await asyncio.wait([task], timeout=seconds)

    def start(self) -> None:
        """Look, from now on, for operations that nobody works on."""
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop the operations that run here and leave them to whoever comes next, to be brought to an end."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._beginning:
            await asyncio.wait(list(self._beginning.values()), timeout=CLOSE_SECONDS)
        working = list(self._working.values())
        for task in working:
            task.cancel()
        if working:
            await asyncio.wait(working, timeout=CLOSE_SECONDS)
        self._forget(self.owner)

    def claim(self) -> None:
        """Show in the state that this process lives, in the transaction of what is begun in its name.

        Raises: OSError, when that cannot be shown
        """
        if self._state.presence is not None:
            self._state.presence.claim(self.owner)

    def _is_gone(self, owner: str) -> bool:
        return self._state.presence is not None and self._state.presence.is_gone(owner)

    def _forget(self, owner: str) -> None:
        if self._state.presence is not None:
            self._state.presence.forget(owner)

    async def _open(self, database_id: str) -> OperationOpen:
        other = await self.current(database_id)
        if other is None:
            return OperationOpen()
        return OperationOpen(f"Another operation is in progress on this database: {other.type} {other.id}.")

    def _what_cut_off(self, each: Operation) -> str:
        if each.owner == self.owner:
            return STATE_SILENT
        return ENDED if each.owner is None or self._is_gone(each.owner) else ENDED_OR_CUT_OFF

    def _work(self, operation: Operation, method: Callable[[Run], Awaitable[list[str]]], cut: str = ENDED) -> None:
        run = Run(
            operation=operation,
            database=self._databases[operation.database_id],
            percent=operation.progress,
            step=operation.step,
            cut=cut,
        )
        task = asyncio.create_task(self._keeper.keep(run, method))
        self._working[operation.id] = task
        task.add_done_callback(lambda _: self._working.pop(operation.id, None))
        task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log.error("bug", exc_info=problem)

    def _told_nobody(self, beginning: asyncio.Task[Operation]) -> None:
        """Look at what became of a beginning whose client has left; what was refused is nothing to tell then."""
        problem = None if beginning.cancelled() else beginning.exception()
        if problem is not None and not isinstance(problem, AgentError | EngineError):
            self._log.error("bug", exc_info=problem)

    async def _watch(self) -> None:
        while True:
            try:
                if await self._state.holds_work():
                    await self.look()
            except Precondition as problem:
                self._log.warning("operations_not_read", reason=problem.message)
            except Exception:  # noqa: BLE001 - the watch must outlive a bug, which is logged
                self._log.exception("bug")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Take over what nobody works on any more, and clean up what was left behind.

        Raises: Precondition, when the state cannot be used
        """
        from agent.operations import record

        ids = list(self._databases)
        found = await self._state.run(lambda connection: record.open_ones(connection, ids))
        # Some may be of this process: their commit was not seen to succeed, or their end could not be written.
        here = self._beginning.keys() | self._working.keys()
        idle = [each for each in found if each.owner != self.owner or each.id not in here]
        undeclared = await self._state.run(lambda connection: record.open_of_others(connection, ids))
        self._beats.follow(idle + undeclared)
        for each in undeclared:
            await self.undeclared.look(each)
        for each in idle:
            # A kind that is not known is of a newer dbvalet.
            if each.type not in self.kinds or not self._is_abandoned(each):
                continue
            cut = self._what_cut_off(each)
            if await self._take_over(each):
                self._log.warning("operation_taken_over", operation=each.id, type=each.type, database=each.database_id)
                if each.owner is not None and self._is_gone(each.owner):
                    # One that is silent but lives goes on to be seen by it, with all else that it has begun.
                    self._forget(each.owner)
                self._keeper.let_go.discard(each.id)
                self._work(replace(each, owner=self.owner), self.kinds[each.type].recover, cut)
        for due in await self._state.run(lambda connection: record.with_clean_up_due(connection, ids)):
            database = self._databases[due.database_id]
            if self._may_clean_up(database):
                await self._clean_up(database, {key: due.params[key] for key in (LOGICAL,) if key in due.params})

    async def _take_over(self, each: Operation) -> bool:
        from agent.operations import record

        def work(connection: Connection) -> bool:
            self.claim()
            return record.take_over(connection, each, self.owner)

        return await self._state.run(work)

    def _is_abandoned(self, each: Operation) -> bool:
        let_go = each.owner == self.owner and each.id in self._keeper.let_go
        still = self._beats.stand_still(each, ABANDONED_SECONDS)
        return let_go or still or each.owner is None or self._is_gone(each.owner)

    def _may_clean_up(self, database: Database) -> bool:
        if not database.up:
            # What it waits for may be that.
            self._cleaned_up.pop(database.id, None)
            return False
        now = time.monotonic()
        tried_at, pause = self._cleaned_up.get(database.id, (0.0, 0.0))
        if now < tried_at + pause:
            return False
        # Of a try that is long past something has come; this is for something else.
        is_another = now < tried_at + 3 * pause
        self._cleaned_up[database.id] = (now, min(2 * pause, LONGEST_PAUSE) if is_another else CLEAN_UP_SECONDS)
        return True

    async def _clean_up(self, database: Database, params: dict[str, Any]) -> None:
        try:
            await self.begin(database, CLEAN_UP, params, "dbvalet")
        except OperationOpen:
            return  # whatever runs there now begins with cleaning up
