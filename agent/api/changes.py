"""The routes beside the actions that change something: each has its line in the audit before its answer leaves.

Each says when it begins, and what was refused before leaves its key as it was, whatever the refusal. What begins an
operation says so by that (`agent.once.Begun`), and asked again with a key whose end nobody saw it finds the operation.
The others call `begin_change`; asked again, they look what became of it (`became_of`, `was_done`), or do not do it
again where nothing tells (`require_no_doubt`).
"""

from __future__ import annotations

import asyncio
import operator
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from agent.api.edge import LARGEST_BODY, read_body
from agent.api.errors import PASSES, STATUS, refusal
from agent.api.service import (
    BEGUN,
    CHANGE,
    COUNTED,
    IN_DOUBT,
    KEEP_BEFORE,
    TOLD_ONCE,
    address_of,
    authorization_of,
    operation_for,
    service_of,
)
from agent.asked import Asked, fingerprint_of, key_of
from agent.audit.line import Change
from agent.dispatch import authorise
from agent.errors import (
    AgentError,
    AnswerUnknown,
    DatabaseNotFound,
    Forbidden,
    OperationNotFound,
    StateUnavailable,
    Unauthenticated,
)
from agent.once import BEFORE_ANYTHING, NOT_BEGUN, REPLAYED, WITHOUT_END, Answer, Begun, Once, answer_of, begun
from agent.tasks import TASKS, Task
from agent.tokens import Principal
from engines.action import Effect
from engines.errors import InvalidParams, Precondition

SHED = frozenset({"rate_limited", "overloaded"})
"""Codes of which there is no line: it would cost more than the request did."""

_TOLD_TEXT = (
    "It was done, and the answer held a password, which is told once and kept nowhere. If it was lost: "
    "POST …/users/NAME/reset_password, with a new key, gives another."
)


class ChangeRoute(APIRoute):
    """A route that, where it may change something, refuses what cannot be written down, and does it once a key."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        extra: dict[str, Any] = self.openapi_extra or {}
        # A token must be allowed to change something; what takes any token changes nothing, whatever its method.
        effect: str | None = extra.get("x-effect") if scope["method"] in self.methods else None
        principal = _principal(scope) if effect else None
        if principal is None:
            await super().handle(scope, receive, send)
            return
        try:
            # Before the state has any work of it; the route itself knows that it is counted.
            scope[COUNTED] = Effect(effect)
            service_of(Request(scope)).limits.count(principal.name, scope[COUNTED])
            key = key_of(scope["headers"])
            # What a token does not see or may not do the route says, and nothing that was said when it might.
            if key is None or not await _may(scope, principal, TASKS[extra["x-task"]]):
                await self._write_down(_Written(scope, receive, principal.name), send)
            else:
                await self._do_once(scope, receive, send, who=principal.name, key=key)
        except (AgentError, InvalidParams) as problem:
            await refusal(Request(scope), problem)(scope, receive, send)

    async def _write_down(self, written: _Written, send: Send) -> None:
        """Raises: StateUnavailable"""
        await written.rehearse()
        try:
            await super().handle(written.scope, written.receive, written.send)
        except (ClientDisconnect, asyncio.CancelledError):
            # Nobody waits for the answer, but what was begun may have been done.
            with suppress(StateUnavailable):  # which is in the log
                await asyncio.shield(written.end_as("client_left"))
            raise
        except Exception:
            await written.end_as("internal")
            raise
        await written.end()
        for message in written.answer:
            await send(message)

    async def _do_once(self, scope: Scope, receive: Receive, send: Send, *, who: str, key: str) -> None:
        """Let the route answer, unless it did before under this key.

        Raises: AgentError, InvalidParams
        """
        service = service_of(Request(scope))
        once = service.once
        body = await read_body(scope, receive)
        path = f"{scope['path']}?{scope['query_string'].decode('latin-1')}"
        asked = Asked(who=who, key=key, fingerprint=fingerprint_of(scope["method"], path, body))
        written = _Keyed(scope, _given(body, receive), asked, once)
        with once.at_work(asked):
            found = await once.find(asked)
            if isinstance(found, Answer):
                change = self._replayed(scope, who, body)
                await service.journal.end(change, found.status, found.code)
                await _send(found, send)
                return
            known = Begun(
                mark=asked.mark,
                in_doubt=found is not None,
                begins=partial(operator.setitem, scope, BEGUN, True),
                hold=partial(once.hold, asked),
            )
            mark = begun.set(known)
            scope[IN_DOUBT], scope[KEEP_BEFORE] = found, partial(once.keep_before, asked)
            try:
                written.is_begun = found is not None
                await self._write_down(written, send)
            finally:
                begun.reset(mark)

    def _replayed(self, scope: Scope, who: str, body: bytes) -> Change:
        extra: dict[str, Any] = self.openapi_extra or {}
        return Change(
            request_id=scope["request_id"],
            who=who,
            address=address_of(scope),
            method=scope["method"],
            path=scope["path"],
            action=extra["x-task"],
            effect=scope[COUNTED],
            database=scope["path_params"]["database_id"],
            params=_params_of(body),
            replayed=True,
        )


async def _may(scope: Scope, principal: Principal, task: Task) -> bool:
    """Raises: StateUnavailable"""
    service, names = service_of(Request(scope)), scope["path_params"]
    try:
        database = service.databases.find(principal, names["database_id"])
        authorise(principal, database, task)
        if "operation_id" in names:
            await operation_for(service, principal, database, names["operation_id"])
    except (DatabaseNotFound, OperationNotFound, Forbidden):
        return False
    except Precondition as problem:
        raise StateUnavailable(
            f"Nothing was done, since the operation cannot be looked up. {problem.message}"
        ) from problem
    return True


async def _send(answer: Answer, send: Send) -> None:
    headers = [REPLAYED]
    if answer.body:
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _given(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, then what comes after it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def once_more() -> Message:
        return waiting.pop() if waiting else await receive()

    return once_more


def _principal(scope: Scope) -> Principal | None:
    try:
        return service_of(Request(scope)).tokens.authenticate(authorization_of(scope))
    except Unauthenticated:
        return None  # the route says so itself


def _params_of(body: bytes | bytearray) -> Any:
    try:
        return orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        return None  # it was refused


class _Written:
    """One request whose answer is kept back until its line is written."""

    def __init__(self, scope: Scope, receive: Receive, who: str) -> None:
        self.scope = scope
        self._who = who
        self._receive = receive
        self._journal = service_of(Request(scope)).journal
        self._body = bytearray()
        self.answer: list[Message] = []

    async def rehearse(self) -> None:
        """Make sure that a line can be written; which one is known only once the route has looked at the request.

        Raises: StateUnavailable
        """
        await self._journal.begin(self._unknown())

    def _unknown(self) -> Change:
        return Change(
            request_id=self.scope["request_id"],
            who=self._who,
            address=address_of(self.scope),
            method=self.scope["method"],
            path=self.scope["path"],
            action="",
            effect=Effect.WRITE,
            database=None,
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
        status, code, _ = self._answered()
        if self._change is not None and code not in SHED:
            await self._journal.end(self._change, status, code)

    async def end_as(self, code: str) -> None:
        """Write the line of what ended without an answer.

        Raises: StateUnavailable
        """
        if self._change is not None:
            await self._journal.end(self._change, STATUS.get(code), code)

    @property
    def _change(self) -> Change | None:
        change: Change | None = self.scope.get(CHANGE)
        if change is not None:
            change.params = _params_of(self._body)
        return change

    def _answered(self) -> tuple[int, str, bytes]:
        """Give status, code and body of the answer."""
        status: int = self.answer[0]["status"]
        body = b"".join(message.get("body", b"") for message in self.answer)
        return status, "ok" if status < 400 else orjson.loads(body)["code"], body


class _Keyed(_Written):
    """A request with a key: its answer is kept together with its line."""

    def __init__(self, scope: Scope, receive: Receive, asked: Asked, once: Once) -> None:
        super().__init__(scope, receive, asked.who)
        self._asked = asked
        self._once = once
        self.is_begun = False
        """Whether its row is there already."""

    async def rehearse(self) -> None:
        """Write down that it is begun.

        Raises: KeyInProgress, StateUnavailable
        """
        if not self.is_begun:
            await self._once.begin(self._asked, self._unknown())

    async def end(self) -> None:
        """Keep the answer, or forget the request if it was refused before anything was begun.

        Raises: StateUnavailable
        """
        status, code, body = self._answered()
        if self._was_refused_first(status, code):
            # What an earlier request with this key has begun stays in doubt.
            also = None if self.is_begun else partial(self._once.forget, self._asked)
        elif code in WITHOUT_END:
            also = None
        else:
            also = partial(self._once.keep, self._asked, self._kept(status, code, body))
        change = self._change
        if change is None or code in SHED:
            if also is not None:
                await self._once.write(also)
            return
        change.also = also
        await self._journal.end(change, status, code)

    def _was_refused_first(self, status: int, code: str) -> bool:
        """Tell whether nothing was begun by this request; that nothing tells of an earlier one is an answer."""
        if status in BEFORE_ANYTHING or code in NOT_BEGUN or self.scope.get(PASSES):
            return True
        return status >= 400 and not self.scope.get(BEGUN) and code != AnswerUnknown.code

    def _kept(self, status: int, code: str, body: bytes) -> Answer:
        if status < 400 and self.scope.get(TOLD_ONCE):
            return answer_of(self.scope["path"], AnswerUnknown(_TOLD_TEXT))
        return Answer(status=status, code=code, body=body)
