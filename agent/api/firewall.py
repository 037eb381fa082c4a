"""Firewall rules: dbvalet does not stand in the way of connections, so there are none to list and none to change."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from agent.api.openapi import described
from agent.api.service import database_of, permitted, principal_of
from agent.errors import NotSupported
from agent.tasks import CHANGE_FIREWALL

TEXT = (
    "dbvalet manages no firewall: what may connect to this server is decided by its own host, its network and its "
    "engine. An empty list would say that nothing stands in the way, which is not known."
)


async def list_rules(request: Request, database_id: str) -> Response:
    """Refuse to list firewall rules: dbvalet manages no firewall."""
    database_of(request, database_id)
    raise NotSupported(TEXT)


async def create_rule(request: Request, database_id: str) -> Response:
    """Refuse to add a firewall rule: dbvalet manages no firewall."""
    permitted(request, database_id, CHANGE_FIREWALL)
    raise NotSupported(TEXT)


async def change_rule(request: Request, database_id: str, rule_id: str) -> Response:
    """Refuse to change or to delete a firewall rule: dbvalet manages no firewall."""
    permitted(request, database_id, CHANGE_FIREWALL)
    raise NotSupported(TEXT)


async def list_managed_ranges(request: Request) -> Response:
    """Refuse to list managed ranges of addresses: dbvalet manages no firewall."""
    principal_of(request)
    raise NotSupported(TEXT)


def install(app: FastAPI) -> None:
    """Put the routes of firewalls into an app."""
    several = "/api/databases/{database_id}/firewall_rules"
    failures = ("not_supported", "forbidden", "not_found")
    app.add_api_route(
        several,
        list_rules,
        **described(
            "not_supported",
            "not_found",
            tags=["firewall"],
            response_model=dict[str, Any],
            operation_id="list_firewall_rules",
        ),
    )
    app.add_api_route(
        several,
        create_rule,
        **described(
            *failures,
            task=CHANGE_FIREWALL,
            method="POST",
            tags=["firewall"],
            response_model=dict[str, Any],
            operation_id="create_firewall_rule",
        ),
    )
    for method, name in (("PATCH", "change_firewall_rule"), ("DELETE", "delete_firewall_rule")):
        app.add_api_route(
            several + "/{rule_id}",
            change_rule,
            **described(
                *failures,
                task=CHANGE_FIREWALL,
                method=method,
                tags=["firewall"],
                response_model=dict[str, Any],
                operation_id=name,
            ),
        )
    app.add_api_route(
        "/api/firewall/managed_ranges",
        list_managed_ranges,
        **described(
            "not_supported", tags=["firewall"], response_model=dict[str, Any], operation_id="list_managed_ranges"
        ),
    )
