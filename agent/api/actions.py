"""Actions: perform one, list them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent.api.bodies import body_of
from agent.api.service import address_of, authorization_of, database_of
from agent.databases import Database
from agent.dispatch import ActionRequest, Dispatcher
from agent.once import REPLAYED
from agent.tokens import Principal
from engines import deadline
from engines.action import Action, Effect
from engines.engine import unavailable
from engines.errors import EngineError

LOOK_SECONDS = 5.0
"""How long finding out what is available may take, for all actions together."""

_SILENT = "The engine does not answer."


class PerformAction:
    """Performs an action on a database. Plain ASGI: it is the hot path."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = await self._dispatcher.act(
            ActionRequest(
                id=scope["request_id"],
                authorization=authorization_of(scope),
                database_id=scope["path_params"]["database_id"],
                address=address_of(scope),
                headers=scope["headers"],
                read_body=lambda: body_of(scope, receive),
            )
        )
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body))]
        if answer.replayed:
            headers.append(REPLAYED)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


class CatalogueAction(BaseModel):
    """An action as the catalogue shows it."""

    name: str
    effect: Literal["read", "write", "destructive"]
    summary: str
    params_schema: dict[str, Any]
    """JSON Schema of `params`; where `{}` fits it, `params` may as well be null or left out."""
    result_schema: dict[str, Any]
    """JSON Schema of `result`."""
    deadline_seconds: float
    privileges: list[str]
    """What the engine account needs."""
    settings: list[str]
    """What the server's configuration needs."""
    dry_run: bool
    """Whether it can be told what it would do, without doing it: `"dry_run": true` beside `params`."""
    available: bool
    """Whether it would be carried out now, for this token."""
    unavailable_reason: str | None


class ActionsBody(BaseModel):
    """The body of `GET /api/databases/:id/actions`."""

    actions: list[CatalogueAction]


async def list_actions(request: Request, database_id: str) -> Response:
    """List the actions of a database: effect, JSON Schemas, and whether each is available or why not."""
    principal, database = database_of(request, database_id)
    known = list(database.engine.actions.values())
    reasons = await _reasons(database, known)
    listed = [
        describe(each, _policy(principal, database, each) + why) for each, why in zip(known, reasons, strict=True)
    ]
    return Response(orjson.dumps({"actions": listed}), media_type="application/json")


def describe(action: Action, reasons: list[str]) -> dict[str, Any]:
    """Give the fields of `CatalogueAction`."""
    return {
        "name": action.name,
        "effect": action.effect,
        "summary": action.summary,
        "params_schema": action.params.json_schema(),
        "result_schema": action.result.json_schema(mode="serialization"),
        "deadline_seconds": action.deadline,
        "privileges": action.privileges,
        "settings": action.settings,
        "dry_run": action.preview is not None,
        "available": not reasons,
        "unavailable_reason": " ".join(reasons) or None,
    }


def _policy(principal: Principal, database: Database, action: Action) -> list[str]:
    if action.name in database.disabled_actions:
        return ["Switched off for this database."]
    refusal = principal.refusal(action)
    return [refusal] if refusal else []


async def _reasons(database: Database, actions: Sequence[Action]) -> list[list[str]]:
    """Ask the live server, for each action, why it would be refused; when it is down that is the reason for all.

    Raises: Overloaded, never while it is down
    """
    try:
        with deadline.within(LOOK_SECONDS):
            async with asyncio.timeout(LOOK_SECONDS):
                await database.look()
                if database.description is None or not database.up:
                    return [[database.down_reason or _SILENT] for _ in actions]
                version = database.description.version
                with database.admitted(Effect.READ):
                    return await asyncio.gather(*(_reasons_of(database, each, version) for each in actions))
    except TimeoutError:
        return [[_SILENT] for _ in actions]


async def _reasons_of(database: Database, action: Action, version: tuple[int, ...]) -> list[str]:
    try:
        return await unavailable(database.server, action, version)
    except EngineError as problem:
        return [problem.message]
