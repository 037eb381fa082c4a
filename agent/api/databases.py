"""Databases: list them, show one."""

from __future__ import annotations

import asyncio
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from agent.api.bodies import body_of
from agent.api.service import Service, became_of, begin_change, database_of, permitted, principal_of, service_of
from agent.choices import WINDOW_HOURS, DatabaseChange, MaintenanceWindow, read_change, shows
from agent.databases import Database
from agent.dispatch import parse_object
from agent.errors import AnswerUnknown
from agent.once import not_again
from agent.tasks import UPDATE_DATABASE
from engines.aftermath import Goal, Verdict
from engines.errors import Precondition

UNTOLD = not_again("What is set now does not tell whether it was done, or has been changed by others since")


class InstanceResource(BaseModel):
    """One server of a deployment."""

    id: str
    hostname: str
    port: int
    status: Literal["running", "stopped"]
    type: Literal["db-node"]
    private_ip: str | None


class FeatureResource(BaseModel):
    """Something that is switched on."""

    name: str
    status: str


class WindowResource(BaseModel):
    """When work on a database hurts least."""

    weekday_utc: int
    """0 is Sunday."""
    starting_hour_utc: int
    duration_in_hour: int


class DatabaseResource(BaseModel):
    """A deployment, in the superset of fields that the known clients decode."""

    id: str
    resource_id: str
    app_name: str
    created_at: datetime | None
    encryption_at_rest: bool
    features: list[FeatureResource]
    plan: str
    status: Literal["running", "stopped"]
    type_id: str
    type_name: str
    version_id: str
    readable_version: str | None
    instances: list[InstanceResource]
    hostname: str
    periodic_backups_enabled: bool
    periodic_backups_scheduled_at: list[int]
    """Hours in UTC."""
    maintenance_window: WindowResource | None
    current_operation_id: str | None
    next_version_id: str | None
    mongo_repl_set_name: str | None
    first_pitr_backup: datetime | None
    """When the oldest physical backup ended."""
    cluster: bool
    flags: list[str]


class DatabaseBody(BaseModel):
    """The body of `GET /api/databases/:id`."""

    database: DatabaseResource


class ChangeBody(BaseModel):
    """The body of `PATCH` and `PUT /api/databases/:id`."""

    model_config = ConfigDict(extra="forbid")

    database: DatabaseChange


class DatabasesBody(BaseModel):
    """The body of `GET /api/databases`."""

    databases: list[DatabaseResource]


async def list_databases(request: Request) -> Response:
    """List the databases in the token's scope."""
    service = service_of(request)
    databases = service.databases.seen_by(principal_of(request))
    shown = await asyncio.gather(*(show(service, database) for database in databases))
    return as_json({"databases": shown})


async def get_database(request: Request, database_id: str) -> Response:
    """Show one database; it answers even when the engine is down, with what was last known."""
    _, database = database_of(request, database_id)
    return as_json({"database": await show(service_of(request), database)})


async def change_database(request: Request, database_id: str) -> Response:
    """Change the hours of periodic backups or the maintenance window; what is left out stays as it is."""
    principal, database = permitted(request, database_id, UPDATE_DATABASE)
    service = service_of(request)
    body = parse_object(await body_of(request.scope, request.receive))
    change = read_change(body, frozenset(DatabaseResource.model_fields))

    async def look() -> list[str]:
        return shows(await service.choices.of(database.id), change)

    verdict = await became_of(request, Goal.THERE, look)
    if verdict is Verdict.UNKNOWN:
        raise AnswerUnknown(UNTOLD)
    if verdict is Verdict.DONE:
        return as_json({"database": await show(service, database)})
    await begin_change(request, look)
    await service.choices.change(database.id, change)
    service.log.info(
        "database_changed",
        request_id=request.scope["request_id"],
        who=principal.name,
        database=database.id,
        change=change.model_dump(exclude_unset=True),
    )
    return as_json({"database": await show(service, database)})


async def show(service: Service, database: Database) -> dict[str, Any]:
    """Look at the server unless that was just done, and give the fields of `DatabaseResource`."""
    await database.look()
    identity = await database.identity()
    try:
        choices = await service.choices.of(database.id)
        operation = await service.operations.current(database.id)
    except Precondition as problem:
        # As with the identity: a state that cannot be read is no reason to show nothing.
        service.log.warning("choices_not_read", database=database.id, reason=problem.message)
        choices, operation = service.choices.last_known(database.id), None
    seen = database.description
    status = "running" if database.up else "stopped"
    address = database.server.address
    version = seen.readable_version if seen else None
    return {
        "id": database.id,
        "resource_id": identity.resource_id,
        "app_name": database.settings.app_name,
        "created_at": identity.created_at,
        "encryption_at_rest": database.settings.encryption_at_rest,
        "features": [{"name": each.name, "status": each.status} for each in seen.features] if seen else [],
        "plan": database.settings.plan,
        "status": status,
        "type_id": stable_id("type", database.engine.name),
        "type_name": database.engine.name,
        "version_id": stable_id("version", database.engine.name, version or ""),
        "readable_version": version,
        "instances": [
            {
                "id": stable_id("instance", database.id),
                "hostname": address.host,
                "port": address.port,
                "status": status,
                "type": "db-node",
                "private_ip": None,
            }
        ],
        "hostname": address.host,
        "periodic_backups_enabled": choices.periodic_backups_enabled,
        "periodic_backups_scheduled_at": choices.periodic_backups_scheduled_at,
        "maintenance_window": _window(choices.maintenance_window),
        "current_operation_id": operation.id if operation else None,
        "next_version_id": None,
        "mongo_repl_set_name": seen.replica_set if seen else None,
        "first_pitr_backup": service.clusters.first_backups.get(database.id),
        "cluster": False,
        "flags": [],
    }


def _window(chosen: MaintenanceWindow | None) -> dict[str, int] | None:
    if chosen is None:
        return None
    return {
        "weekday_utc": chosen.weekday_utc,
        "starting_hour_utc": chosen.starting_hour_utc,
        "duration_in_hour": WINDOW_HOURS,
    }


def stable_id(*parts: str) -> str:
    """Make an id of 24 hex digits, as the documented API has them, that is the same at every start."""
    return sha256("\0".join(parts).encode()).hexdigest()[:24]


def as_json(body: dict[str, Any] | list[dict[str, Any]], status: int = 200) -> Response:
    """Render an answer."""
    return Response(orjson.dumps(body, option=orjson.OPT_UTC_Z), status, media_type="application/json")
