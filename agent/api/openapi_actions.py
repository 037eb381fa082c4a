"""Actions in the OpenAPI document: a request and an answer for each of the catalogue, in the one route they share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from agent.api.errors import STATUS
from agent.asked import HEADER, LONGEST
from agent.paging import PAGE_FIELDS, ListMeta
from engines.action import Action, Effect
from engines.engine import Engine
from engines.errors import InvalidParams
from engines.preview import Preview

SCHEMAS = "#/components/schemas/"

_OF_OTHERS = {"method_not_allowed", "not_ready", "range_not_satisfiable", "head_too_large"}

_OF_ACTIONS = [code for code in STATUS if code not in _OF_OTHERS]
"""How an action can fail: any engine may raise any cause."""

KEY_PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Chosen by the client, a new one for each request that is to be carried out: whoever sends the same "
    "request with the same key again, within a day, gets the first answer, and nothing is done twice.",
    "schema": {"type": "string", "pattern": f"^[!-~]{{1,{LONGEST}}}$"},
}

_DRY_RUN, _PAGE, _BACKUP = "dry-run", "page", "backup"

DRY_RUN_FIELD: dict[str, Any] = {
    "type": "boolean",
    "default": False,
    "description": "Change nothing, and tell what would be changed, or why it would be refused.",
}

BACKUP_FIRST_FIELD: dict[str, Any] = {
    "type": "boolean",
    "description": "Of what destroys something: whether a backup of it is made first.",
}

DRY_RUN_EXAMPLE: dict[str, Any] = {
    "ok": 1,
    "dry_run": True,
    "result": {
        "would": "Deletes the logical database 'custom-db' with 1 object in it.",
        "objects": [
            {"change": "remove", "kind": "logical database", "name": "custom-db", "rows": None, "bytes": None},
            {"change": "remove", "kind": "table", "name": "users", "rows": 500, "bytes": 16384},
        ],
        "total": 2,
        "truncated": False,
        "sessions": 0,
        "keeps": ["the grants of 'app'@'%' on it"],
        "warnings": [],
        "before": None,
        "after": None,
    },
}


class BackupFirstMade(TypedDict):
    """The backup of what was destroyed, made before that where `backup_before_destroy` says so."""

    id: str
    """`GET /api/backups/ID` shows it."""
    name: str
    """With `.tar.gz` it is the name of its archive."""
    logical_database: str | None
    """Null is the deployment's own."""


def perform_action(actions: Iterable[tuple[Engine, Action]]) -> dict[str, Any]:
    """Describe the one route that performs actions: a request and an answer for each of them."""
    names = [(_name(engine, action), engine, action) for engine, action in actions]
    return {
        "tags": ["actions"],
        "summary": "Perform an action on a database",
        "description": "\n".join(
            f"- {engine.title}: `{action.name}` ({action.effect}): {action.summary}" for _, engine, action in names
        ),
        "operationId": "perform_action",
        "security": [{"token": []}],
        "parameters": [
            {"name": "database_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
            KEY_PARAMETER,
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"anyOf": [{"$ref": f"{SCHEMAS}{name}.request"} for name, _, _ in names]},
                    "examples": {
                        name: {"summary": f"{engine.title}: {action.summary}", "value": request_example(action)}
                        for name, engine, action in names
                    },
                }
            },
        },
        "responses": {
            "200": {
                "description": "It was done; or, with `dry_run`, what it would do.",
                "content": {
                    "application/json": {
                        "schema": {
                            "anyOf": [
                                *({"$ref": f"{SCHEMAS}{name}.response"} for name, _, _ in names),
                                {"$ref": f"{SCHEMAS}{_DRY_RUN}.response"},
                            ]
                        },
                        "examples": {
                            **{
                                name: {"value": {"ok": 1, "result": action.example_result}} for name, _, action in names
                            },
                            _DRY_RUN: {"summary": "A dry run", "value": DRY_RUN_EXAMPLE},
                        },
                    }
                },
            }
        },
        "x-failures": _OF_ACTIONS,
    }


def request_example(action: Action) -> dict[str, Any]:
    """Give the body of a request for an action."""
    body: dict[str, Any] = {"action_name": action.name}
    if action.example_params is not None:
        body["params"] = action.example_params
    return body


def action_schemas(actions: Iterable[tuple[Engine, Action]]) -> dict[str, Any]:
    """Give the schemas of every action's request and response, and the models that they are made of."""
    adapters: list[tuple[tuple[str, str], Any, TypeAdapter[Any]]] = []
    for engine, action in actions:
        name = _name(engine, action)
        adapters += [
            ((name, "params"), "validation", action.params),
            ((name, "result"), "serialization", action.result),
        ]
    adapters.append(((_DRY_RUN, "result"), "serialization", TypeAdapter(Preview)))
    adapters.append(((_BACKUP, "backup"), "serialization", TypeAdapter(BackupFirstMade)))
    adapters.append(((_BACKUP, "earlier"), "serialization", TypeAdapter(list[BackupFirstMade])))
    adapters.append(((_PAGE, "meta"), "serialization", TypeAdapter(ListMeta)))
    # All at once: pydantic then gives models of one name, of two engines for example, names of their own.
    found, definitions = TypeAdapter.json_schemas(adapters, ref_template=SCHEMAS + "engines.{model}")
    schemas: dict[str, Any] = {f"engines.{name}": schema for name, schema in definitions.get("$defs", {}).items()}
    for engine, action in actions:
        name = _name(engine, action)
        request: dict[str, Any] = {"action_name": {"const": action.name}}
        required = ["action_name"]
        request["params"] = found[(name, "params"), "validation"]
        if _may_be_left_out(action):
            request["params"] = {"anyOf": [request["params"], {"type": "null"}]}
        else:
            required.append("params")
        if action.preview is not None:
            request["dry_run"] = DRY_RUN_FIELD
        if action.gives_list:
            request |= PAGE_FIELDS
        schemas[f"{name}.request"] = closed_object(request, required) | {"description": action.summary}
        response = {"ok": {"const": 1}, "result": found[(name, "result"), "serialization"]}
        if action.gives_list:
            response["meta"] = found[(_PAGE, "meta"), "serialization"]
        if action.effect is Effect.DESTRUCTIVE:
            response["backup"] = found[(_BACKUP, "backup"), "serialization"]
            response["earlier_backups"] = found[(_BACKUP, "earlier"), "serialization"] | {
                "description": "Those made by earlier tries with the same key, which were cut off."
            }
        schemas[f"{name}.response"] = closed_object(response, ["ok", "result"])
    dry_run = {
        "ok": {"const": 1},
        "dry_run": {"const": True},
        "result": found[(_DRY_RUN, "result"), "serialization"],
    }
    required = list(dry_run)
    dry_run["backup_first"] = BACKUP_FIRST_FIELD
    schemas[f"{_DRY_RUN}.response"] = closed_object(dry_run, required)
    return schemas


def _may_be_left_out(action: Action) -> bool:
    """Tell whether the params may: absent, null and {} are one case."""
    try:
        action.validate(None)
    except InvalidParams:
        return False
    return True


def closed_object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _name(engine: Engine, action: Action) -> str:
    return f"{engine.name}.{action.name}"
