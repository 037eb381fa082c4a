"""What the routes call: the parts that `create_app` has put together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.requests import HTTPConnection, Request
from starlette.types import Scope

from agent.audit.journal import Journal
from agent.audit.line import Change
from agent.backups.backups import DatabaseBackups
from agent.choices import AllChoices
from agent.databases import Database, Databases
from agent.dispatch import Dispatcher, authorise
from agent.errors import AnswerUnknown
from agent.followers import Followers
from agent.limits import Limits
from agent.links import Links
from agent.log import Log
from agent.logs import Logs
from agent.metrics import Metrics
from agent.once import NOT_AGAIN, Once
from agent.operations.runner import Operations
from agent.pitr.clusters import Clusters
from agent.sampler import Sampler
from agent.state.state import State
from agent.tasks import Task
from agent.tokens import Principal, Tokens
from engines.action import Effect

CHANGE = "dbvalet.change"
"""Where in its scope a request says what it changes: `agent.api.changes` writes it down."""

COUNTED = "dbvalet.counted"
"""Where in its scope stands by which effect a request is counted already: see `agent.api.changes`."""

TOLD_ONCE = "dbvalet.told_once"
"""Where in its scope a request says that its answer holds a secret, which is kept nowhere."""

BEGUN = "dbvalet.begun"
"""Where in its scope a request says that it has begun to change something: see `begin_change`."""

IN_DOUBT = "dbvalet.in_doubt"
"""Where in its scope stands that an earlier request with its key was begun, and that nothing tells how it ended."""


@dataclass(kw_only=True)
class Service:
    """The parts of a running dbvalet."""

    tokens: Tokens
    databases: Databases
    dispatcher: Dispatcher
    limits: Limits
    metrics: Metrics
    state: State
    journal: Journal
    once: Once
    choices: AllChoices
    operations: Operations
    backups: DatabaseBackups
    clusters: Clusters
    links: Links
    public_url: str | None
    """How clients reach this service; None where their own request tells."""
    ca_certificate: Path | None
    """The file that anybody is given, if there is one."""
    sampler: Sampler
    logs: Logs
    followers: Followers
    log: Log
    metrics_are_public: bool
    ready: bool = False


def service_of(request: HTTPConnection) -> Service:
    """Find the service that a request came to."""
    return request.app.state.service


def authorization_of(scope: Scope) -> bytes | None:
    """Give the `Authorization` header; several are one with commas (RFC 9110, 5.3), which no token matches."""
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    return b", ".join(found) if found else None


def address_of(scope: Scope) -> str | None:
    """Give the address of a client, as its connection has it."""
    return scope["client"][0] if scope.get("client") else None


def principal_of(request: Request, effect: Effect = Effect.READ) -> Principal:
    """Authenticate a request and count it.

    Raises: Unauthenticated, RateLimited
    """
    service = service_of(request)
    principal = service.tokens.authenticate(authorization_of(request.scope))
    service.limits.count(principal.name, effect)
    return principal


def database_of(request: Request, database_id: str) -> tuple[Principal, Database]:
    """Authenticate a request and find the database it is about.

    Raises: Unauthenticated, RateLimited, DatabaseNotFound
    """
    principal = principal_of(request)
    return principal, service_of(request).databases.find(principal, database_id)


def permitted(request: Request, database_id: str, task: Task) -> tuple[Principal, Database]:
    """Authenticate a request, find the database it is about, and let its token do a task there or not.

    Raises: Unauthenticated, DatabaseNotFound, RateLimited, Forbidden; AnswerUnknown, when an earlier request with its
    key was begun and nothing tells how it ended
    """
    service, scope = service_of(request), request.scope
    principal = service.tokens.authenticate(authorization_of(scope))
    # Also what is refused: it has its line in the audit, and asks for databases that there are not.
    if scope.get(COUNTED) is not task.effect:
        service.limits.count(principal.name, task.effect)
    database = service.databases.find(principal, database_id)
    scope[CHANGE] = Change(
        request_id=scope["request_id"],
        who=principal.name,
        address=address_of(scope),
        method=scope["method"],
        path=scope["path"],
        action=task.name,
        effect=task.effect,
        database=database.id,
    )
    authorise(principal, database, task)
    if scope.get(IN_DOUBT):
        raise AnswerUnknown(NOT_AGAIN)
    return principal, database


async def begin_change(request: Request) -> None:
    """Say that what a request asks for is begun now: what is seen of it from here on may be its effect.

    What destroys something is in the audit before.

    Raises: StateUnavailable
    """
    change: Change = request.scope[CHANGE]
    if change.effect is Effect.DESTRUCTIVE:
        await service_of(request).journal.begin(change)
    request.scope[BEGUN] = True
