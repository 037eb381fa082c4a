"""What the bodies of routes hold that change something: a field that would have no effect is refused, not overlooked.

It may have been meant to hold the change back: `dry_run` is known to actions alone, and in their bodies alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.types import Receive, Scope

from agent.api.edge import read_body
from agent.dispatch import parse_object
from engines.errors import InvalidParams

DRY_RUN = "dry_run"

IN_QUERY = (
    "has no effect in the query, so nothing was done: it belongs in the body of an action, beside params; other routes "
    "have no dry run"
)


async def body_of(scope: Scope, receive: Receive) -> bytes:
    """Read the body of what may change something, whose query must not say that it is only to be tried.

    Raises: InvalidParams, Malformed, TooLarge
    """
    if scope["query_string"] and DRY_RUN in QueryParams(scope["query_string"]):
        raise InvalidParams({DRY_RUN: [IN_QUERY]})
    return await read_body(scope, receive)


async def fields_of(request: Request, *known: str) -> Mapping[str, Any]:
    """Read a body that is an object of fields that are known.

    Raises: Malformed, TooLarge, InvalidParams
    """
    body = parse_object(await body_of(request.scope, request.receive))
    refuse_others(body, *known)
    return body


async def no_fields(request: Request) -> None:
    """Read a body of which nothing is needed: clients send none, or `{}`.

    Raises: Malformed, TooLarge, InvalidParams
    """
    body = await body_of(request.scope, request.receive)
    if body.strip():
        refuse_others(parse_object(body))


def refuse_others(fields: Mapping[str, Any], *known: str) -> None:
    """Raises: InvalidParams, when there are other fields than those that are known"""
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise InvalidParams({field: ["is not known"] for field in unknown})
