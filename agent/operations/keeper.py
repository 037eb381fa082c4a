"""One operation under way in this process: its heartbeat, its cancellation, and its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent.audit.journal import Journal, Told
from agent.errors import OperationLost
from agent.log import Log
from agent.operations.kind import LOGICAL, Kind, Run
from agent.operations.line import line_of, line_of_left
from agent.operations.outcome import outcome_of
from agent.state.state import State
from engines.errors import Precondition

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agent.operations.record import Operation, Outcome

BEAT_SECONDS = 1.0
"""How often an owner tells that it is alive, and looks whether it is asked to cancel."""

LOST_SECONDS = 10.0
"""How long an owner goes on that cannot tell it is alive: it must have stopped before another one begins."""


class Keeper:
    """Keeps operations alive for one owner, and writes down how they ended."""

    def __init__(self, state: State, owner: str, kinds: Mapping[str, Kind], journal: Journal, log: Log) -> None:
        self._state = state
        self._owner = owner
        self._kinds = kinds
        self._journal = journal
        self._log = log
        self.let_go: set[str] = set()
        """Operations that were left though dbvalet lives: by their owner nobody waits for another heartbeat."""

    async def keep(self, run: Run, method: Callable[[Run], Awaitable[list[str]]]) -> None:
        """Let an operation run, with a heartbeat, and write down how it ended."""
        from agent.operations.record import Status

        operation = run.operation
        task = asyncio.ensure_future(method(run))
        told_at = time.monotonic()
        asked = lost = False
        while not task.done():
            try:
                async with asyncio.timeout(max(1.0, told_at + LOST_SECONDS - time.monotonic())):
                    status = await self._beat(run)
                told_at = time.monotonic()
                lost = status is None
                if status is Status.CANCELLING and not asked:
                    asked = True
                    task.cancel()
            except (Precondition, TimeoutError) as problem:
                self._log.warning("heartbeat_not_kept", operation=operation.id, reason=str(problem))
                lost = time.monotonic() - told_at >= LOST_SECONDS
            except asyncio.CancelledError:
                await self._leave(run, task)
                return
            if lost:
                run.lost = True
                task.cancel()
                await asyncio.wait([task])
                self._let_go(operation)
                return
            try:
                await asyncio.wait([task], timeout=BEAT_SECONDS)
            except asyncio.CancelledError:
                await self._leave(run, task)
                return
        if not task.cancelled() and isinstance(task.exception(), OperationLost):
            self._let_go(operation)
            return
        await self._finish(run, outcome_of(operation, task, asked, self._log))

    async def _beat(self, run: Run) -> Any:
        from agent.operations import record

        return await self._state.run(
            lambda connection: record.beat(connection, run.operation.id, self._owner, run.percent, run.step)
        )

    def _let_go(self, operation: Operation) -> None:
        """Leave an operation to whoever takes it over: this dbvalet itself at once, when it can reach the state."""
        self.let_go.add(operation.id)
        self._log.warning("operation_lost", operation=operation.id, database=operation.database_id)

    async def _leave(self, run: Run, task: asyncio.Future[list[str]]) -> None:
        """Stop an operation because dbvalet ends; the next one brings it to an end, at once."""
        from agent.operations import record

        operation = run.operation
        run.leaving = True
        task.cancel()
        await asyncio.wait([task])
        await self._state.run(lambda connection: record.release(connection, operation.id, self._owner))
        self._log.info("operation_left", operation=operation.id, type=operation.type, database=operation.database_id)

    async def _finish(self, run: Run, outcome: Outcome) -> None:
        """Write down how it ended; tried again for as long as nobody else can have taken over."""
        from agent.operations import record

        operation = run.operation

        def work(connection: Connection) -> list[Told]:
            if record.beat(connection, operation.id, self._owner, run.percent, run.step) is None:
                return []  # another one ends it, or this has ended it though it was not seen to
            told = self._cleaned_up(connection, operation) if outcome.status is record.Status.FINISHED else []
            told.append(self._end(connection, operation, outcome))
            record.forget_old(connection, operation.database_id, record.MOST_KEPT)
            return told

        began = time.monotonic()
        while True:
            try:
                told = await self._state.run(work)
                break
            except Precondition as problem:
                self._log.warning("operation_not_ended", operation=operation.id, reason=problem.message)
                if time.monotonic() - began > LOST_SECONDS:
                    return
                await asyncio.sleep(BEAT_SECONDS)
        for tell in told:
            tell()
        self._log.info(
            "operation_ended",
            operation=operation.id,
            type=operation.type,
            database=operation.database_id,
            outcome=outcome.status,
            reason=outcome.error,
        )

    async def end_of_nobody(self, operation: Operation, outcome: Outcome) -> bool:
        """Write down how an operation ended that nobody works on; whether nobody was faster.

        Raises: Precondition, when the state cannot be used
        """
        from agent.operations import record

        def work(connection: Connection) -> Told | None:
            if not record.take_over(connection, operation, self._owner):
                return None
            return self._end(connection, operation, outcome)

        told = await self._state.run(work)
        if told is not None:
            told()
        return told is not None

    def _cleaned_up(self, connection: Connection, by: Operation) -> list[Told]:
        """Tell that nothing is left behind any more; a restore may have come to its end only by that."""
        from agent.operations import record

        those = record.cleaned_up(connection, by.database_id, by.params.get(LOGICAL))
        changes = [line_of_left(each, by, self._kinds) for each in those]
        return [self._journal.add(connection, each, "cleaned_up") for each in changes if each is not None]

    def _end(self, connection: Connection, operation: Operation, outcome: Outcome) -> Told:
        """End an operation, in the state and in the audit, in one commit; what is given tells the log of the latter."""
        from agent.operations import record

        ended = record.finish(connection, operation.id, self._owner, outcome, self._state.now(connection))
        change = line_of(operation, self._kinds)
        if not ended or change is None:
            return _nothing
        code = "ok" if outcome.status is record.Status.FINISHED else str(outcome.status)
        return self._journal.add(connection, change, code)


def _nothing() -> None:
    return
