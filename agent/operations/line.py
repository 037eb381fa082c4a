"""What the audit has of an operation: how one that destroys has ended, and what it left, which no answer tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.audit.line import Change
from agent.operations.kind import ASKED_UNDER, CLEAN_UP, Kind
from engines.action import Effect

if TYPE_CHECKING:
    from agent.operations.record import Operation


def line_of(operation: Operation, kinds: Mapping[str, Kind]) -> Change | None:
    """Say what has ended; None of what destroys nothing, or is of a kind that is not known here."""
    kind = kinds.get(operation.type)
    # What cleans up is tried until it succeeds: then what it has cleaned up has a line, see below.
    if kind is None or kind.task.effect is not Effect.DESTRUCTIVE or operation.type == CLEAN_UP:
        return None
    return Change(
        request_id=operation.id,
        who=operation.started_by,
        address=None,
        method="OPERATION",
        path=f"/api/databases/{operation.database_id}/operations/{operation.id}",
        action=kind.task.name,
        effect=kind.task.effect,
        database=operation.database_id,
        params={name: value for name, value in operation.params.items() if name != ASKED_UNDER},
    )


def line_of_left(left: Operation, by: Operation, kinds: Mapping[str, Kind]) -> Change | None:
    """Say that what an operation had left on the server was finished or undone by another one."""
    change = line_of(left, kinds)
    return None if change is None else replace(change, request_id=by.id, who=by.started_by)
