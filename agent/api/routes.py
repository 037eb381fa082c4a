"""The route table: every path, what answers it and how it can fail."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import cache

from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route

from agent.api import (
    actions,
    audit,
    backups,
    databases,
    docs,
    features,
    firewall,
    health,
    instances,
    logs,
    maintenance,
    measurements,
    operations,
    pitr,
    platform,
    types,
    users,
)
from agent.api.changes import ChangeRoute
from agent.api.openapi import ACTION_PATH, described
from agent.dispatch import Dispatcher
from agent.paging import PAGE_FIELDS
from agent.tasks import CANCEL_OPERATION, CREATE_BACKUP, DELETE_BACKUP, RESTORE_BACKUP, UPDATE_DATABASE
from engines.engine import Engine

READS = ("not_found", "state_unavailable")
"""How a request can fail that reads what dbvalet keeps."""

CHANGES = ("malformed", "forbidden", "not_found", "too_large", "invalid_params")
"""How a request can fail that changes what dbvalet keeps."""


def action_route(dispatcher: Dispatcher) -> Route:
    """Make the one route that performs actions; the OpenAPI document describes it from the catalogue."""
    return Route(ACTION_PATH, actions.PerformAction(dispatcher), methods=["POST"])


def install(app: FastAPI, hot: Route, engines: Mapping[str, Engine], *, metrics_are_public: bool) -> None:
    """Put every route into an app, the hot one first."""
    app.router.routes += [hot, *map(copy, _table(metrics_are_public))]
    pages = docs.Docs(app, engines)
    app.add_route("/openapi.json", pages.openapi, methods=["GET"], include_in_schema=False)
    app.add_route("/docs", pages.page, methods=["GET"], include_in_schema=False)


@cache
def _table(metrics_are_public: bool) -> list[BaseRoute]:
    """Make the routes that know of no app: each finds its service by its request. FastAPI takes 40 ms to read them."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.router.route_class = ChangeRoute
    app.add_api_route(
        "/api/databases",
        databases.list_databases,
        **described(response_model=databases.DatabasesBody, tags=["databases"], operation_id="list_databases"),
    )
    app.add_api_route(
        "/api/databases/{database_id}",
        databases.get_database,
        **described(
            "not_found", response_model=databases.DatabaseBody, tags=["databases"], operation_id="get_database"
        ),
    )
    for method in ("PATCH", "PUT"):
        app.add_api_route(
            "/api/databases/{database_id}",
            databases.change_database,
            **described(
                *CHANGES,
                task=UPDATE_DATABASE,
                method=method,
                body=databases.ChangeBody,
                response_model=databases.DatabaseBody,
                tags=["databases"],
                operation_id=f"{'change' if method == 'PATCH' else 'put'}_database",
            ),
        )
    app.add_api_route(
        "/api/databases/{database_id}/actions",
        actions.list_actions,
        **described(
            "not_found",
            "overloaded",
            response_model=actions.ActionsBody,
            tags=["actions"],
            operation_id="list_actions",
        ),
    )
    one_operation = "/api/databases/{database_id}/operations/{operation_id}"
    app.add_api_route(
        "/api/databases/{database_id}/operations",
        operations.list_operations,
        **described(
            *READS,
            "invalid_params",
            "too_large",
            query=PAGE_FIELDS,
            response_model=operations.OperationsBody,
            tags=["operations"],
            operation_id="list_operations",
        ),
    )
    app.add_api_route(
        one_operation,
        operations.get_operation,
        **described(*READS, response_model=operations.OperationBody, tags=["operations"], operation_id="get_operation"),
    )
    app.add_api_route(
        one_operation + "/cancel",
        operations.cancel_operation,
        **described(
            *READS,
            "forbidden",
            "conflict",
            task=CANCEL_OPERATION,
            method="POST",
            response_model=operations.OperationBody,
            tags=["operations"],
            operation_id="cancel_operation",
        ),
    )
    _install_backups(app)
    audit.install(app)
    features.install(app)
    firewall.install(app)
    instances.install(app)
    logs.install(app)
    maintenance.install(app)
    measurements.install(app)
    pitr.install(app)
    platform.install(app)
    types.install(app)
    users.install(app)
    app.add_api_route(
        "/livez",
        health.livez,
        **described(token=False, response_model=health.AliveBody, tags=["health"], operation_id="livez"),
    )
    app.add_api_route(
        "/readyz",
        health.readyz,
        **described("not_ready", token=False, response_model=health.ReadyBody, tags=["health"], operation_id="readyz"),
    )
    app.add_api_route(
        "/metrics",
        health.metrics,
        **described(
            *(() if metrics_are_public else ("forbidden",)),
            token=not metrics_are_public,
            response_class=PlainTextResponse,
            tags=["health"],
            operation_id="metrics",
        ),
    )
    return app.router.routes


def _install_backups(app: FastAPI) -> None:
    several, one = "/api/databases/{database_id}/backups", "/api/databases/{database_id}/backups/{backup_id}"
    app.add_api_route(
        several,
        backups.list_backups,
        **described(
            *READS,
            "invalid_params",
            "too_large",
            query=PAGE_FIELDS,
            response_model=backups.BackupsBody,
            tags=["backups"],
            operation_id="list_backups",
        ),
    )
    app.add_api_route(
        several,
        backups.create_backup,
        **described(
            *CHANGES,
            "precondition",
            "conflict",
            "engine_unavailable",
            "overloaded",
            task=CREATE_BACKUP,
            method="POST",
            status_code=201,
            response_model=backups.BackupBody,
            gives={"backup_id": "/database_backup/id", "operation_id": "/database_backup/operation_id"},
            tags=["backups"],
            operation_id="create_backup",
        ),
    )
    app.add_api_route(
        one,
        backups.get_backup,
        **described(*READS, response_model=backups.BackupBody, tags=["backups"], operation_id="get_backup"),
    )
    app.add_api_route(
        "/api/backups/{backup_id}",
        backups.get_backup_alone,
        **described(*READS, response_model=backups.BackupBody, tags=["backups"], operation_id="get_backup_alone"),
    )
    app.add_api_route(
        one,
        backups.delete_backup,
        **described(
            *READS,
            "forbidden",
            "precondition",
            "conflict",
            "deadline_exceeded",
            task=DELETE_BACKUP,
            method="DELETE",
            status_code=204,
            tags=["backups"],
            operation_id="delete_backup",
        ),
    )
    app.add_api_route(
        one + "/archive",
        backups.get_archive,
        **described(
            *READS,
            "forbidden",
            "precondition",
            "conflict",
            response_model=backups.ArchiveBody,
            tags=["backups"],
            operation_id="get_backup_archive",
        ),
    )
    app.add_api_route(
        one + "/restore",
        backups.restore_backup,
        **described(
            *CHANGES,
            "precondition",
            "conflict",
            "engine_unavailable",
            "overloaded",
            task=RESTORE_BACKUP,
            method="POST",
            status_code=201,
            response_model=backups.RestorationResource,
            gives={"restoration_id": "/id", "operation_id": "/operation_id"},
            tags=["backups"],
            operation_id="restore_backup",
        ),
    )
    app.add_api_route(
        "/api/databases/{database_id}/backup_restorations/{restoration_id}",
        backups.get_restoration,
        **described(
            *READS, response_model=backups.RestorationBody, tags=["backups"], operation_id="get_backup_restoration"
        ),
    )
    # For whoever has a link: it is the archive's own answer that describes it, and it takes no token.
    app.add_route("/api/backups/{backup_id}/download", backups.download_of, methods=["GET"], include_in_schema=False)
