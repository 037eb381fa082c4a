"""How an operation ended, told from what its task did or raised."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent.errors import AgentError, LeftBehind
from agent.log import Log
from engines.errors import EngineError

if TYPE_CHECKING:
    from agent.operations.record import Operation, Outcome

_USERS = frozenset({"invalid_params", "precondition", "privilege_missing", "not_found", "conflict", "protected"})
"""Codes of causes that whoever asked can do something about."""

_OF_ENGINES = (EngineError, TimeoutError, OSError)
"""Why something may be left behind that is no bug."""


def outcome_of(operation: Operation, task: asyncio.Future[list[str]], asked: bool, log: Log) -> Outcome:
    """Tell the outcome of a task that is done; `asked`: somebody wanted it cancelled. A bug is logged."""
    from agent.operations.record import Outcome, Status

    if task.cancelled():
        return (
            Outcome(status=Status.CANCELLED)
            if asked
            else Outcome(status=Status.ERROR, error="It was stopped from within.")
        )
    problem = task.exception()
    match problem:
        case None:
            late = ("It was done already when it was to be cancelled.",) if asked else ()
            return Outcome(status=Status.FINISHED, notes=(*task.result(), *late))
        case AgentError() | EngineError():
            if isinstance(problem, LeftBehind) and not isinstance(problem.__cause__, _OF_ENGINES):
                log.error("bug", operation=operation.id, database=operation.database_id, exc_info=problem.__cause__)
            status = Status.USER_ERROR if problem.code in _USERS else Status.ERROR
            return Outcome(status=status, error=problem.message, clean_up_due=isinstance(problem, LeftBehind))
        case OSError():
            return Outcome(status=Status.ERROR, error=told(problem))
        case _:
            log.error("bug", operation=operation.id, database=operation.database_id, exc_info=problem)
            text = f"This is a bug of dbvalet. Its log has the details under {operation.id}."
            return Outcome(status=Status.ERROR, error=text)


def told(problem: OSError) -> str:
    """Say what the disk, or a storage elsewhere, does not do, and where."""
    where = f" ({problem.filename})" if problem.filename else ""
    return f"{problem.strerror or problem}{where}."
