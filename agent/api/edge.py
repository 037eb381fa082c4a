"""The outermost layer: request ids, bodies with a limit, and what happens when something is a bug."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from secrets import token_hex

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.api.errors import failure
from agent.errors import TooLarge
from agent.log import Log

LARGEST_BODY = 1024 * 1024
"""Bytes of a request body."""

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Edge:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, log: Log) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with `X-Request-Id`: the client's own if it gave a usable one."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given if _GIVEN_ID.fullmatch(given) else token_hex(8).encode()
        scope["request_id"] = request_id.decode()
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"].append((b"x-request-id", request_id))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            return  # nobody is left to answer, and leaving is no bug
        except Exception:  # noqa: BLE001 - the last resort, which logs it whole
            self._log.exception("bug", request_id=scope["request_id"], path=scope["path"])
            if not started:
                text = f"This is a bug of dbvalet. Its log has the details under {scope['request_id']}."
                await failure(scope["path"], "internal", text)(scope, receive, send_with_id)


def body_reader(request: Request) -> Callable[[], Awaitable[bytes]]:
    """Give a function that reads the body of a request, not more of it than `LARGEST_BODY`."""

    async def read() -> bytes:
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > LARGEST_BODY:
            raise TooLarge
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_BODY:
                raise TooLarge
        return body

    return read
