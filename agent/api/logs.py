"""Logs: a link that shows the end of an engine's log, without a token of its own and for a short time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from agent.api.databases import as_json
from agent.api.errors import refusal
from agent.api.maintenance import positive
from agent.api.openapi import described
from agent.api.service import permitted, service_of
from agent.databases import Database
from agent.errors import AgentError, LinkInvalid, NotSupported
from agent.followers import Follower
from agent.links import Link
from agent.tasks import READ_LOGS
from engines.action import Effect
from engines.errors import EngineError

LINES, MOST_LINES = 100, 10_000
NORMAL_CLOSURE, POLICY_VIOLATION, TRY_AGAIN_LATER = 1000, 1008, 1013
"""RFC 6455, 7.4, and the registry of IANA."""

LOOK_SECONDS = 1.0
"""How often it is looked whether the link of who follows a log still holds."""


class LogsBody(BaseModel):
    """The body of `GET /api/databases/:id/logs`."""

    url: str
    """Absolute; clients add `n` and `filter`. It takes no token of dbvalet's and lasts a quarter of an hour, if
    the token that asked for it does."""


async def get_logs(request: Request, database_id: str) -> Response:
    """Give a link to the end of the engine's log; refused where the engine does not give it."""
    principal, database = permitted(request, database_id, READ_LOGS)
    service = service_of(request)
    await service.logs.read(database, 1)
    now = int(time.time())
    base = service.public_url or str(request.base_url).rstrip("/")
    ends, signature = await service.links.sign(principal, READ_LOGS, f"{database.id} {now}")
    # Clients keep `token` and `timestamp` of a link, and nothing else.
    return as_json({"url": f"{base}/api/logs/{database.id}?token={ends}.{signature}&timestamp={now}"})


async def get_archives(request: Request, database_id: str) -> Response:
    """Refuse: old logs are where the engine's host keeps them."""
    permitted(request, database_id, READ_LOGS)
    raise NotSupported("dbvalet keeps no archives of logs: old ones are where the engine's host keeps them.")


async def show_log(request: Request) -> Response:
    """Show the last `n` lines of a log, those of `filter` only if it is given."""
    _, database = await _linked(request)
    count = min(positive(request, "n", LINES), MOST_LINES)
    wanted = request.query_params.get("filter", "")
    # What is looked for is looked for in what may be shown: else the answer would tell of what is masked.
    found = [each.text for each in await service_of(request).logs.read(database, MOST_LINES if wanted else count)]
    found = [each for each in found if wanted in each][-count:]
    return PlainTextResponse("".join(f"{each}\n" for each in found))


async def follow_log(socket: WebSocket) -> None:
    """Send each line that is logged from now on as a frame, until the link or the token that asked for it ends.

    A refusal is the HTTP answer to the handshake. The frames are `{"event": "log", "log": LINE, "timestamp": …}`.
    """
    service = service_of(socket)
    try:
        link, database = await _linked(socket)
        async with service.followers.following(database) as follower:
            await socket.accept()
            service.log.info("log_followed", request_id=socket.scope["request_id"], database=database.id)
            await _send_lines(socket, follower, link, database)
    except (AgentError, EngineError) as refused:
        await socket.send_denial_response(refusal(socket, refused))


async def _send_lines(socket: WebSocket, follower: Follower, link: Link, database: Database) -> None:
    wanted = socket.query_params.get("filter", "")

    async def send() -> None:
        while True:
            line = await follower.lines.get()
            if wanted in line.text:
                frame = {"event": "log", "log": line.text, "timestamp": line.at}
                await socket.send_text(orjson.dumps(frame, option=orjson.OPT_UTC_Z).decode())

    async def listen() -> None:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                service_of(socket).links.good_for(link, database.id)
            except LinkInvalid:
                return

    gone, slow = asyncio.create_task(listen()), asyncio.create_task(follower.too_slow.wait())
    sending, over = asyncio.create_task(send()), asyncio.create_task(look())
    work: list[asyncio.Task[Any]] = [sending, gone, slow, over]
    try:
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in work:
            each.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    if gone in done or sending in done:
        return  # sending ends by a client that is gone alone
    if slow in done:
        await socket.close(TRY_AGAIN_LATER, "lines were not taken fast enough")
    elif link.ends <= time.time():
        await socket.close(NORMAL_CLOSURE, "the link has expired: ask for a new one")
    else:
        await socket.close(POLICY_VIOLATION, "the token of the link does not allow it any more")


async def _linked(request: HTTPConnection) -> tuple[Link, Database]:
    """Check a link; give what it lets do, and its database.

    Raises: LinkInvalid, RateLimited; Precondition, when the state cannot be read
    """
    service, database_id = service_of(request), request.path_params["log_id"]
    given = request.query_params
    ends, _, signature = given.get("token", "").partition(".")
    link = await service.links.read(READ_LOGS, f"{database_id} {given.get('timestamp', '')}", ends, signature)
    principal, database = service.links.good_for(link, database_id)
    service.limits.count(principal.name, Effect.READ)
    return link, database


def install(app: FastAPI) -> None:
    """Put the routes of logs into an app."""
    one = "/api/databases/{database_id}"
    failures = ("not_supported", "forbidden", "not_found")
    app.add_api_route(
        one + "/logs",
        get_logs,
        **described(
            *failures,
            "privilege_missing",
            "precondition",
            "engine_unavailable",
            "overloaded",
            "state_unavailable",
            "deadline_exceeded",
            response_model=LogsBody,
            tags=["logs"],
            operation_id="get_logs",
        ),
    )
    app.add_api_route(
        one + "/logs_archives",
        get_archives,
        **described(*failures, tags=["logs"], response_model=dict[str, Any], operation_id="list_log_archives"),
    )
    # For whoever has a link, as with archives of backups.
    app.add_route("/api/logs/{log_id}", show_log, methods=["GET"], include_in_schema=False)
    app.router.routes.append(WebSocketRoute("/api/logs/{log_id}", follow_log))
