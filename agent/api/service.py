"""What the routes call: the parts that `create_app` has put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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
from agent.once import NOT_AGAIN, Doubt, Once, not_again
from agent.operations.runner import Operations
from agent.pitr.clusters import Clusters
from agent.sampler import Sampler
from agent.state.state import State
from agent.tasks import Task
from agent.tokens import Principal, Tokens
from engines.action import Effect
from engines.aftermath import Goal, Verdict, judge
from engines.engine import Engine

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agent.operations.record import Operation

    KeepBefore = Callable[[Sequence[str] | None, Connection], None]

CHANGE = "dbvalet.change"
"""Where in its scope a request says what it changes: `agent.api.changes` writes it down."""

COUNTED = "dbvalet.counted"
"""Where in its scope stands by which effect a request is counted already: see `agent.api.changes`."""

TOLD_ONCE = "dbvalet.told_once"
"""Where in its scope a request says that its answer holds a secret, which is kept nowhere."""

BEGUN = "dbvalet.begun"
"""Where in its scope a request says that it has begun to change something: see `begin_change` and `Begun.begins`."""

IN_DOUBT = "dbvalet.in_doubt"
"""Where in its scope stands what was kept of an earlier request with its key of which nobody saw the end: see
`became_of`."""

KEEP_BEFORE = "dbvalet.keep_before"
"""Where in its scope stands how a request with a key keeps what it is about, as that is before: see `begin_change`."""

Look = Callable[[], Awaitable[Sequence[str]]]
"""Gives what a request is about, as it is now: see `engines.aftermath`."""


@dataclass(kw_only=True)
class Service:
    """The parts of a running dbvalet."""

    tokens: Tokens
    engines: Mapping[str, Engine]
    """All that are installed, also those of no database."""
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

    Raises: Unauthenticated, DatabaseNotFound, RateLimited, Forbidden
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
    return principal, database


async def operation_for(service: Service, principal: Principal, database: Database, operation_id: str) -> Operation:
    """Find an operation for a token that is to end it, which must be one that may begin it.

    Raises: OperationNotFound, Forbidden; Precondition, when the state cannot be read
    """
    operation = await service.operations.find(database.id, operation_id)
    task = service.operations.task_of(operation)
    if task is not None:
        authorise(principal, database, task)
    return operation


def require_no_doubt(request: Request, why: str) -> None:
    """Refuse to do again what nothing can tell of.

    Raises: AnswerUnknown, when an earlier request with its key was begun and nobody saw its end
    """
    if request.scope.get(IN_DOUBT) is not None:
        raise AnswerUnknown(not_again(why))


async def became_of(request: Request, goal: Goal, look: Look) -> Verdict | None:
    """Look what became of an earlier request with the same key of which nobody saw the end; None where there is none.

    Raises: whatever `look` raises
    """
    doubt: Doubt | None = request.scope.get(IN_DOUBT)
    if doubt is None:
        return None
    verdict = judge(goal, doubt.before, await look())
    if verdict is Verdict.NOT_DONE:
        request.scope[IN_DOUBT] = None
    return verdict


async def was_done(request: Request, look: Look) -> bool:
    """Tell whether an earlier request with the same key did what `look` then finds nothing of; else it may be done.

    This is for what has an id that nothing later gets: done twice, it is done to the same thing.

    Raises: whatever `look` raises
    """
    verdict = await became_of(request, Goal.GONE, look)
    request.scope[IN_DOUBT] = None
    return verdict is Verdict.DONE


async def begin_change(request: Request, look: Look | None = None) -> None:
    """Say that what a request asks for is begun now: what is seen of it from here on may be its effect.

    What destroys something is in the audit before, and with a key what `look` gives is kept.

    Raises: StateUnavailable; AnswerUnknown, when it is not known whether it was done before; KeyInProgress, when
    another dbvalet has taken it over; whatever `look` raises
    """
    scope, service = request.scope, service_of(request)
    if scope.get(IN_DOUBT) is not None:
        raise AnswerUnknown(NOT_AGAIN)
    change: Change = scope[CHANGE]
    keep_before: KeepBefore | None = scope.get(KEEP_BEFORE)
    also = partial(keep_before, await look()) if keep_before is not None and look is not None else None
    if change.effect is Effect.DESTRUCTIVE:
        await service.journal.begin(change, also)
    elif also is not None:
        await service.once.write_soon(also)
    scope[BEGUN] = True
