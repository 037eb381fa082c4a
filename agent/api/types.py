"""Database types, their versions, and plans: what the configuration declares and the live servers say."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from agent.api.databases import as_json, stable_id
from agent.api.openapi import described
from agent.api.service import database_of, principal_of, service_of
from agent.databases import Database
from agent.errors import CertificateNotFound, PlanNotFound, TypeNotFound, VersionNotFound


class PlanResource(BaseModel):
    """What a database is declared to be."""

    id: str
    name: str
    backup: bool
    """Every engine can be backed up."""
    disk: int | None
    """Bytes; null, since the configuration does not say."""
    memory: int | None
    """Bytes; null, since the configuration does not say."""


class PlanBody(BaseModel):
    """The body of `GET /api/databases/:id/plan` and of `GET /api/plans/:name`."""

    plan: PlanResource


class TypeResource(BaseModel):
    """A kind of database server."""

    id: str
    name: str
    display_name: str


class TypeBody(BaseModel):
    """The body of `GET /api/database_types/:id`."""

    database_type: TypeResource


class TypesBody(BaseModel):
    """The body of `GET /api/database_types`."""

    database_types: list[TypeResource]


class VersionResource(BaseModel):
    """A version that one of the databases has."""

    id: str
    database_type_id: str
    major: int
    minor: int
    patch: int
    build: int
    next_upgrade: None
    """dbvalet upgrades nothing."""
    allowed_plugins: None


class VersionBody(BaseModel):
    """The body of `GET /api/database_type_versions/:id`."""

    database_type_version: VersionResource


async def get_plan(request: Request, database_id: str) -> Response:
    """Show the plan of a database, as its configuration names it."""
    _, database = database_of(request, database_id)
    return as_json({"plan": _plan(database)})


async def get_plan_by_name(request: Request, name: str) -> Response:
    """Show a plan by its name: one that a database in the token's scope has, of the `type` that the query may name."""
    kind = request.query_params.get("type")
    for each in service_of(request).databases.seen_by(principal_of(request)):
        if each.settings.plan == name and kind in (None, "", each.engine.name):
            return as_json({"plan": _plan(each)})
    raise PlanNotFound


async def list_types(request: Request) -> Response:
    """List the types of the databases in the token's scope."""
    return as_json({"database_types": [_type(each) for each in _one_of_each_type(request)]})


async def get_type(request: Request, type_id: str) -> Response:
    """Show one type."""
    for each in _one_of_each_type(request):
        if stable_id("type", each.engine.name) == type_id:
            return as_json({"database_type": _type(each)})
    raise TypeNotFound


async def get_version(request: Request, version_id: str) -> Response:
    """Show a version that a database in the token's scope has."""
    databases = service_of(request).databases.seen_by(principal_of(request))
    await asyncio.gather(*(each.look() for each in databases))
    for each in databases:
        seen = each.description
        if seen is not None and stable_id("version", each.engine.name, seen.readable_version) == version_id:
            major, minor, patch, build = (*seen.version, 0, 0, 0, 0)[:4]
            shown = {
                "id": version_id,
                "database_type_id": stable_id("type", each.engine.name),
                "major": major,
                "minor": minor,
                "patch": patch,
                "build": build,
                "next_upgrade": None,
                "allowed_plugins": None,
            }
            return as_json({"database_type_version": shown})
    raise VersionNotFound


async def get_ca_certificate(request: Request) -> Response:
    """Give the CA certificate that the configuration names; no token is needed, as it is no secret."""
    file = service_of(request).ca_certificate
    if file is None:
        raise CertificateNotFound
    try:
        content = await asyncio.to_thread(file.read_bytes)
    except OSError as problem:
        service_of(request).log.warning("certificate_not_read", reason=problem.strerror)
        raise CertificateNotFound("The CA certificate cannot be read: dbvalet's log says why.") from problem
    return Response(
        content,
        headers={"Content-Disposition": 'attachment; filename="ca.pem"'},
        media_type="application/x-pem-file",
    )


def _one_of_each_type(request: Request) -> list[Database]:
    seen = service_of(request).databases.seen_by(principal_of(request))
    return list({each.engine.name: each for each in seen}.values())


def _type(database: Database) -> dict[str, Any]:
    engine = database.engine
    return {"id": stable_id("type", engine.name), "name": engine.name, "display_name": engine.title}


def _plan(database: Database) -> dict[str, Any]:
    name = database.settings.plan
    backup = database.engine.backups is not None
    return {"id": stable_id("plan", name), "name": name, "backup": backup, "disk": None, "memory": None}


def install(app: FastAPI) -> None:
    """Put the routes of types, versions, plans and the CA certificate into an app."""
    of_database = "/api/databases/{database_id}"
    for path, endpoint, model, name in (
        (of_database + "/plan", get_plan, PlanBody, "get_plan"),
        ("/api/plans/{name}", get_plan_by_name, PlanBody, "get_plan_by_name"),
        ("/api/database_types/{type_id}", get_type, TypeBody, "get_database_type"),
        ("/api/database_type_versions/{version_id}", get_version, VersionBody, "get_database_type_version"),
    ):
        app.add_api_route(
            path, endpoint, **described("not_found", response_model=model, tags=["types"], operation_id=name)
        )
    app.add_api_route(
        "/api/database_types",
        list_types,
        **described(response_model=TypesBody, tags=["types"], operation_id="list_database_types"),
    )
    app.add_api_route(
        "/api/ca_certificate",
        get_ca_certificate,
        **described(
            "not_found", token=False, tags=["types"], response_model=dict[str, Any], operation_id="get_ca_certificate"
        ),
    )
