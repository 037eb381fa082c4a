"""Databases: list them, show one."""

from __future__ import annotations

import asyncio
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from agent.api.service import database_of, principal_of, service_of
from agent.databases import Database


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
    current_operation_id: str | None
    next_version_id: str | None
    mongo_repl_set_name: str | None
    first_pitr_backup: str | None
    cluster: bool
    flags: list[str]


class DatabaseBody(BaseModel):
    """The body of `GET /api/databases/:id`."""

    database: DatabaseResource


class DatabasesBody(BaseModel):
    """The body of `GET /api/databases`."""

    databases: list[DatabaseResource]


async def list_databases(request: Request) -> Response:
    """List the databases in the token's scope."""
    databases = service_of(request).databases.seen_by(principal_of(request))
    shown = await asyncio.gather(*(show(database) for database in databases))
    return _json({"databases": shown})


async def get_database(request: Request, database_id: str) -> Response:
    """Show one database; it answers even when the engine is down, with what was last known."""
    _, database = database_of(request, database_id)
    return _json({"database": await show(database)})


async def show(database: Database) -> dict[str, Any]:
    """Look at the server unless that was just done, and give the fields of `DatabaseResource`."""
    await database.look()
    identity = await database.identity()
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
        "periodic_backups_enabled": False,
        "periodic_backups_scheduled_at": [],
        "current_operation_id": None,
        "next_version_id": None,
        "mongo_repl_set_name": seen.replica_set if seen else None,
        "first_pitr_backup": None,
        "cluster": False,
        "flags": [],
    }


def stable_id(*parts: str) -> str:
    """Make an id of 24 hex digits, as the documented API has them, that is the same at every start."""
    return sha256("\0".join(parts).encode()).hexdigest()[:24]


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_UTC_Z), media_type="application/json")
