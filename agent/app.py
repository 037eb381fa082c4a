"""`create_app`: the one place that knows all parts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.api import errors, routes
from agent.api.edge import Edge
from agent.api.service import Service
from agent.audit.journal import Journal
from agent.backups.backups import DatabaseBackups
from agent.backups.safety import SafetyNet
from agent.choices import AllChoices
from agent.databases import declare
from agent.dispatch import Dispatcher
from agent.errors import SettingsError
from agent.followers import Followers
from agent.kept_tokens import KeptTokens
from agent.limits import Limits
from agent.links import Links
from agent.log import SHORTEST_SECRET, Log, blotter, make_log, secrets_in_url
from agent.logs import Logs
from agent.metrics import Metrics
from agent.once import Once
from agent.operations.runner import Operations
from agent.pitr.clusters import Clusters
from agent.pitr.restore import RestoreToInstant
from agent.platform.signed_tokens import SignedTokens
from agent.platform.signing_keys import SigningKeys
from agent.sampler import Sampler
from agent.scheduler import Scheduler
from agent.settings import Settings
from agent.state.state import State
from agent.tasks import TASKS
from agent.tokens import Tokens
from engines.engine import Engine, installed_engines


class Application(FastAPI):
    """FastAPI with an edge around its own layers."""

    edge: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through the lifespan."""
        await self.edge(scope, receive, send)

    async def inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do what FastAPI does: its layers, then the route table."""
        await super().__call__(scope, receive, send)


def create_app(settings: Settings, *, log: Log | None = None, engines: Mapping[str, Engine] | None = None) -> FastAPI:
    """Put the service together; no engine is touched before it starts.

    Raises: SettingsError
    """
    engines = engines if engines is not None else installed_engines()
    log = log or make_log(settings.log_level, secrets_of(settings))
    state = State(settings.state_url(), stays=True)
    known = declare(settings, engines, state, log)
    _check_action_names(settings, {*TASKS, *(name for each in engines.values() for name in each.actions)})
    keys = SigningKeys(state, log)
    tokens, limits, metrics = Tokens(settings, SignedTokens(keys)), Limits(settings.limits), Metrics()
    kept_tokens = KeptTokens(state, log)
    metrics.watch(known.observed)
    journal = Journal(state, log, secrets_of(settings), on=settings.audit != "none")
    operations = Operations(state, known, {}, journal, log)
    clusters = Clusters(settings, known, state, log)
    to_instant = RestoreToInstant(clusters, state)
    operations.kinds[to_instant.type] = to_instant
    once = Once(state, journal, operations.owner, operations.claim)
    scheduler = Scheduler(state, known, operations, journal, log)
    backups = DatabaseBackups(settings, state, operations, clusters, journal=journal, log=log)
    sampler, logs = Sampler(), Logs(blotter(secrets_of(settings)))
    service = Service(
        tokens=tokens,
        engines=engines,
        databases=known,
        dispatcher=Dispatcher(
            tokens, known, limits, metrics, journal=journal, once=once, safety=SafetyNet(backups, operations), log=log
        ),
        limits=limits,
        metrics=metrics,
        state=state,
        journal=journal,
        once=once,
        choices=AllChoices(state),
        operations=operations,
        backups=backups,
        clusters=clusters,
        links=Links(state, tokens, known),
        public_url=settings.public_url,
        ca_certificate=settings.ca_certificate,
        sampler=sampler,
        logs=logs,
        followers=Followers(logs, log),
        log=log,
        metrics_are_public=settings.metrics == "public",
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        known.start()
        operations.start()
        scheduler.start()
        clusters.start()
        keys.start()
        kept_tokens.follow(tokens.take)
        service.ready = True
        try:
            yield
        finally:
            service.ready = False
            scheduler.close()
            clusters.close()
            keys.close()
            kept_tokens.close()
            await sampler.close()
            await operations.close()
            await backups.close()
            await known.close()
            state.close()

    app = Application(
        title="dbvalet",
        summary="Named actions on live databases",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.service = service
    hot = routes.action_route(service.dispatcher)
    routes.install(app, hot, engines, metrics_are_public=service.metrics_are_public)
    errors.install(app)
    app.edge = Edge(app.inside, hot, log)
    if settings.cors_origins:
        app.edge = _for_browsers(app.edge, settings.cors_origins)
    return app


def _for_browsers(edge: ASGIApp, origins: list[str]) -> ASGIApp:
    """Let scripts of these pages call, with the headers that the known client sends; no cookie is ever looked at."""
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        edge,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id"],
        expose_headers=["X-Request-Id", "Retry-After", "Idempotent-Replayed"],
    )


def secrets_of(settings: Settings) -> set[str]:
    """List what must never be seen: tokens, URLs and the passwords in them."""
    of_databases = [url for each in settings.all_databases() for url in (each.address(), each.for_applications())]
    urls = [url.get_secret_value() for url in of_databases if url is not None]
    tokens = {each.secret().get_secret_value() for each in settings.all_tokens() if not each.sha256}
    state = settings.state_url()
    if not state.startswith("sqlite:"):
        urls.append(state)
    options = {each for each in _texts(settings.backups.options) if len(each) >= SHORTEST_SECRET}
    return tokens.union(options, *map(secrets_in_url, urls))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in cast(dict[str, Any], value).values():
            yield from _texts(each)


def _check_action_names(settings: Settings, known: set[str]) -> None:
    for number, token in enumerate(settings.tokens):
        for key, names in (("allow", token.allow or []), ("deny", token.deny)):
            for name in names:
                if name not in known:
                    raise SettingsError(f"tokens.{number}.{key}", f"no engine has an action {name}")
