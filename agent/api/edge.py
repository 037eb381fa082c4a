"""The outermost layer: request ids, HEAD, bodies with a limit, and what happens when something is a bug."""

from __future__ import annotations

import asyncio
import re
from secrets import token_hex

from starlette.requests import ClientDisconnect, Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from agent.api.errors import bug, refusal
from agent.errors import AgentError, Malformed, TooLarge
from agent.log import Log
from engines.errors import EngineError

LARGEST_BODY = 1024 * 1024
"""Bytes of a request body."""

BODY_SECONDS = 20.0
"""How long a client may take to send its body."""

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Edge:
    """ASGI middleware around everything else, the layers of FastAPI included."""

    def __init__(self, app: ASGIApp, hot: BaseRoute, log: Log) -> None:
        """`hot` is a plain ASGI route of the app, asked first: what FastAPI wraps around it costs as much again."""
        self._app = app
        self._hot = hot
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with `X-Request-Id`: the client's own if it gave a usable one."""
        if scope["type"] == "websocket":
            await self._follow(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _name(scope)
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"].append((b"x-request-id", request_id))
            await send(message)

        try:
            match, found = self._hot.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                await self._perform(scope, receive, send_with_id)
            elif scope["method"] == "HEAD":
                # What answers GET answers HEAD, without the body (RFC 9110, 9.3.2).
                await self._app({**scope, "method": "GET", "dbvalet.head": True}, receive, _without_body(send_with_id))
            else:
                await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            return  # nobody is left to answer, and leaving is no bug
        except Exception:  # noqa: BLE001 - the last resort, which logs it whole
            self._log.exception("bug", request_id=scope["request_id"], path=scope["path"])
            if not started:
                await bug(scope)(scope, receive, send_with_id)

    async def _follow(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through a web socket; `agent.api.protocol` makes one of a request for a log alone."""
        request_id = _name(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] in ("websocket.accept", "websocket.http.response.start"):
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except WebSocketDisconnect:
            return  # as with a request
        except Exception:  # noqa: BLE001 - the last resort, which logs it whole; the server closes what is open
            self._log.exception("bug", request_id=scope["request_id"], path=scope["path"])

    async def _perform(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._hot.handle(scope, receive, send)
        except (AgentError, EngineError) as refused:
            await refusal(Request(scope), refused)(scope, receive, send)


def _name(scope: Scope) -> bytes:
    """Give a request the id that it came with, if that can be used, or one of our own."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    request_id = given if _GIVEN_ID.fullmatch(given) else token_hex(8).encode()
    scope["request_id"] = request_id.decode()
    return request_id


def _without_body(send: Send) -> Send:
    async def send_headers(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_headers


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Read the body of a request, not more of it than `LARGEST_BODY`.

    Raises: TooLarge, Malformed when it does not arrive, ClientDisconnect
    """
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if announced.isdigit() and (len(announced) > 9 or int(announced) > LARGEST_BODY):
        raise TooLarge
    body = bytearray()
    more = True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body += message.get("body", b"")
                if len(body) > LARGEST_BODY:
                    raise TooLarge
                more = message.get("more_body", False)
    except TimeoutError:
        raise Malformed(f"The body did not arrive within {BODY_SECONDS:g} s.") from None
    return bytes(body)
