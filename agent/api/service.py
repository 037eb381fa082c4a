"""What the routes call: the parts that `create_app` has put together."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from agent.databases import Database, Databases
from agent.dispatch import Dispatcher
from agent.limits import Limits
from agent.metrics import Metrics
from agent.tokens import Principal, Tokens
from engines.action import Effect


@dataclass(kw_only=True)
class Service:
    """The parts of a running dbvalet."""

    tokens: Tokens
    databases: Databases
    dispatcher: Dispatcher
    limits: Limits
    metrics: Metrics
    metrics_are_public: bool
    ready: bool = False


def service_of(request: Request) -> Service:
    """Find the service that a request came to."""
    return request.app.state.service


def principal_of(request: Request, effect: Effect = Effect.READ) -> Principal:
    """Authenticate a request and count it.

    Raises: Unauthenticated, RateLimited
    """
    service = service_of(request)
    principal = service.tokens.authenticate(request.headers.get("authorization"))
    service.limits.count(principal.name, effect)
    return principal


def database_of(request: Request, database_id: str) -> tuple[Principal, Database]:
    """Authenticate a request and find the database it is about.

    Raises: Unauthenticated, RateLimited, DatabaseNotFound
    """
    principal = principal_of(request)
    return principal, service_of(request).databases.find(principal, database_id)
