"""What stands in the query of a request."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from engines.errors import InvalidParams


def given_once(request: HTTPConnection, name: str) -> str | None:
    """Read a parameter of the query; None where it is not there.

    Raises: InvalidParams, when it is there more than once: which one is meant nobody can tell
    """
    found = request.query_params.getlist(name)
    if len(found) > 1:
        raise InvalidParams({name: ["must not be given more than once"]})
    return found[0] if found else None
