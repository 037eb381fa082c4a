"""Point-in-time recovery: what can be recovered, and going back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from agent.api import operations
from agent.api.bodies import body_of
from agent.api.databases import as_json
from agent.api.openapi import described
from agent.api.service import database_of, permitted, service_of
from agent.dispatch import parse_object
from agent.tasks import RESTORE_TO_INSTANT
from engines.action import Effect
from engines.errors import InvalidParams, OutsideWindow

if TYPE_CHECKING:
    from agent.operations.record import Operation

FIELD = "restore_time"


class WindowResource(BaseModel):
    """Every instant from the earliest to the latest can be recovered, both included; null: nothing can."""

    earliest_recoverable_at: datetime | None
    latest_recoverable_at: datetime | None
    """Now, as long as the server is up and its archive takes what it is given."""


class WindowBody(BaseModel):
    """The body of `GET /api/databases/:id/pitr/recovery_window`."""

    recovery_window: WindowResource


class RestoreBody(BaseModel):
    """The body of `POST /api/databases/:id/pitr/restore`."""

    model_config = ConfigDict(extra="forbid")

    restore_time: datetime
    """With an offset: `2026-01-31T08:00:00Z`."""


class RestoreBegun(BaseModel):
    """The operation that has begun, in both forms that clients read."""

    operation_id: str
    operation: operations.OperationResource


async def get_window(request: Request, database_id: str) -> Response:
    """Tell to which instants the server can be brought back."""
    _, database = database_of(request, database_id)
    with database.admitted(Effect.READ):
        window = await service_of(request).clusters.window(database)
    edges = {"earliest_recoverable_at": window.earliest, "latest_recoverable_at": window.latest}
    return as_json({"recovery_window": edges})


async def restore_to_instant(request: Request, database_id: str) -> Response:
    """Begin to bring the whole server back to an instant: every database on it, roles and passwords included.

    Nothing is stopped before the instant, the backup, the timeline and the archive are checked.
    """
    principal, database = permitted(request, database_id, RESTORE_TO_INSTANT)
    service = service_of(request)
    service.clusters.of(database)
    at = read_instant(parse_object(await body_of(request.scope, request.receive)))
    before = await service.operations.begun_before(database.id)
    if before is not None:
        return _begun(before)
    await service.operations.require_none(database.id)
    if at > datetime.now(UTC):
        raise OutsideWindow("It lies in the future.")
    with database.admitted(RESTORE_TO_INSTANT.effect):
        await service.clusters.check(database, at)
    params = {FIELD: at.isoformat()}
    operation = await service.operations.begin(database, "pitr_restore", params, principal.name)
    return _begun(operation)


def _begun(operation: Operation) -> Response:
    return as_json({"operation_id": operation.id, "operation": operations.shown(operation)}, 201)


def read_instant(body: Mapping[str, Any]) -> datetime:
    """Read `{"restore_time": …}`.

    Raises: InvalidParams
    """
    errors = {field: ["is not known"] for field in body if field != FIELD}
    value = body.get(FIELD)
    instant: datetime | None = None
    if FIELD not in body:
        errors[FIELD] = ["is required"]
    elif not isinstance(value, str):
        errors[FIELD] = ["must be a text such as 2026-01-31T08:00:00Z"]
    else:
        try:
            instant = datetime.fromisoformat(value)
            if instant.tzinfo is None:
                errors[FIELD] = ["names no zone: end it with Z or +01:00"]
            else:
                instant = instant.astimezone(UTC)
        except (ValueError, OverflowError):  # the first and the last hours of the calendar may have no UTC
            errors[FIELD] = ["is no time: write 2026-01-31T08:00:00Z"]
    if errors or instant is None:
        raise InvalidParams(errors)
    return instant


def install(app: FastAPI) -> None:
    """Put the routes of point-in-time recovery into an app."""
    path = "/api/databases/{database_id}/pitr"
    app.add_api_route(
        path + "/recovery_window",
        get_window,
        **described(
            "not_supported",
            "not_found",
            "precondition",
            "engine_unavailable",
            "overloaded",
            "state_unavailable",
            response_model=WindowBody,
            tags=["recovery"],
            operation_id="get_recovery_window",
        ),
    )
    app.add_api_route(
        path + "/restore",
        restore_to_instant,
        **described(
            "not_supported",
            "malformed",
            "forbidden",
            "not_found",
            "precondition",
            "conflict",
            "too_large",
            "invalid_params",
            "engine_unavailable",
            "overloaded",
            task=RESTORE_TO_INSTANT,
            method="POST",
            body=RestoreBody,
            status_code=201,
            response_model=RestoreBegun,
            gives={"operation_id": "/operation_id"},
            tags=["recovery"],
            operation_id="restore_to_instant",
        ),
    )
