"""The operation that brings a whole cluster back to an instant, in the order that survives whatever ends it.

check everything ─> mark, wait for the archive ─> stop ─> restore ─> start, wait until promoted ─> backup
                                                    └──── whatever fails here ───> undo: the last state

Which step it is at is on disk before the step begins, so that another dbvalet goes on from there. A server that takes
writes again, of then or of the last state, is not touched any more: that it may is on disk before it is started.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from agent.errors import Interrupted, OperationLost
from agent.operations.kind import PLAN, Run
from agent.pitr.clusters import Clusters
from agent.pitr.moves import condition, line_of, part, started, told, uncancelled
from agent.pitr.plan import Plan, Step
from agent.state.state import State
from agent.tasks import RESTORE_TO_INSTANT
from engines.errors import EngineError, Precondition, RecoveryFailed
from engines.recovery import Recovery, Standing

if TYPE_CHECKING:
    from sqlalchemy import Connection


T = TypeVar("T")

KEEP_SECONDS = 10.0
"""How long the state may be away after the server was stopped before the operation is left to who can write to it."""

AGAIN_SECONDS = 0.5

BACKWARD = frozenset(Step) - {Step.STOP, Step.RESTORE, Step.START, Step.BACKUP}


class RestoreToInstant:
    """Brings the cluster of a database back; ends with the state of that instant or the last one, and a live server."""

    type = "pitr_restore"
    task = RESTORE_TO_INSTANT
    may_leave = False

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
        kept = run.operation.params.get(PLAN)
        if kept is None:
            raise Interrupted(f"{run.cut} before anything was stopped: the server was not touched.")
        recovery = self._clusters.of(run.database)
        plan = await self._found(run, recovery, Plan.model_validate(kept))
        if plan.step in BACKWARD:
            ending = await uncancelled(run, self._go_back(run, recovery, plan))
            raise Interrupted(f"{run.cut} in the middle of it. {ending}")
        notes = await self._go(run, recovery, plan)
        return [f"{run.cut} in the middle of it, and it was carried on afterwards.", *notes]

    async def _found(self, run: Run, recovery: Recovery, plan: Plan) -> Plan:
        """Tell from where to go on: a server that runs though it was to be stopped is not stopped any more.

        Either nothing was done to it, or somebody has started it since; applications have written to it.
        """
        try:
            if plan.step not in (Step.STOP, Step.RESTORE) or not await recovery.is_running():
                return plan
        except EngineError:
            return plan  # whoever controls it says so again, and more of it, when it is used
        back = Step.START_AS_IT_WAS if plan.step is Step.STOP else Step.TRY_AS_IT_WAS
        return await self._keep(run, plan.next(back))

    async def _prepare(self, run: Run, recovery: Recovery) -> Plan:
        """Check everything that can be checked, and make sure that the way back is in the archive; touch nothing."""
        from agent.pitr import record

        at = datetime.fromisoformat(run.operation.params["restore_time"])
        standing, lines = await self._clusters.learn(run.database)
        target = await recovery.choose(at, lines, await self._clusters.markers(run.database))
        undo = await recovery.choose_undo(standing.timeline, lines)
        run.progress(5, "waiting until the archive has everything")
        marker = await recovery.mark()
        # While the archive was waited for, applications went on: what they have committed is to be reached, too.
        last = await recovery.commit(None) or marker
        plan = Plan(
            step=Step.STOP,
            system_identifier=standing.system_identifier,
            at=at,
            label=target.label,
            timeline=target.timeline,
            undo_label=undo.label,
            undo_older=tuple(undo.older),
            undo_timeline=undo.timeline,
            marked_at=last.committed_at,
            last_segment=await recovery.last_segment(),
        )
        keep = self._keeping(run, plan, lambda connection: record.keep_markers(connection, run.database.id, [marker]))
        if not await self._state.run(keep):
            raise OperationLost
        return plan

    async def _go(self, run: Run, recovery: Recovery, plan: Plan) -> list[str]:
        """Do what is left of a plan."""
        standing: Standing | None = None
        try:
            if plan.step is Step.STOP:
                run.progress(10, "stopping the server")
                await told(run, recovery.stop())
                await _require_its_last_log(recovery, plan)
                plan = await self._leave_timeline(run, plan)
            if plan.step is Step.RESTORE:
                await told(run, recovery.stop())
                await recovery.restore(plan.target, part(run, 15, 50))
                plan = await self._keep(run, plan.next(Step.START))
            if plan.step is Step.START:
                run.progress(50, "starting the server")
                await told(run, recovery.start())
                standing = await recovery.wait_promoted(part(run, 50, 80))
        except OperationLost:
            raise  # another dbvalet goes on, and two must not
        except BaseException as problem:
            if run.lost:
                raise
            ending = await uncancelled(run, self._turn_back(run, recovery, plan, problem))
            if isinstance(problem, EngineError):
                raise RecoveryFailed(f"{problem.message} {ending}") from problem
            raise
        if standing is not None:
            await uncancelled(run, self._arrive(run, recovery, plan.next(Step.BACKUP), standing))
        notes = [
            f"The whole server went back to {plan.at.isoformat()}: every database on it, roles and passwords included.",
            f"What was there until {plan.marked_at.isoformat()} can still be brought back: it is in the archive.",
        ]
        return notes + await self._back_up(run, recovery)

    async def _turn_back(self, run: Run, recovery: Recovery, plan: Plan, problem: BaseException) -> str:
        """Begin the way back: nothing is restored over a server that starts as it was."""
        if plan.step is Step.STOP:
            back = Step.START_AS_IT_WAS
        elif plan.step is Step.RESTORE and isinstance(problem, EngineError):
            back = Step.TRY_AS_IT_WAS
        else:
            back = Step.UNDO
        plan = await self._keep(run, plan.next(back))
        return await self._go_back(run, recovery, plan, problem)

    async def _go_back(self, run: Run, recovery: Recovery, plan: Plan, problem: BaseException | None = None) -> str:
        """Do what is left of the way back, and tell a person how it ended.

        Raises: RecoveryFailed, when the server does not come back; OperationLost
        """
        if plan.step is Step.START_AS_IT_WAS:
            plan = await self._start_as_it_was(run, recovery, plan)
        if plan.step is Step.TRY_AS_IT_WAS:
            plan = await self._try_as_it_was(run, recovery, plan)
        if plan.step in (Step.UNDO, Step.START_UNDONE):
            plan = await self._undo(run, recovery, plan, problem)
        if plan.step is Step.AS_IT_WAS:
            return "The server was started again as it was."
        return "The last state was brought back: nothing is lost."

    async def _start_as_it_was(self, run: Run, recovery: Recovery, plan: Plan) -> Plan:
        """Start a server of which nothing was changed; it lives on where it was."""
        run.progress(run.percent, "starting the server as it was")
        try:
            await started(run, recovery)
        except EngineError as failed:
            raise RecoveryFailed(f"The server does not start: {failed.message} Nothing of it was changed.") from failed
        return await self._live_on(run, plan)

    async def _try_as_it_was(self, run: Run, recovery: Recovery, plan: Plan) -> Plan:
        """Start a server whose restore has failed; where that changed anything, it is to be undone.

        What the restore said of it is not relied upon: a half restored server cannot start, and one that is restored
        to the end is on a timeline of its own.
        """
        run.progress(run.percent, "starting the server as it was")
        try:
            standing = await started(run, recovery)
        except EngineError:
            standing = None
        if standing is None or standing.timeline != plan.undo_timeline:
            return await self._keep(run, plan.next(Step.UNDO))
        return await self._live_on(run, plan)

    async def _live_on(self, run: Run, plan: Plan) -> Plan:
        from agent.pitr import record

        return await self._keep(
            run,
            plan.next(Step.AS_IT_WAS),
            lambda connection: record.end_timeline(
                connection, run.database.id, plan.system_identifier, plan.undo_timeline, None
            ),
        )

    async def _undo(self, run: Run, recovery: Recovery, plan: Plan, problem: BaseException | None) -> Plan:
        """Bring the last state back.

        Raises: RecoveryFailed, when that is not possible either
        """
        run.progress(run.percent, "bringing the last state back")
        try:
            if plan.step is Step.UNDO:
                await recovery.stop()
                plan = await self._restore_last(run, recovery, plan)
                plan = await self._keep(run, plan.next(Step.START_UNDONE))
            await recovery.start()
            standing = await recovery.wait_promoted(part(run, run.percent, run.percent))
        except EngineError as failed:
            first = problem.message if isinstance(problem, EngineError) else "It was cut off."
            raise RecoveryFailed(
                f"{first} The last state could not be brought back either: {failed.message}"
                f" {await condition(recovery)} Its archive is whole: restore the set {plan.undo_label} on timeline"
                f" {plan.undo_timeline} by hand (docs/recovery.md)."
            ) from failed
        return await self._arrive(run, recovery, plan.next(Step.UNDONE), standing)

    async def _restore_last(self, run: Run, recovery: Recovery, plan: Plan) -> Plan:
        """Bring the files of the last state back, from older and older sets if need be: one may be damaged."""
        while True:
            try:
                await recovery.restore(plan.undo, part(run, run.percent, run.percent))
            except EngineError:
                if not plan.undo_older:
                    raise
                label, *older = plan.undo_older
                plan = await self._keep(run, plan.model_copy(update={"undo_label": label, "undo_older": tuple(older)}))
            else:
                return plan

    async def _back_up(self, run: Run, recovery: Recovery) -> list[str]:
        """Make a full backup, from which the new timeline can be reached; what fails here undoes nothing."""
        try:
            await recovery.full_backup(part(run, 80, 99))
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

    async def _arrive(self, run: Run, recovery: Recovery, plan: Plan, standing: Standing) -> Plan:
        """Write down that the server takes writes, and on which timeline: what is not known of that undoes nothing.

        Raises: OperationLost
        """
        from agent.pitr import record

        known = await self._lasting(
            lambda connection: record.timelines_of(connection, run.database.id, standing.system_identifier)
        )
        line = await line_of(recovery, standing, known)

        def rows(connection: Connection) -> None:
            if line is not None:
                record.keep_timeline(connection, run.database.id, standing.system_identifier, line)

        return await self._keep(run, plan, rows)

    async def _keep(self, run: Run, plan: Plan, rows: Callable[[Connection], None] | None = None) -> Plan:
        """Write down what comes next, and what belongs to it, in one transaction.

        Raises: OperationLost
        """
        if not await self._lasting(self._keeping(run, plan, rows)):
            raise OperationLost
        return plan

    def _keeping(self, run: Run, plan: Plan, rows: Callable[[Connection], None] | None) -> Callable[[Connection], bool]:
        from agent.operations import record

        def work(connection: Connection) -> bool:
            if rows is not None:
                rows(connection)
            operation = run.operation
            params = {**operation.params, PLAN: plan.model_dump(mode="json")}
            return record.keep_params(connection, operation.id, operation.owner, params)

        return work

    async def _lasting(self, work: Callable[[Connection], T]) -> T:
        """Use the state, again and again while it is away: a server that is down must not stay so for that.

        Raises: OperationLost, when it stays away: whoever takes the operation over goes on from the step on disk
        """
        ends_at = time.monotonic() + KEEP_SECONDS
        while True:
            try:
                return await self._state.run(work)
            except Precondition as problem:
                if time.monotonic() > ends_at:
                    raise OperationLost from problem
            await asyncio.sleep(AGAIN_SECONDS)


async def _require_its_last_log(recovery: Recovery, plan: Plan) -> None:
    """Make sure that a clean stop has archived the rest: a restore removes what the server still has of its log.

    Raises: Precondition, BackupFailed
    """
    if plan.last_segment is not None and not await recovery.holds(plan.last_segment):
        raise Precondition(f"The archive did not take {plan.last_segment} when the server was stopped.")
