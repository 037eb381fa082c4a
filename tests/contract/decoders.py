"""Decoders as strict as those of the known clients: what they refuse here breaks somebody's program."""

import json
from typing import Any

import httpx

from tests.contract.fields import Undecodable, date, fields, integer, list_of, or_null, text, truth

GO_DECODES = {400, 401, 402, 403, 404, 409, 422, 429}
"""Statuses whose body the Go client reads; a body that is no JSON object hides its text behind a parse error."""

MISREAD = {"app", "container_type"}
"""Resources of a 404 that the command-line client explains in words of its own; on `app` it takes the host apart."""

GO_DATABASE = fields(
    dict.fromkeys(("id", "resource_id", "app_name", "plan", "status", "type_id", "type_name", "version_id"), text),
    **dict.fromkeys(
        ("readable_version", "mongo_repl_set_name", "next_version_id", "current_operation_id"), or_null(text)
    ),
    **dict.fromkeys(("encryption_at_rest", "periodic_backups_enabled", "cluster"), truth),
    created_at=or_null(date),
    hostname=text,
    features=list_of(fields(name=text, status=text)),
    instances=list_of(fields(id=text, hostname=text, port=integer, status=text, type=text, private_ip=or_null(text))),
    periodic_backups_scheduled_at=list_of(integer),
    maintenance_window=or_null(fields(weekday_utc=integer, starting_hour_utc=integer, duration_in_hour=integer)),
)


def go_failure(response: httpx.Response) -> str:
    """Give the text that the command-line client shows for a failure."""
    status = response.status_code
    if status not in GO_DECODES:
        return f"status {status}"
    body = json_object(response)
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
    if status == 404 and body.get("resource") in MISREAD:
        raise Undecodable(f"resource {body['resource']}")
    if status == 404 and body.get("resource"):
        return f"The {body['resource']} was not found"
    if not body.get("error"):
        raise Undecodable(f"a {status} without a text")
    return body["error"]


def javascript_failure(response: httpx.Response) -> str:
    """Give the message of the JavaScript client's `APIError`."""
    message = json_object(response).get("error")
    if not isinstance(message, str) or not message:
        raise Undecodable("the message would be 'An error occurred'")
    return message


def javascript_action(response: httpx.Response) -> Any:
    """Give the result of an action as the JavaScript client hands it on: any 2xx is a success to it."""
    if not 200 <= response.status_code < 300:
        raise Undecodable(javascript_failure(response))
    body = json_object(response)
    if body.get("ok") != 1 or set(body) != {"ok", "result"}:
        raise Undecodable(f"no success: {body}")
    return body["result"]


def go_database(response: httpx.Response) -> dict[str, Any]:
    """Decode a database as the Go client does: a field of another type stops its command, null never does."""
    if response.status_code != 200:
        raise Undecodable(f"status {response.status_code}")
    database: dict[str, Any] = json_object(response)["database"]
    GO_DATABASE(database, "database")
    return database


def json_object(response: httpx.Response) -> dict[str, Any]:
    if response.headers.get("content-type") != "application/json":
        raise Undecodable(f"content type {response.headers.get('content-type')}")
    try:
        body = json.loads(response.content)
    except ValueError as problem:
        raise Undecodable(f"no JSON: {response.content[:80]!r}") from problem
    if not isinstance(body, dict):
        raise Undecodable("no object")
    return body
