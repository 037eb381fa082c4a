"""The OpenAPI document: FastAPI's, with every action of the catalogue put into the one route that performs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response

from engines.engine import Engine


def install(app: FastAPI, engines: Mapping[str, Engine]) -> None:
    """Serve the document at `/openapi.json`, made when it is first asked for."""
    made: list[bytes] = []

    async def openapi(_: Request) -> Response:
        if not made:
            made.append(orjson.dumps(document(app, engines)))
        return Response(made[0], media_type="application/json")

    app.add_route("/openapi.json", openapi, include_in_schema=False)


def document(app: FastAPI, engines: Mapping[str, Engine]) -> dict[str, Any]:
    """Describe every route and every action."""
    return get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
