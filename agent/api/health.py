"""Different questions, different answers: alive, ready, counted."""

from __future__ import annotations

import orjson
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from agent.api.service import principal_of, service_of


async def livez(request: Request) -> Response:
    """Tell that the process answers. Touches no engine."""
    return Response(b'{"status":"alive"}', media_type="application/json")


async def readyz(request: Request) -> Response:
    """Tell whether requests can be served: 503 before the start is over and once the end has begun."""
    ready = service_of(request).ready
    body = orjson.dumps({"status": "ready" if ready else "not ready"})
    return Response(body, 200 if ready else 503, media_type="application/json")


async def metrics(request: Request) -> Response:
    """Give the metrics of every database in the text form of Prometheus."""
    service = service_of(request)
    if not service.metrics_are_public:
        principal_of(request).require_all_databases()
    return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)
