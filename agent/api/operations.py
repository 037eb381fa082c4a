"""Operations: list them, show one, cancel one."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from agent.api.bodies import no_fields
from agent.api.databases import as_json
from agent.api.lists import listed, page_of
from agent.api.service import begin_change, database_of, operation_for, permitted, service_of, was_done
from agent.paging import ListMeta
from agent.tasks import CANCEL_OPERATION

if TYPE_CHECKING:
    from agent.operations.record import Operation


class OperationResource(BaseModel):
    """Work that outlives its request."""

    id: str
    database_id: str
    type: str
    """`backup`, `backup_restore` and others."""
    status: Literal["pending", "running", "finished", "error", "user-error", "cancelling", "cancelled"]
    """`user-error`: it could not be done as things are set up, and `error` says what to change."""
    progress: int
    """Percent."""
    step: str
    """What is being done, for people."""
    error: str | None
    notes: list[str]
    """What a person should know of the outcome."""
    started_by: str
    """The name of the token."""
    created_at: datetime
    finished_at: datetime | None


class OperationBody(BaseModel):
    """The body of `GET /api/databases/:id/operations/:op`."""

    operation: OperationResource


class OperationsBody(BaseModel):
    """The body of `GET /api/databases/:id/operations`."""

    operations: list[OperationResource]
    meta: ListMeta | None = Field(None, description="Where a page stands, if one was asked for.")


async def list_operations(request: Request, database_id: str) -> Response:
    """List the operations of a database, newest first: all that are remembered, or a page."""
    _, database = database_of(request, database_id)
    page = page_of(request)
    return listed("operations", await service_of(request).operations.newest(database.id), shown, page)


async def get_operation(request: Request, database_id: str, operation_id: str) -> Response:
    """Show one operation: how far it is, or how it ended."""
    _, database = database_of(request, database_id)
    return as_json({"operation": shown(await service_of(request).operations.find(database.id, operation_id))})


async def cancel_operation(request: Request, database_id: str, operation_id: str) -> Response:
    """Ask for an operation to be stopped; it is `cancelled` once what it had begun is undone."""
    principal, database = permitted(request, database_id, CANCEL_OPERATION)
    await no_fields(request)
    service = service_of(request)
    operation = await operation_for(service, principal, database, operation_id)

    async def look() -> list[str]:
        found = await service.operations.find(database.id, operation_id)
        return [] if found.status == "cancelled" else [found.id]

    if await was_done(request, look):
        return as_json({"operation": shown(operation)})
    begin = partial(begin_change, request, look)
    cancelled = await service.operations.cancel(database.id, operation_id, begin=begin)
    service.log.info("operation_cancelling", who=principal.name, operation=operation_id, database=database.id)
    return as_json({"operation": shown(cancelled)})


def shown(operation: Operation) -> dict[str, Any]:
    """Give the fields of `OperationResource`."""
    return {name: getattr(operation, name) for name in OperationResource.model_fields}
