"""The audit, for who may destroy what it tells of: the lines of the databases in a token's scope."""

from __future__ import annotations

from typing import Any, Literal

import orjson
from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from agent.api.databases import as_json
from agent.api.openapi import described
from agent.api.query import given_once
from agent.api.service import principal_of, service_of
from agent.audit.line import Tampered
from agent.dispatch import authorise
from agent.errors import Forbidden, StateUnavailable
from agent.tasks import READ_AUDIT
from engines.errors import InvalidParams

PER_PAGE = 100
MOST = 1000
FURTHEST = 2**53

JSON_LINES = "application/x-ndjson"

QUERY: dict[str, dict[str, Any]] = {
    "after": {
        "type": "integer",
        "minimum": 0,
        "maximum": FURTHEST,
        "description": "Lines behind the one of this `sequence`: 0, all, unless given. `next_after` is where to go on.",
    },
    "limit": {
        "type": "integer",
        "minimum": 1,
        "maximum": MOST,
        "description": f"Lines at most: {PER_PAGE} unless given.",
    },
    "database": {"type": "string", "description": "Lines of this database alone."},
}


class AuditLine(BaseModel):
    """What was changed or was to be."""

    sequence: int
    """Its place in the whole audit, from 1: what is left out here leaves a gap."""
    previous: str
    """The digest of the line before; empty in the first."""
    at: str
    """RFC 3339, in UTC."""
    request_id: str
    """As in `X-Request-Id` and in dbvalet's log; the id of the operation where that does it without a request."""
    who: str
    """The name of the token; `schedule` or `dbvalet` where nobody asked."""
    address: str | None
    """Of the client's connection."""
    method: str
    """`COMMAND` of `dbvalet token`, `OPERATION` of one that has ended, `KEEP` of a backup that is no longer kept,
    `SCHEDULE` of one that the schedule begins."""
    path: str
    """Without its query."""
    action: str
    """The name of the action or of what the route does."""
    effect: Literal["write", "destructive"]
    database: str | None
    """Null where it is about none."""
    params: Any
    """Without secrets, and of 8 KiB at most: `…` stands where something is left out."""
    status: int | None
    """Null where there was no answer, or is none yet, and of what was done without a request or after its answer."""
    code: str
    """`ok`, `begun`, `client_left` or that of the failure; of an operation that has ended, `ok` or its status,
    and `cleaned_up` once what it left on the server is gone; of a deletion that outlasted its answer, `ok` or
    `error`."""
    replayed: bool
    """Whether an earlier answer was given again for its `Idempotency-Key`."""
    backups: list[str] = Field(default_factory=list[str])
    """Ids of the backups that were made before of what it destroys, the oldest first; left out where there are none."""
    digest: str
    """SHA-256 of the line without it, its keys sorted."""


class AuditBody(BaseModel):
    """The body of `GET /api/audit`."""

    audit: list[AuditLine]
    next_after: int | None
    """`after` of the next page; null when there is none."""


AS_LINES = {"type": "string", "description": "A line of the audit as JSON, on each line of the text."}


async def list_audit(request: Request) -> Response:
    """List the lines of the audit in their order, after one of them; as JSON lines to who accepts them.

    Those of a database for which this is switched off are left out.
    """
    principal = principal_of(request)
    refusal = principal.refusal(READ_AUDIT)
    if refusal:
        raise Forbidden(refusal)
    after = _number(given_once(request, "after"), "after", 0, 0, FURTHEST)
    limit = _number(given_once(request, "limit"), "limit", PER_PAGE, 1, MOST)
    service = service_of(request)
    scope = None if principal.databases is None else set(principal.databases)
    hidden = {each.id for each in service.databases if READ_AUDIT.name in each.disabled_actions}
    if (wanted := given_once(request, "database")) is not None:
        database = service.databases.find(principal, wanted)
        authorise(principal, database, READ_AUDIT)
        scope = {database.id}
    rows = await service.journal.page(after=after, limit=limit, databases=scope, hidden=hidden)
    try:
        lines = [row.shown() for row in rows]
    except Tampered as changed:
        raise StateUnavailable(f"The audit cannot be shown: {changed} `dbvalet audit verify` tells more.") from changed
    if JSON_LINES in request.headers.get("accept", ""):
        return Response(b"".join(orjson.dumps(line) + b"\n" for line in lines), media_type=JSON_LINES)
    return as_json({"audit": lines, "next_after": rows[-1].sequence if len(rows) == limit else None})


def _number(text: str | None, name: str, default: int, least: int, most: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and least <= int(text) <= most):
        raise InvalidParams({name: [f"must be a whole number from {least} to {most}"]})
    return int(text)


def install(app: FastAPI) -> None:
    """Put the route of the audit into an app."""
    app.add_api_route(
        "/api/audit",
        list_audit,
        **described(
            "forbidden",
            "not_found",
            "state_unavailable",
            "invalid_params",
            query=QUERY,
            response_model=AuditBody,
            responses={200: {"content": {JSON_LINES: {"schema": AS_LINES}}}},
            tags=["audit"],
            operation_id="list_audit",
        ),
    )
