"""Maintenance: dbvalet plans none by itself, so its list is empty; the window that clients choose is the database's."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from agent.api.databases import as_json
from agent.api.openapi import described
from agent.api.query import given_once
from agent.api.service import database_of
from agent.errors import MaintenanceNotFound
from agent.paging import LARGEST, PER_PAGE, ListMeta, Page
from engines.errors import InvalidParams


class MaintenanceResource(BaseModel):
    """Work on a database that is planned, under way or over."""

    id: str
    type: str
    status: Literal["scheduled", "notified", "queued", "cancelled", "running", "failed", "done"]
    started_at: str | None
    ended_at: str | None


class MaintenanceBody(BaseModel):
    """The body of `GET /api/databases/:id/maintenance`."""

    maintenance: list[MaintenanceResource]
    meta: ListMeta


async def list_maintenance(request: Request, database_id: str) -> Response:
    """List the maintenance of a database: always empty, since dbvalet plans none by itself."""
    database_of(request, database_id)
    page = Page(positive(request, "page", 1), positive(request, "per_page", PER_PAGE))
    return as_json({"maintenance": [], "meta": page.place_in(0)})


async def get_maintenance(request: Request, database_id: str, maintenance_id: str) -> Response:
    """Show one maintenance: there is none."""
    database_of(request, database_id)
    raise MaintenanceNotFound


def positive(request: Request, name: str, default: int) -> int:
    """Read a number of the query, from 1 to `LARGEST`.

    Raises: InvalidParams
    """
    text = given_once(request, name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= LARGEST):
        raise InvalidParams({name: [f"must be a whole number from 1 to {LARGEST}"]})
    return int(text)


def install(app: FastAPI) -> None:
    """Put the routes of maintenance into an app."""
    path = "/api/databases/{database_id}/maintenance"
    app.add_api_route(
        path,
        list_maintenance,
        **described(
            "not_found",
            "invalid_params",
            query={name: {"type": "integer", "minimum": 1, "maximum": LARGEST} for name in ("page", "per_page")},
            response_model=MaintenanceBody,
            tags=["maintenance"],
            operation_id="list_maintenance",
        ),
    )
    app.add_api_route(
        path + "/{maintenance_id}",
        get_maintenance,
        **described("not_found", tags=["maintenance"], response_model=dict[str, Any], operation_id="get_maintenance"),
    )
