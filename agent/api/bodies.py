"""What the bodies of routes hold that change something: a field that would have no effect is refused, not overlooked.

It may have been meant to hold the change back: `dry_run` is known to actions alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from agent.api.edge import read_body
from agent.dispatch import parse_object
from engines.errors import InvalidParams


async def fields_of(request: Request, *known: str) -> Mapping[str, Any]:
    """Read a body that is an object of fields that are known.

    Raises: Malformed, TooLarge, InvalidParams
    """
    body = parse_object(await read_body(request.scope, request.receive))
    refuse_others(body, *known)
    return body


async def no_fields(request: Request) -> None:
    """Read a body of which nothing is needed: clients send none, or `{}`.

    Raises: Malformed, TooLarge, InvalidParams
    """
    body = await read_body(request.scope, request.receive)
    if body.strip():
        refuse_others(parse_object(body))


def refuse_others(fields: Mapping[str, Any], *known: str) -> None:
    """Raises: InvalidParams, when there are other fields than those that are known"""
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise InvalidParams({field: ["is not known"] for field in unknown})
