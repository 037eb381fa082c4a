"""Different questions, different answers: alive, ready, counted."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from agent.api.service import principal_of, service_of
from agent.errors import NotReady


class AliveBody(BaseModel):
    """The body of `GET /livez`."""

    status: Literal["alive"]


class ReadyBody(BaseModel):
    """The body of `GET /readyz`."""

    status: Literal["ready"]


async def livez(request: Request) -> Response:
    """Tell that the process answers. Touches no engine."""
    return Response(b'{"status":"alive"}', media_type="application/json")


async def readyz(request: Request) -> Response:
    """Tell whether requests can be served: 503 before the start is over and once the end has begun."""
    if not service_of(request).ready:
        raise NotReady
    return Response(b'{"status":"ready"}', media_type="application/json")


async def metrics(request: Request) -> Response:
    """Give the metrics of every database in the text form of Prometheus."""
    service = service_of(request)
    if not service.metrics_are_public:
        principal_of(request).require_all_databases()
    return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)
