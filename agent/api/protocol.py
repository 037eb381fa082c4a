"""HTTP as uvicorn speaks it, but for two things that programs run into and one that costs time, and with limits."""

from __future__ import annotations

import asyncio
import re
import resource
from collections import deque
from collections.abc import Sized
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from agent.api.errors import failed
from agent.errors import AgentError, HeadTooLarge, Malformed, Overloaded

LOGS = b"/api/logs/"
"""Where a log is shown, and may be followed through a web socket."""

LARGEST_HEAD = 64 * 1024
"""Bytes of a target with the names and values of all headers; and of what else of a request is no body."""

MOST_HEADERS = 100

LONGEST_LINE = 8000
"""Bytes of a target, or of a header, with which a web socket begins: its library takes lines of 8192."""

MOST_WAITING = 100
"""How many requests of a connection may wait for the answers of those before them."""

REQUEST_SECONDS = 20.0
"""How long a head may take from its first byte to its last; so may trailers, and the body of what is answered."""

MOST_CONNECTIONS = 4096
"""How many clients may be connected, where so many files may be open."""

_NOWHERE = cast(Any, deque[Any](maxlen=0))
"""A list of headers that stays empty."""


def most_connections() -> int:
    """Say how many clients may be connected: half of the files that may be open is left to engines and the state."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, max(1, files // 2))


class HeadWithBody:
    """A transport that sends the head of an answer together with the start of its body.

    uvicorn writes them one after the other. Each is a system call that wakes the client, which needs both.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes) -> None:
        """Keep a head until the next write, or until the event loop goes on; send all else."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/") and data.endswith(b"\r\n\r\n"):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close when all is sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class InTurn(FlowControl):
    """Reads on only while no request waits for its turn: uvicorn reads as much again with every answer."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on, unless there is enough to do."""
        if not self._waiting:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """uvicorn's own, which answers what is no HTTP with plain text and loses the body of a request with `Upgrade`.

    Nor has it a limit of what it keeps for clients, before any token is looked at: heads, trailers, waiting requests,
    connections, and how long each of them may take.
    """

    _silent = 0
    """How many bytes came without anything of a body, and without the end of a head."""

    _came_first = 0
    """How many bytes came together with the beginning of a head: part of it, and what was before it."""

    _size = 0
    """How many bytes are being parsed."""

    _refusal = b""
    """The last answer on this connection: what came after it is not looked at."""

    _to_be_ignored = False
    """Whether the request that is being parsed wishes for another protocol, which it does not get."""

    _becomes_socket = False
    """Whether it is one for a web socket that there is."""

    _is_in_body = False

    _end: asyncio.TimerHandle | None = None
    """When what has begun, and is no body that somebody reads, must have come."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn declares it
        """Begin with a connection."""
        super().connection_made(cast("asyncio.Transport", HeadWithBody(transport, self.loop)))
        self.flow = InTurn(self.transport, self.pipeline)
        self.url, self.headers = b"", _NOWHERE
        most = most_connections()
        if len(self.connections) > most:
            self._refuse(Overloaded(f"More than {most} clients are connected."))
            return
        # Who says nothing at all is no better than who says nothing more.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """End with a connection."""
        self._unset_keepalive_if_required()
        self._unset_end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, as long as all is as it should be."""
        if self._refusal:
            return
        self._unset_keepalive_if_required()
        self._size = len(data)
        self._silent += self._size
        try:
            self._parse(data)
            if self._silent > LARGEST_HEAD or (self.headers and self._is_too_large()):
                self._refuse(HeadTooLarge())
        except httptools.HttpParserError as problem:
            told = problem.__context__  # what was raised while the parser called back
            self._refuse(told if isinstance(told, AgentError) else Malformed("This is not a valid HTTP request."))
        # What is behind an answer is awaited no longer than a head, however slowly it comes.
        is_awaited = self._silent or (self._is_in_body and self.cycle.response_complete)
        if self._refusal or not is_awaited:
            self._unset_end()
        elif self._end is None:
            self._end = self.loop.call_later(REQUEST_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._end = None
        self._refuse(Malformed(f"The request did not arrive within {REQUEST_SECONDS:g} s."))

    def _unset_end(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _parse(self, data: bytes) -> None:
        """Parse, and parse a request that wishes for another protocol again, as one that does not.

        Java's client and `curl --http2` wish for h2c with every first request. A server may ignore it (RFC 9110, 7.8),
        but httptools takes everything behind the head for that protocol already.

        Raises: HttpParserError
        """
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as wish:
                if self._becomes_socket:
                    self.handle_websocket_upgrade()
                if not self._to_be_ignored:
                    return
                head, rest = self._head_without_wish(), rest[wish.args[0] :]
                self.parser.feed_data(head)

    def _refuse(self, refused: AgentError) -> None:
        """Answer and close: what follows cannot be told apart from it. Earlier requests have their answers first."""
        self.logger.warning(refused.message)
        answer = failed("", refused)
        lines = [b"%b: %b\r\n" % header for header in (*answer.raw_headers, (b"connection", b"close"))]
        self._refusal = b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", bytes(answer.body)])
        # To throw it away: a connection that is closed with something unread is reset, and its last answers are lost.
        FlowControl.resume_reading(self.flow)
        if self.pipeline:
            if self._is_in_body:
                self.pipeline.popleft()  # this is the one that is refused
        elif self._is_in_body and self.cycle.response_started:
            self.transport.close()  # one request has one answer
        elif self._is_in_body or not self.cycle or self.cycle.response_complete:
            self._send_refusal()

    def _send_refusal(self) -> None:
        self.transport.write(self._refusal)
        self.transport.close()

    def on_response_complete(self) -> None:
        """Go on with the next request, or end with the refusal of it."""
        if self._refusal and not self.pipeline and not self.transport.is_closing():
            self._send_refusal()
        super().on_response_complete()

    def on_message_begin(self) -> None:
        """Begin with a head."""
        self._came_first = self._size
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._silent = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head has to be parsed once more.

        Raises: HeadTooLarge, Overloaded
        """
        if self._is_too_large():
            raise HeadTooLarge
        if len(self.pipeline) >= MOST_WAITING:
            raise Overloaded(
                f"More than {MOST_WAITING} requests wait for their answers on this connection: "
                "neither this one nor any after it was begun."
            )
        self._silent = 0
        # The method CONNECT is an upgrade too, but has no body that could be lost.
        wish = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        self._becomes_socket = wish and self.parser.get_method() == b"GET" and self._begins_socket()
        self._to_be_ignored = wish and not self._becomes_socket
        if not self._to_be_ignored:
            super().on_headers_complete()
            self._is_in_body = True
            # What stands behind a body in chunks is no header (RFC 9110, 6.5.1).
            self.headers = _NOWHERE

    def on_message_complete(self) -> None:
        """End the body, unless the head has to be parsed once more."""
        self._is_in_body = False
        if not self._to_be_ignored:
            super().on_message_complete()

    def _is_too_large(self) -> bool:
        if len(self.headers) > MOST_HEADERS:
            return True
        if self._came_first + self._silent <= LARGEST_HEAD:  # as a rule, and without counting
            return False
        return len(self.url) + sum([len(name) + len(value) for name, value in self.headers]) > LARGEST_HEAD

    def _should_upgrade(self) -> bool:
        return self._becomes_socket

    def _begins_socket(self) -> bool:
        """Tell whether a head begins a web socket that there is, and the library for it will answer it.

        One that it does not take is read on for ever, without an answer.
        """
        given = dict(self.headers)
        key = given.get(b"sec-websocket-key", b"")
        return (
            self.url.startswith(LOGS)
            and self._get_upgrade() == b"websocket"
            and given.get(b"sec-websocket-version") == b"13"
            and re.fullmatch(rb"[A-Za-z0-9+/]{22}==", key) is not None
            and not given.keys() & {b"content-length", b"transfer-encoding"}
            and len(self.url) < LONGEST_LINE
            and all(len(name) + len(value) < LONGEST_LINE for name, value in self.headers)
        )

    def _head_without_wish(self) -> bytes:
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [
            b"%b: %b" % (name, value)
            for name, value in self.headers
            if name not in (b"connection", b"upgrade", b"http2-settings")
        ]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join([*lines, b"", b""])
