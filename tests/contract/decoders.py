"""Decoders as strict as those of the known clients: what they refuse here breaks somebody's program."""

import json
from datetime import datetime
from typing import Any

import httpx

GO_DECODES = {400, 401, 402, 403, 404, 409, 422, 429}
"""Statuses whose body the Go client reads; a body that is no JSON object hides its text behind a parse error."""


class Undecodable(AssertionError):
    """A client would stop here."""


def go_failure(response: httpx.Response) -> str:
    """Give the text that the command-line client shows for a failure."""
    status = response.status_code
    if status not in GO_DECODES:
        return f"status {status}"
    body = _object(response)
    for field in ("error", "code", "resource", "name", "url"):
        if not isinstance(body.get(field, ""), str):
            raise Undecodable(f"{field} is no text")
    errors = body.get("errors")
    if errors is not None and not (
        isinstance(errors, dict)
        and all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in errors.values())
    ):
        raise Undecodable("errors is no map of lists of texts")
    if status == 422:
        if not errors or not all(errors.values()):
            raise Undecodable("invalid body when returning a 422")
        return "\n".join(f"* {field} → {text}" for field, texts in errors.items() for text in texts)
    if status == 404 and body.get("resource"):
        return f"The {body['resource']} was not found"
    if not body.get("error"):
        raise Undecodable(f"a {status} without a text")
    return body["error"]


def javascript_failure(response: httpx.Response) -> str:
    """Give the message of the JavaScript client's `APIError`."""
    message = _object(response).get("error")
    if not isinstance(message, str) or not message:
        raise Undecodable("the message would be 'An error occurred'")
    return message


def javascript_action(response: httpx.Response) -> Any:
    """Give the result of an action as the JavaScript client hands it on: any 2xx is a success to it."""
    if not 200 <= response.status_code < 300:
        raise Undecodable(javascript_failure(response))
    body = _object(response)
    if body.get("ok") != 1 or set(body) != {"ok", "result"}:
        raise Undecodable(f"no success: {body}")
    return body["result"]


def go_database(response: httpx.Response) -> dict[str, Any]:
    """Decode a database as the Go client does: a field of another type stops its command, null never does."""
    if response.status_code != 200:
        raise Undecodable(f"status {response.status_code}")
    database: dict[str, Any] = _object(response)["database"]
    types: dict[str, type] = {
        **dict.fromkeys(
            ("id", "resource_id", "app_name", "plan", "status", "type_id", "type_name", "version_id", "hostname"), str
        ),
        **dict.fromkeys(("readable_version", "mongo_repl_set_name"), str),
        **dict.fromkeys(("encryption_at_rest", "periodic_backups_enabled", "cluster"), bool),
        **dict.fromkeys(("instances", "features", "periodic_backups_scheduled_at"), list),
    }
    for field, kind in types.items():
        if field not in database:
            raise Undecodable(f"{field} is missing")
        if database[field] is not None and type(database[field]) is not kind:
            raise Undecodable(f"{field} is no {kind.__name__}")
    if any(type(hour) is not int for hour in database["periodic_backups_scheduled_at"]):
        raise Undecodable("an hour is no integer")
    window = database["maintenance_window"]
    if window is not None and any(
        type(window[part]) is not int for part in ("weekday_utc", "starting_hour_utc", "duration_in_hour")
    ):
        raise Undecodable("a part of the window is no integer")
    for instance in database["instances"]:
        if type(instance["port"]) is not int:
            raise Undecodable("a port is no integer")
    for feature in database["features"]:
        if not (isinstance(feature["name"], str) and isinstance(feature["status"], str)):
            raise Undecodable("a feature has no name or status")
    if database["created_at"] is not None and datetime.fromisoformat(database["created_at"]).tzinfo is None:
        raise Undecodable("created_at has no offset")
    return database


def _object(response: httpx.Response) -> dict[str, Any]:
    if response.headers.get("content-type") != "application/json":
        raise Undecodable(f"content type {response.headers.get('content-type')}")
    try:
        body = json.loads(response.content)
    except ValueError as problem:
        raise Undecodable(f"no JSON: {response.content[:80]!r}") from problem
    if not isinstance(body, dict):
        raise Undecodable("no object")
    return body
