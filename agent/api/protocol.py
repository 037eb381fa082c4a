"""HTTP as uvicorn speaks it, but for two things that programs run into and one that costs time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from agent.api.errors import STATUS

LOGS = b"/api/logs/"
"""Where a log is shown, and may be followed through a web socket."""


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


class Protocol(HttpToolsProtocol):
    """uvicorn's own, which answers what is no HTTP with plain text and loses the body of a request with `Upgrade`."""

    _to_be_ignored = False
    """Whether the request that is being parsed wishes for another protocol, which it does not get."""

    _becomes_socket = False
    """Whether it is one for a web socket that there is."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn declares it
        """Begin with a connection."""
        super().connection_made(cast("asyncio.Transport", HeadWithBody(transport, self.loop)))

    def send_400_response(self, msg: str) -> None:
        """Answer `malformed` and close: what follows cannot be told apart from it."""
        body = orjson.dumps({"error": "This is not a valid HTTP request.", "code": "malformed"})
        self.transport.write(
            b"HTTP/1.1 %d Bad Request\r\n"
            b"content-type: application/json\r\n"
            b"content-length: %d\r\n"
            b"connection: close\r\n"
            b"\r\n%b" % (STATUS["malformed"], len(body), body)
        )
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse, and parse a request that wishes for another protocol again, as one that does not.

        Java's client and `curl --http2` wish for h2c with every first request. A server may ignore it (RFC 9110, 7.8),
        but httptools takes everything behind the head for that protocol already.
        """
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as wish:
            if self._becomes_socket:
                self.handle_websocket_upgrade()
            elif self._to_be_ignored:
                self.data_received(self._head_without_wish() + data[wish.args[0] :])
        except httptools.HttpParserError:
            text = "Invalid HTTP request received."
            self.logger.warning(text)
            self.send_400_response(text)

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head has to be parsed once more."""
        # The method CONNECT is an upgrade too, but has no body that could be lost.
        wish = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        self._becomes_socket = (
            wish
            and self.parser.get_method() == b"GET"
            and self.url.startswith(LOGS)
            and self._get_upgrade() == b"websocket"
        )
        self._to_be_ignored = wish and not self._becomes_socket
        if not self._to_be_ignored:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the body, unless the head has to be parsed once more."""
        if not self._to_be_ignored:
            super().on_message_complete()

    def _should_upgrade(self) -> bool:
        return self._becomes_socket

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
