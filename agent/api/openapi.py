"""The OpenAPI document: FastAPI's, with every action of the catalogue put into the one route that performs them.

Nothing here names an action, an engine or a route: a route says with `described` how it can fail, and the rest is read
from the catalogue and the error table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from agent.api.errors import STATUS
from agent.api.openapi_actions import KEY_PARAMETER, SCHEMAS, action_schemas, closed_object, perform_action
from agent.codes import causes, meaning
from agent.tasks import Task
from engines.engine import Engine
from engines.errors import InvalidParams, default_message

ACTION_PATH = "/api/databases/{database_id}/action"

_DESCRIPTION = """Carries out named actions on the live servers of self-hosted databases.

Every answer carries `X-Request-Id`, the request's own if it sent a usable one. Every failure is a JSON object with
`error`, a text for people, and `code`, which does not change."""


_ONLY_REFUSED = frozenset({"not_supported", "forbidden", "not_found"})
"""Codes of routes that are there to say what dbvalet does not do: no answer of them is kept."""


def described(
    *codes: str,
    token: bool = True,
    method: str = "GET",
    body: type[BaseModel] | None = None,
    response_class: type[Response] = JSONResponse,
    gives: Mapping[str, str] | None = None,
    query: Mapping[str, Mapping[str, Any]] | None = None,
    task: Task | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Give what `add_api_route` needs of a route whose answer is made by hand and that fails with these codes.

    With `token`, also for want of one and over the rate; and every route can meet a bug. `body` is the model of its
    request. `gives` says where in its answer the parameters of other paths stand (JSON pointers by name): the document
    links it with each route that they lead to. `query` holds the schemas of what its query may say; with `required`
    in one it must. What changes something has the `task` that its token must be allowed, and is counted by it before
    anything else is done; it says when it begins: see `agent.api.changes`.
    """
    every = [*codes, "internal", *(("unauthenticated", "rate_limited") if token else ())]
    if task is not None:
        every += ["state_unavailable"]
        # Also where no body is needed: one that says something is refused.
        every += ["in_progress", "invalid_params", "too_large", "malformed"]
        if "not_supported" not in codes or not _ONLY_REFUSED.issuperset(codes):
            every.append("answer_unknown")  # where it does something, it may be too late for its key
    extra: dict[str, Any] = {
        "x-failures": [code for code in STATUS if code in every],
        "security": [{"token": []}] if token else [],
    }
    if gives:
        extra["x-gives"] = gives
    if task is not None:
        extra["x-task"], extra["x-effect"] = task.name, task.effect.value
    parameters = [_query_parameter(name, schema) for name, schema in (query or {}).items()]
    if task is not None:
        parameters.append(KEY_PARAMETER)
    if parameters:
        extra["parameters"] = parameters
    if body is not None:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": _whole_schema(body)}}}
    return {"methods": [method], "response_class": response_class, "openapi_extra": extra, **more}


def _query_parameter(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    fields = {key: value for key, value in schema.items() if key not in ("required", "description")}
    told = {"description": schema["description"]} if "description" in schema else {}
    return {"name": name, "in": "query", "required": schema.get("required", False), **told, "schema": fields}


def _whole_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Give the schema of a model with those of its parts in place: a route has no place of its own for definitions."""
    schema = model.model_json_schema()
    definitions: dict[str, dict[str, Any]] = schema.pop("$defs", {})

    def put(value: Any) -> Any:
        if isinstance(value, list):
            return [put(each) for each in cast(list[Any], value)]
        if not isinstance(value, dict):
            return value
        fields = cast(dict[str, Any], value)
        named: dict[str, Any] = definitions[fields["$ref"].rpartition("/")[2]] if "$ref" in fields else {}
        return {key: put(each) for key, each in {**named, **fields}.items() if key != "$ref"}

    return put(schema)


def document(app: FastAPI, engines: Mapping[str, Engine]) -> dict[str, Any]:
    """Describe every route and every action."""
    made = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=_DESCRIPTION, routes=app.routes
    )
    components = made["components"]
    schemas: dict[str, Any] = components["schemas"]
    # FastAPI's, for a parameter that does not fit: ours are texts, which always do.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    actions = [(engine, action) for engine in engines.values() for action in engine.actions.values()]
    schemas |= action_schemas(actions)
    made["paths"][ACTION_PATH] = {"post": perform_action(actions)}
    components["responses"] = {}
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "A token of dbvalet's configuration."}
    }
    components["headers"] = {
        "X-Request-Id": {
            "description": "Stands in dbvalet's log beside what the request did.",
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
            "required": True,
        }
    }
    for path, operations in made["paths"].items():
        for operation in operations.values():
            _complete(operation, path, components)
            _link(operation, path, made["paths"])
    return made


def _link(operation: dict[str, Any], path: str, paths: Mapping[str, dict[str, Any]]) -> None:
    """Say where one can go from an answer: to each route whose path holds something that it gives, and nothing new."""
    for of_route in ("x-task", "x-effect"):
        operation.pop(of_route, None)
    given: dict[str, str] = {name: f"$response.body#{place}" for name, place in operation.pop("x-gives", {}).items()}
    known = {**{name: f"$request.path.{name}" for name in _names_in(path)}, **given}
    links = {
        each["operationId"]: {
            "operationId": each["operationId"],
            "parameters": {name: known[name] for name in _names_in(target)},
        }
        for target, operations in paths.items()
        if given.keys() & _names_in(target) and known.keys() >= _names_in(target)
        for each in operations.values()
    }
    if links:
        success = next(status for status in operation["responses"] if status.startswith("2"))
        operation["responses"][success]["links"] = links


def _names_in(path: str) -> set[str]:
    return set(re.findall(r"{(\w+)}", path))


def _complete(operation: dict[str, Any], path: str, components: dict[str, Any]) -> None:
    """Put in how an operation can fail, and among the components what that refers to."""
    success = operation["responses"]
    success.pop("422", None)
    for answer in success.values():
        answer["headers"] = _headers()
    by_status: dict[int, list[str]] = {}
    for code in operation.pop("x-failures"):
        by_status.setdefault(STATUS[code], []).append(code)
    of_action = path == ACTION_PATH
    for status, codes in by_status.items():
        name = ".".join([*(["action"] if of_action else []), *codes])
        components["responses"][name] = _failure_response(status, codes, of_action)
        components["schemas"][_failure_schema_name(status, of_action)] = _failure_schema(status, of_action)
        success[str(status)] = {"$ref": f"#/components/responses/{name}"}


def _headers(status: int = 200) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
    if status in (409, 429, 503):
        headers["Retry-After"] = {
            "description": "Seconds after which to try again.",
            "schema": {"type": "integer", "minimum": 1},
            "required": status != 409,
        }
    if status == 401:
        headers["WWW-Authenticate"] = {"schema": {"const": "Bearer"}, "required": True}
    return headers


def _failure_response(status: int, codes: list[str], of_action: bool) -> dict[str, Any]:
    name = _failure_schema_name(status, of_action)
    return {
        "description": "\n".join(f"- `{code}`: {meaning(code)}" for code in codes),
        "headers": _headers(status),
        "content": {
            "application/json": {
                "schema": {"$ref": SCHEMAS + name, "properties": {"code": {"enum": codes}}},
                "examples": {code: {"value": _failure_example(code, of_action)} for code in codes},
            }
        },
    }


def _failure_schema_name(status: int, of_action: bool) -> str:
    kind = {404: "NotFound", 422: "InvalidParams"}.get(status, "")
    return f"{'Action' if of_action else ''}{kind}Failure"


def _failure_schema(status: int, of_action: bool) -> dict[str, Any]:
    properties: dict[str, Any] = {
        **({"ok": {"const": 0}} if of_action else {}),
        "error": {"type": "string", "minLength": 1, "description": "For people."},
        "code": {"type": "string", "description": "For programs."},
    }
    if status == 404:
        properties["resource"] = {"type": "string", "description": "What was not found."}
    if status == 422:
        properties["errors"] = {
            "type": "object",
            "description": "What is wrong, by field; a bare value is the field `params`.",
            "minProperties": 1,
            "additionalProperties": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        }
    return closed_object(properties, list(properties))


def _failure_example(code: str, of_action: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"ok": 0} if of_action else {}
    cause = next(iter(causes().get(code, [])), None)
    body |= {"error": default_message(cause) if cause else meaning(code), "code": code}
    if STATUS[code] == 404:
        body["resource"] = getattr(cause, "resource", "path")
    if code == InvalidParams.code:
        body["errors"] = {"database_name": ["is required"]}
        body["error"] = "database_name: is required"
    return body
