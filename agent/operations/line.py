"""What the audit has of an operation: how one that destroys has ended, which no answer tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent.audit.line import Change
from agent.operations.kind import ASKED_UNDER, CLEAN_UP, Kind
from engines.action import Effect

if TYPE_CHECKING:
    from agent.operations.record import Operation


def line_of(operation: Operation, kinds: Mapping[str, Kind]) -> Change | None:
    """Say what has ended; None of what destroys nothing, or is of a kind that is not known here."""
    kind = kinds.get(operation.type)
    # What cleans up was asked for by nobody, and the restore that left it has its line.
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
