"""Actions: perform one, list them."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from agent.api.edge import body_reader
from agent.api.service import database_of, service_of
from agent.databases import Database
from agent.dispatch import ActionRequest
from agent.tokens import Principal
from engines import deadline
from engines.action import Action
from engines.engine import unavailable
from engines.errors import EngineError

LOOK_SECONDS = 5.0
"""How long finding out what is available may take, for all actions together."""


async def act(request: Request) -> Response:
    """Perform an action on a database."""
    answer = await service_of(request).dispatcher.act(
        ActionRequest(
            id=request.scope["request_id"],
            authorization=request.headers.get("authorization"),
            database_id=request.path_params["database_id"],
            read_body=body_reader(request),
        )
    )
    return Response(answer, media_type="application/json")


async def list_actions(request: Request, database_id: str) -> Response:
    """List the actions of a database: effect, JSON Schemas, and whether each is available or why not."""
    principal, database = database_of(request, database_id)
    reasons = await asyncio.gather(*(_reasons(database, each) for each in database.engine.actions.values()))
    listed = [
        describe(each, _policy(principal, database, each) + why)
        for each, why in zip(database.engine.actions.values(), reasons, strict=True)
    ]
    return Response(orjson.dumps({"actions": listed}), media_type="application/json")


def describe(action: Action, reasons: list[str]) -> dict[str, Any]:
    """Show an action in the catalogue."""
    return {
        "name": action.name,
        "effect": action.effect,
        "summary": action.summary,
        "params_schema": action.params.json_schema(),
        "result_schema": action.result.json_schema(mode="serialization"),
        "deadline_seconds": action.deadline,
        "privileges": action.privileges,
        "settings": action.settings,
        "available": not reasons,
        "unavailable_reason": " ".join(reasons) or None,
    }


def _policy(principal: Principal, database: Database, action: Action) -> list[str]:
    if action.name in database.disabled_actions:
        return ["Switched off for this database."]
    refusal = principal.refusal(action)
    return [refusal] if refusal else []


async def _reasons(database: Database, action: Action) -> list[str]:
    """Ask the live server; when it is down that is the reason."""
    try:
        with deadline.within(LOOK_SECONDS):
            async with asyncio.timeout(LOOK_SECONDS + deadline.GRACE):
                version = database.description.version if database.description else ()
                if not version:
                    await database.look()
                    version = database.description.version if database.description else ()
                return await unavailable(database.server, action, version)
    except EngineError as problem:
        return [problem.message]
    except TimeoutError:
        return ["The engine does not answer."]
