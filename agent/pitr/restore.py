"""The operation that brings a whole cluster back to an instant, in the order that survives whatever ends it.

check everything ─> mark, wait for the archive ─> stop ─> restore ─> start, wait until promoted ─> backup
                                                    └──── whatever fails here ───> undo: the last state

Which step it is at is on disk before the step begins, so that another dbvalet goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from agent.errors import Interrupted, OperationLost
from agent.operations.kind import Run
from agent.pitr.clusters import Clusters
from agent.state.state import State
from agent.tasks import RESTORE_TO_INSTANT
from engines.backup import Progress
from engines.errors import EngineError, RecoveryFailed, RecoveryRefused
from engines.recovery import Recovery, Standing, Target, Undo

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Step(StrEnum):
    """What was about to be done when it was written down."""

    STOP = "stop"
    RESTORE = "restore"
    START = "start"
    UNDO = "undo"
    BACKUP = "backup"


class Plan(BaseModel):
    """All that is needed to go on, or back: kept in the operation's params."""

    model_config = ConfigDict(frozen=True)

    step: Step
    system_identifier: str
    at: datetime
    label: str
    timeline: int
    undo_label: str
    undo_timeline: int
    """The one that was live before."""
    marked_at: datetime
    """The last commit of that one which is certainly in the archive."""

    def next(self, step: Step) -> Plan:
        """Give it with another step."""
        return self.model_copy(update={"step": step})

    @property
    def target(self) -> Target:
        """Where it goes."""
        return Target(at=self.at, label=self.label, timeline=self.timeline)

    @property
    def undo(self) -> Undo:
        """The way back."""
        return Undo(label=self.undo_label, timeline=self.undo_timeline)


class RestoreToInstant:
    """Brings the cluster of a database back; ends with the state of that instant or the last one, and a live server."""

    type = "pitr_restore"
    task = RESTORE_TO_INSTANT

    def __init__(self, clusters: Clusters, state: State) -> None:
        self._clusters = clusters
        self._state = state

    async def run(self, run: Run) -> list[str]:
        """Bring it back; when that fails or is cancelled, the last state is there again.

        Raises: OutsideWindow, Precondition, RecoveryFailed, BackupFailed, EngineUnavailable
        """
        run.progress(0, "checking what can be recovered")
        recovery = await self._clusters.ready(run.database)
        plan = await self._prepare(run, recovery)
        return await self._go(run, recovery, plan)

    async def recover(self, run: Run) -> list[str]:
        """Go on from the step that was written down.

        Raises: Interrupted, and as `run`
        """
        kept = run.operation.params.get("plan")
        if kept is None:
            raise Interrupted(f"{run.cut} before anything was stopped: the server was not touched.")
        plan = Plan.model_validate(kept)
        recovery = self._clusters.of(run.database)
        if plan.step is Step.UNDO:
            await self._undo(run, recovery, plan)
            raise Interrupted(f"{run.cut} in the middle of it. The last state was brought back: nothing is lost.")
        notes = await self._go(run, recovery, plan)
        return [f"{run.cut} in the middle of it, and it was carried on afterwards.", *notes]

    async def _prepare(self, run: Run, recovery: Recovery) -> Plan:
        """Check everything that can be checked, and make sure that the way back is in the archive; touch nothing."""
        from agent.pitr import record

        at = datetime.fromisoformat(run.operation.params["restore_time"])
        standing, lines = await self._clusters.learn(run.database)
        target = await recovery.choose(at, lines, await self._clusters.markers(run.database))
        undo = await recovery.choose_undo(standing.timeline, lines)
        run.progress(5, "waiting until the archive has everything")
        marker = await recovery.mark()
        plan = Plan(
            step=Step.STOP,
            system_identifier=standing.system_identifier,
            at=at,
            label=target.label,
            timeline=target.timeline,
            undo_label=undo.label,
            undo_timeline=undo.timeline,
            marked_at=marker.committed_at,
        )
        await self._keep(run, plan, lambda connection: record.keep_markers(connection, run.database.id, [marker]))
        return plan

    async def _go(self, run: Run, recovery: Recovery, plan: Plan) -> list[str]:
        """Do what is left of a plan."""
        try:
            if plan.step is Step.STOP:
                run.progress(10, "stopping the server")
                await recovery.stop()
                plan = await self._leave_timeline(run, plan)
            if plan.step is Step.RESTORE:
                await recovery.stop()
                await recovery.restore(plan.target, _part(run, 15, 50))
                plan = await self._keep(run, plan.next(Step.START))
            if plan.step is Step.START:
                run.progress(50, "starting the server")
                await recovery.start()
                plan = await self._arrive(run, recovery, plan, Step.BACKUP, _part(run, 50, 80))
        except OperationLost:
            raise  # another dbvalet goes on, and two must not
        except RecoveryRefused as refused:
            await self._start_as_it_was(run, recovery, plan)
            raise RecoveryFailed(f"{refused.message} The server was started again as it was.") from refused
        except EngineError as failed:
            if plan.step is Step.STOP:
                await self._start_as_it_was(run, recovery, plan)
                raise RecoveryFailed(f"{failed.message} The server was started again as it was.") from failed
            await self._undo(run, recovery, plan, failed)
            raise RecoveryFailed(f"{failed.message} The last state was brought back: nothing is lost.") from failed
        except BaseException as problem:
            if plan.step is Step.STOP:
                await self._start_as_it_was(run, recovery, plan)
            else:
                await self._undo(run, recovery, plan, problem)
            raise
        notes = [
            f"The whole server went back to {plan.at.isoformat()}: every database on it, roles and passwords included.",
            f"What was there until {plan.marked_at.isoformat()} can still be brought back: it is in the archive.",
        ]
        return notes + await self._back_up(run, recovery)

    async def _start_as_it_was(self, run: Run, recovery: Recovery, plan: Plan) -> None:
        """Start a server of which nothing was changed; it lives on where it was."""
        from agent.pitr import record

        run.progress(run.percent, "starting the server as it was")
        try:
            await recovery.start()
            await recovery.wait_promoted(_part(run, run.percent, run.percent))
        except EngineError as failed:
            raise RecoveryFailed(f"The server does not start: {failed.message} Nothing of it was changed.") from failed
        await self._state.run(
            lambda connection: record.end_timeline(
                connection, run.database.id, plan.system_identifier, plan.undo_timeline, None
            )
        )

    async def _undo(self, run: Run, recovery: Recovery, plan: Plan, problem: BaseException | None = None) -> None:
        """Bring the last state back.

        Raises: RecoveryFailed, when that is not possible either
        """
        plan = await self._keep(run, plan.next(Step.UNDO))
        run.progress(run.percent, "bringing the last state back")
        try:
            await recovery.stop()
            await recovery.restore(plan.undo, _part(run, run.percent, run.percent))
            await recovery.start()
            await self._arrive(run, recovery, plan, Step.UNDO, _part(run, run.percent, run.percent))
        except EngineError as failed:
            first = problem.message if isinstance(problem, EngineError) else "It was cut off."
            raise RecoveryFailed(
                f"{first} The last state could not be brought back either: {failed.message} The server is down. Its"
                f" archive is whole: restore the set {plan.undo_label} on timeline {plan.undo_timeline} by hand"
                " (docs/recovery.md)."
            ) from failed

    async def _back_up(self, run: Run, recovery: Recovery) -> list[str]:
        """Make a full backup, from which the new timeline can be reached; what fails here undoes nothing."""
        try:
            await recovery.full_backup(_part(run, 80, 99))
        except asyncio.CancelledError:
            return ["The server was back already; the full backup after it was not made: make one soon."]
        except EngineError as failed:
            return [f"The full backup after it failed, make one soon: {failed.message}"]
        return ["A full backup was made of the state it has now."]

    async def _leave_timeline(self, run: Run, plan: Plan) -> Plan:
        from agent.pitr import record

        return await self._keep(
            run,
            plan.next(Step.RESTORE),
            lambda connection: record.end_timeline(
                connection, run.database.id, plan.system_identifier, plan.undo_timeline, plan.marked_at
            ),
        )

    async def _arrive(self, run: Run, recovery: Recovery, plan: Plan, step: Step, progress: Progress) -> Plan:
        """Wait until the server takes writes, and write down on which timeline it lives."""
        from agent.pitr import record

        standing: Standing = await recovery.wait_promoted(progress)
        known = await self._state.run(
            lambda connection: record.timelines_of(connection, run.database.id, plan.system_identifier)
        )
        found = await recovery.fork_of(standing, known)

        def rows(connection: Connection) -> None:
            record.keep_timeline(connection, run.database.id, standing.system_identifier, found)

        return await self._keep(run, plan.next(step), rows)

    async def _keep(self, run: Run, plan: Plan, rows: Callable[[Connection], None] | None = None) -> Plan:
        """Write down what comes next, and what belongs to it, in one transaction."""
        from agent.operations import record

        def work(connection: Connection) -> bool:
            if rows is not None:
                rows(connection)
            operation = run.operation
            params = {**operation.params, "plan": plan.model_dump(mode="json")}
            return record.keep_params(connection, operation.id, operation.owner, params)

        if not await self._state.run(work):
            raise OperationLost
        return plan


def _part(run: Run, begin: float, end: float) -> Progress:
    """Tell the progress of a part as that of the whole."""
    return lambda percent, words: run.progress(begin + (end - begin) * percent / 100, words)
