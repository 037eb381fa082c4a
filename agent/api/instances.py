"""Instances: how each is, whether it answers, how far behind it is; and what dbvalet does not do to them."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from agent.api.databases import as_json, stable_id
from agent.api.openapi import described
from agent.api.service import database_of, permitted
from agent.databases import Database
from agent.errors import NotSupported
from agent.tasks import UPGRADE_DATABASE
from engines import deadline
from engines.action import Effect
from engines.errors import DeadlineExceeded, EngineError
from engines.health import Role

PING_SECONDS = 5.0
ROLE_SECONDS = 2.0


class InstanceStatus(BaseModel):
    """How one server of a deployment is."""

    id: str
    type: Literal["db-node"]
    status: Literal["running", "stopped"]
    role: Literal["leader", "follower"] | None
    """Null where the engine does not say, and while it does not answer."""


class PingBody(BaseModel):
    """The body of `POST /api/databases/:id/ping`."""

    ping: Literal["pong"]
    milliseconds: float
    """How long the engine took to answer."""


async def list_statuses(request: Request, database_id: str) -> Response:
    """List how the instances of a database are; answered even when the engine is down."""
    _, database = database_of(request, database_id)
    await database.look()
    status = "running" if database.up else "stopped"
    role = await _role(database) if database.up else None
    return as_json([{"id": stable_id("instance", database.id), "type": "db-node", "status": status, "role": role}])


async def _role(database: Database) -> Role | None:
    """Ask the engine for its role; a refusal or a silence is no reason not to answer.

    Raises: Overloaded, never while it is down
    """
    health = database.engine.health_of(database.server)
    if health is None:
        return None
    try:
        with deadline.within(ROLE_SECONDS):
            async with asyncio.timeout(ROLE_SECONDS + deadline.GRACE):
                with database.admitted(Effect.READ):
                    return await health.role()
    except (EngineError, TimeoutError):
        return None


async def ping(request: Request, database_id: str) -> Response:
    """Ask the engine itself whether it answers, at once."""
    _, database = database_of(request, database_id)
    began = time.monotonic()
    try:
        with deadline.within(PING_SECONDS):
            async with asyncio.timeout(PING_SECONDS + deadline.GRACE):
                with database.admitted(Effect.READ):
                    await database.server.describe()
    except TimeoutError:
        raise DeadlineExceeded(f"The engine did not answer within {PING_SECONDS:g} s.") from None
    return as_json({"ping": "pong", "milliseconds": round((time.monotonic() - began) * 1000, 3)})


async def health(request: Request, database_id: str) -> Response:
    """Refuse: the documented answer is that of an engine that dbvalet does not serve."""
    _, database = database_of(request, database_id)
    raise NotSupported(
        f"{database.engine.title} has no cluster health as this route gives it: only Elasticsearch has. "
        "Whether it answers: POST …/ping."
    )


async def upgrade(request: Request, database_id: str) -> Response:
    """Refuse: a server's programs are its operator's to replace."""
    _, database = permitted(request, database_id, UPGRADE_DATABASE)
    raise NotSupported(
        f"dbvalet does not upgrade servers: the programs of {database.engine.title} are installed by whoever runs "
        "them. It sees the new version by itself."
    )


def install(app: FastAPI) -> None:
    """Put the routes of instances into an app."""
    one = "/api/databases/{database_id}"
    app.add_api_route(
        one + "/instances_status",
        list_statuses,
        **described(
            "not_found",
            "overloaded",
            response_model=list[InstanceStatus],
            tags=["instances"],
            operation_id="list_instances_status",
        ),
    )
    app.add_api_route(
        one + "/ping",
        ping,
        **described(
            "not_found",
            "engine_unavailable",
            "overloaded",
            "deadline_exceeded",
            method="POST",
            response_model=PingBody,
            tags=["instances"],
            operation_id="ping_database",
        ),
    )
    app.add_api_route(
        one + "/health",
        health,
        **described(
            "not_supported",
            "not_found",
            tags=["instances"],
            response_model=dict[str, Any],
            operation_id="get_database_health",
        ),
    )
    app.add_api_route(
        one + "/upgrade",
        upgrade,
        **described(
            "not_supported",
            "forbidden",
            "not_found",
            task=UPGRADE_DATABASE,
            method="POST",
            tags=["instances"],
            response_model=dict[str, Any],
            operation_id="upgrade_database",
        ),
    )
