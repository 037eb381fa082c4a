"""Features: what the engine itself can switch while it runs is switched; the rest is refused and says why."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from agent.api.bodies import fields_of, no_fields, refuse_others
from agent.api.databases import as_json
from agent.api.openapi import described
from agent.api.query import given_once
from agent.api.service import became_of, begin_change, permitted, service_of
from agent.asked import HEADER
from agent.databases import Database
from agent.errors import AnswerUnknown, NotSupported
from agent.once import NOT_AGAIN
from agent.tasks import CHANGE_FEATURES
from agent.tokens import Principal
from engines import deadline
from engines.aftermath import AS_ASKED, Goal, Verdict
from engines.errors import DeadlineExceeded, InvalidParams
from engines.health import Switched

SECONDS = 10.0


class FeatureName(BaseModel):
    """Which feature; `status` is sent by some clients and means nothing."""

    model_config = ConfigDict(extra="forbid")

    name: str
    status: str = ""


class FeatureBody(BaseModel):
    """The body of `POST /api/databases/:id/features`."""

    model_config = ConfigDict(extra="forbid")

    feature: FeatureName


class SwitchedBody(BaseModel):
    """What became of a feature."""

    name: str
    status: str
    message: str


async def enable_feature(request: Request, database_id: str) -> Response:
    """Switch a feature on; read back from the engine before this answers."""
    principal, database = permitted(request, database_id, CHANGE_FEATURES)
    feature: Any = (await fields_of(request, "feature")).get("feature")
    fields: Mapping[str, Any] = cast(dict[str, Any], feature) if isinstance(feature, dict) else {}
    name = fields.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidParams({"feature": ["must be an object with a name"]})
    refuse_others(fields, "name", "status")
    return await _switch(request, principal, database, name, on=True)


async def disable_feature(request: Request, database_id: str) -> Response:
    """Switch a feature off; read back from the engine before this answers."""
    principal, database = permitted(request, database_id, CHANGE_FEATURES)
    await no_fields(request)
    name = given_once(request, "feature")
    if not name:
        raise InvalidParams({"feature": ["is required in the query"]})
    return await _switch(request, principal, database, name, on=False)


async def _switch(request: Request, principal: Principal, database: Database, name: str, *, on: bool) -> Response:
    if name != "force-ssl":
        raise NotSupported(
            "dbvalet switches the feature force-ssl only: others belong to a platform, not to an engine."
        )
    health = database.engine.health_of(database.server)
    if health is None:
        raise NotSupported(f"{database.engine.title} has nothing that switches TLS.")

    async def look() -> list[str]:
        seen = await database.server.describe()
        return [AS_ASKED if any(each.name == name for each in seen.features) is on else "the other"]

    try:
        with deadline.within(SECONDS):
            async with asyncio.timeout(SECONDS + deadline.GRACE):
                with database.admitted(CHANGE_FEATURES.effect):
                    verdict = await became_of(request, Goal.THERE, look)
                    if verdict is Verdict.UNKNOWN:
                        raise AnswerUnknown(NOT_AGAIN)
                    if verdict is Verdict.DONE:
                        switched = _switched_before(name, on=on)
                    else:
                        await begin_change(request, look)
                        switched = await health.force_ssl(on)
    except TimeoutError as late:
        told = f"Whether it was done is not known: {deadline.awaited(late)} does not answer."
        raise DeadlineExceeded(told) from None
    database.forget()  # the database shows its features, and is to show this one now
    service_of(request).log.info("feature_switched", who=principal.name, database=database.id, feature=name, on=on)
    return as_json({"name": switched.name, "status": switched.status, "message": switched.message})


def _switched_before(name: str, *, on: bool) -> Switched:
    return Switched(
        name=name,
        status="ACTIVATED" if on else "REMOVED",
        message=f"An earlier request with this `{HEADER}` has switched it {'on' if on else 'off'}. A server that does "
        "not keep its settings has it so until it restarts.",
    )


def install(app: FastAPI) -> None:
    """Put the routes of features into an app."""
    path = "/api/databases/{database_id}/features"
    failures = (
        "not_supported",
        "forbidden",
        "privilege_missing",
        "not_found",
        "precondition",
        "invalid_params",
        "engine_unavailable",
        "overloaded",
        "deadline_exceeded",
    )
    app.add_api_route(
        path,
        enable_feature,
        **described(
            *failures,
            "malformed",
            "too_large",
            task=CHANGE_FEATURES,
            method="POST",
            body=FeatureBody,
            response_model=SwitchedBody,
            tags=["features"],
            operation_id="enable_feature",
        ),
    )
    app.add_api_route(
        path,
        disable_feature,
        **described(
            *failures,
            task=CHANGE_FEATURES,
            method="DELETE",
            response_model=SwitchedBody,
            tags=["features"],
            operation_id="disable_feature",
        ),
    )
