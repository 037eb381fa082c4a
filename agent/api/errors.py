"""The one place where a cause becomes a status and a body that every known client can read."""

from __future__ import annotations

import re
from typing import Any, cast

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from agent.errors import AgentError
from engines.errors import EngineError

STATUS = {
    "malformed": 400,
    "not_supported": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "protected": 403,
    "privilege_missing": 403,
    "not_found": 404,
    "unknown_action": 404,
    "method_not_allowed": 405,
    "already_exists": 409,
    "precondition": 409,
    "conflict": 409,
    "in_progress": 409,
    "answer_unknown": 409,
    "too_large": 413,
    "range_not_satisfiable": 416,
    "invalid_params": 422,
    "rate_limited": 429,
    "head_too_large": 431,
    "internal": 500,
    "engine_unavailable": 503,
    "overloaded": 503,
    "state_unavailable": 503,
    "not_ready": 503,
    "deadline_exceeded": 504,
}
"""Status by code: the error table."""

PASSES = "dbvalet.passes"
"""Where in its scope a request says that it was refused for what passes: its `Idempotency-Key` may ask again."""

_OF_ACTION = re.compile("/api/databases/[^/]+/action")
"""Failures of these paths carry `"ok": 0`."""


def install(app: FastAPI) -> None:
    """Make every failure of an app answer in this form."""
    app.add_exception_handler(AgentError, refusal)
    app.add_exception_handler(EngineError, refusal)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _bug)


def failure(path: str, code: str, message: str, *, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """Render a failure. `more` stands in the body beside `error` and `code`."""
    body: dict[str, Any] = {"error": message, "code": code, **more}
    if _OF_ACTION.fullmatch(path):
        body = {"ok": 0, **body}
    return Response(orjson.dumps(body), STATUS[code], headers, "application/json")


def refusal(request: HTTPConnection, problem: Exception) -> Response:
    """Render what dbvalet or an engine refuses."""
    if getattr(problem, "passes", False):
        request.scope[PASSES] = True
    return failed(request.scope["path"], cast(AgentError | EngineError, problem))


def failed(path: str, refused: AgentError | EngineError) -> Response:
    """Render what was refused at a path."""
    more = {field: value for field in ("errors", "resource") if (value := getattr(refused, field, None)) is not None}
    headers: dict[str, str] = {}
    retry_after = getattr(refused, "retry_after", None)
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    size = getattr(refused, "size", None)
    if size is not None:
        headers["Content-Range"] = f"bytes */{size}"
    if refused.code == "unauthenticated":
        headers["WWW-Authenticate"] = "Bearer"
    return failure(path, refused.code, refused.message, headers=headers, **more)


def bug(scope: Scope) -> Response:
    """Render a bug, of which the client learns the request id only; the edge logs it."""
    request_id = scope["request_id"]
    text = f"This is a bug of dbvalet. Its log has the details under {request_id}."
    return failure(scope["path"], "internal", text)


def _bug(request: Request, _: Exception) -> Response:
    """Answer in place of Starlette, whose outermost layer answers a bug with plain text before it raises it again."""
    return bug(request.scope)


def _http(request: Request, problem: Exception) -> Response:
    """What the router and FastAPI refuse by themselves."""
    path = request.scope["path"]
    match problem:
        case HTTPException(status_code=404):
            return failure(path, "not_found", "There is nothing at this path.", resource="path")
        case HTTPException(status_code=405):
            allowed = ", ".join(_methods_at(request))
            text = f"This method is not possible here, only {allowed}."
            return failure(path, "method_not_allowed", text, headers={"Allow": allowed})
        case _:
            raise problem


def _methods_at(request: Request) -> list[str]:
    """Give every method of a path; the router's own `Allow` knows one route of several."""
    methods: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def _invalid(request: Request, problem: Exception) -> Response:
    """A query or path parameter that does not fit its type."""
    errors: dict[str, list[str]] = {}
    for error in cast(RequestValidationError, problem).errors():
        errors.setdefault(str(error["loc"][-1]), []).append(str(error["msg"]))
    text = "; ".join(f"{field}: {texts[0]}" for field, texts in errors.items())
    return failure(request.scope["path"], "invalid_params", text, errors=errors)
