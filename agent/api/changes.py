"""The routes beside the actions that change something: each has its line in the audit before its answer leaves."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from agent.api.edge import LARGEST_BODY
from agent.api.errors import STATUS, refusal
from agent.api.service import CHANGE, address_of, authorization_of, service_of
from agent.audit.line import Change
from agent.errors import StateUnavailable, Unauthenticated
from engines.action import Effect


class ChangeRoute(APIRoute):
    """A route that, where it may change something, refuses to do what cannot be written down."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        extra: dict[str, Any] = self.openapi_extra or {}
        # A token must be allowed to change something; what takes any token changes nothing, whatever its method.
        changes = scope["method"] in self.methods and "state_unavailable" in extra.get("x-failures", ())
        who = _who(scope) if changes else None
        if who is None:
            await super().handle(scope, receive, send)
            return
        written = _Written(scope, receive, who)
        try:
            await written.rehearse()
            await super().handle(scope, written.receive, written.send)
            await written.end()
        except StateUnavailable as problem:
            await refusal(Request(scope), problem)(scope, receive, send)
            return
        except Exception:
            await written.end_as_bug()
            raise
        for message in written.answer:
            await send(message)


def _who(scope: Scope) -> str | None:
    try:
        return service_of(Request(scope)).tokens.authenticate(authorization_of(scope)).name
    except Unauthenticated:
        return None  # the route says so itself


class _Written:
    """One request whose answer is kept back until its line is written."""

    def __init__(self, scope: Scope, receive: Receive, who: str) -> None:
        self._scope = scope
        self._who = who
        self._receive = receive
        self._journal = service_of(Request(scope)).journal
        self._body = bytearray()
        self.answer: list[Message] = []

    async def rehearse(self) -> None:
        """Make sure that a line can be written; which one is known only once the route has looked at the request."""
        await self._journal.begin(
            Change(
                request_id=self._scope["request_id"],
                who=self._who,
                address=address_of(self._scope),
                method=self._scope["method"],
                path=self._scope["path"],
                action="",
                effect=Effect.WRITE,
                database=None,
            )
        )

    async def receive(self) -> Message:
        """Let a part of the body through, and note it down."""
        message = await self._receive()
        if len(self._body) <= LARGEST_BODY:
            self._body += message.get("body", b"")
        return message

    async def send(self, message: Message) -> None:
        """Keep a part of the answer."""
        self.answer.append(message)

    async def end(self) -> None:
        """Write the line, if the request came as far as to ask whether its token may.

        Raises: StateUnavailable
        """
        status: int = self.answer[0]["status"]
        if self._change is not None and status != STATUS["rate_limited"]:
            body = b"".join(message.get("body", b"") for message in self.answer)
            code: str = "ok" if status < 400 else orjson.loads(body)["code"]
            await self._journal.end(self._change, status, code)

    async def end_as_bug(self) -> None:
        """Write the line of what failed in a way that nobody has thought of."""
        if self._change is not None:
            await self._journal.end(self._change, STATUS["internal"], "internal")

    @property
    def _change(self) -> Change | None:
        change: Change | None = self._scope.get(CHANGE)
        if change is not None:
            change.params = self._params()
        return change

    def _params(self) -> Any:
        if not self._body:
            return None
        try:
            return orjson.loads(self._body)
        except orjson.JSONDecodeError:
            return None  # it was refused
