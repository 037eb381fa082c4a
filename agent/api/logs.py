"""Logs: a link that shows the end of an engine's log, without a token of its own and for a short time."""

from __future__ import annotations

import asyncio
import hmac
import time
from hashlib import sha256
from secrets import token_hex
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
from agent.tasks import READ_LOGS
from engines.errors import EngineError

LINK_SECONDS = 900
LINES, MOST_LINES = 100, 10_000
NORMAL_CLOSURE, TRY_AGAIN_LATER = 1000, 1013
"""RFC 6455, 7.4, and the registry of IANA."""


class LogsBody(BaseModel):
    """The body of `GET /api/databases/:id/logs`."""

    url: str
    """Absolute; clients add `n` and `filter`. It takes no token of dbvalet's and lasts a quarter of an hour."""


async def get_logs(request: Request, database_id: str) -> Response:
    """Give a link to the end of the engine's log; refused where the engine does not give it."""
    _, database = permitted(request, database_id, READ_LOGS)
    service = service_of(request)
    await service.logs.read(database, 1)
    now = int(time.time())
    base = service.public_url or str(request.base_url).rstrip("/")
    token = await _sign(request, database.id, now)
    return as_json({"url": f"{base}/api/logs/{database.id}?token={token}&timestamp={now}"})


async def get_archives(request: Request, database_id: str) -> Response:
    """Refuse: old logs are where the engine's host keeps them."""
    permitted(request, database_id, READ_LOGS)
    raise NotSupported("dbvalet keeps no archives of logs: old ones are where the engine's host keeps them.")


async def show_log(request: Request) -> Response:
    """Show the last `n` lines of a log, those of `filter` only if it is given."""
    database, _ = await _database_of_link(request)
    count = min(positive(request, "n", LINES), MOST_LINES)
    wanted = request.query_params.get("filter", "")
    # What is looked for is looked for in what may be shown: else the answer would tell of what is masked.
    found = [each.text for each in await service_of(request).logs.read(database, MOST_LINES if wanted else count)]
    found = [each for each in found if wanted in each][-count:]
    return PlainTextResponse("".join(f"{each}\n" for each in found))


async def follow_log(socket: WebSocket) -> None:
    """Send each line that is logged from now on as a frame, until the link's time is over.

    A refusal is the HTTP answer to the handshake. The frames are `{"event": "log", "log": LINE, "timestamp": …}`.
    """
    service = service_of(socket)
    try:
        database, seconds = await _database_of_link(socket)
        async with service.followers.following(database) as follower:
            await socket.accept()
            service.log.info("log_followed", request_id=socket.scope["request_id"], database=database.id)
            await _send_lines(socket, follower, seconds)
    except (AgentError, EngineError) as refused:
        await socket.send_denial_response(refusal(socket, refused))


async def _send_lines(socket: WebSocket, follower: Follower, seconds: float) -> None:
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

    gone, slow = asyncio.create_task(listen()), asyncio.create_task(follower.too_slow.wait())
    sending = asyncio.create_task(send())
    work: list[asyncio.Task[Any]] = [sending, gone, slow]
    try:
        done, _ = await asyncio.wait(work, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in work:
            each.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    if gone in done or sending in done:
        return  # sending ends by a client that is gone alone
    if slow in done:
        await socket.close(TRY_AGAIN_LATER, "lines were not taken fast enough")
    else:
        await socket.close(NORMAL_CLOSURE, "the link has expired: ask for a new one")


async def _database_of_link(request: HTTPConnection) -> tuple[Database, float]:
    """Check a link; give its database, and for how many seconds it holds.

    Raises: LinkInvalid
    """
    database_id: str = request.path_params["log_id"]
    token, stamp = request.query_params.get("token", ""), request.query_params.get("timestamp", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12 and token.isascii()):
        raise LinkInvalid
    age = time.time() - int(stamp)
    right = await _sign(request, database_id, int(stamp))
    if not hmac.compare_digest(right, token) or not 0 <= age <= LINK_SECONDS:
        raise LinkInvalid
    database = next((each for each in service_of(request).databases if each.id == database_id), None)
    if database is None:
        raise LinkInvalid
    return database, LINK_SECONDS - age


async def _sign(request: HTTPConnection, database_id: str, stamp: int) -> str:
    # Of the state, so that another dbvalet that shares it can answer the link.
    key: Any = await service_of(request).state.memory_of("").keep_first("log_key", token_hex(32))
    return hmac.new(bytes.fromhex(key), f"{database_id} {stamp}".encode(), sha256).hexdigest()


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
