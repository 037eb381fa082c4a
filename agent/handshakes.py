"""How a TLS connection begins and ends: it counts as a client from its first moment, and both have their time."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from functools import partial
from typing import Any, cast

from agent.api.protocol import Protocol, most_connections

HANDSHAKE_SECONDS = 10.0
"""How long a client may take from its connection to the end of its handshake."""

GOODBYE_SECONDS = 1.0
"""How long the answer of a client to the end of its connection is awaited: an idle one does not look."""


class Handshakes:
    """Makes what speaks TLS with a client, then HTTP.

    `create_server` with a context would tell of a client only after its handshake: whoever says nothing is then nobody
    who is counted, and takes every file that may be open.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._under_way: dict[Handshake, None] = {}
        self._is_closed = False

    def __call__(self, **parts: Any) -> Handshake:
        """Make the protocol of one connection, of what uvicorn gives its own."""
        return Handshake(self, self._context, partial(Protocol, **parts), parts["server_state"].connections)

    def close(self) -> None:
        """End those under way, and begin none any more."""
        self._is_closed = True
        for each in list(self._under_way):
            each.abort()

    def begin(self, one: Handshake, connected: int) -> None:
        """Count one; the oldest gives way where there are too many with those that are connected.

        There may be an eighth more than clients, so that those beyond the limit get to know it. Who takes long for a
        handshake has nothing to lose yet, and as a rule wants nothing.
        """
        self._under_way[one] = None
        most = most_connections()
        if self._is_closed:
            one.abort()
        elif connected + len(self._under_way) > most + max(1, most // 8):
            next(iter(self._under_way)).abort()

    def end(self, one: Handshake) -> None:
        """Count one no more."""
        self._under_way.pop(one, None)


class Handshake(asyncio.Protocol):
    """The protocol of a connection until TLS is spoken."""

    _plain: asyncio.Transport
    _steps: Coroutine[Any, Any, asyncio.Transport | None]

    def __init__(
        self, all_: Handshakes, context: ssl.SSLContext, make_protocol: partial[Protocol], connected: set[Any]
    ) -> None:
        self._all = all_
        self._context = context
        self._make_protocol = make_protocol
        self._connected = connected
        self._loop = asyncio.get_running_loop()
        self._early = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - TCP has this one
        """Begin with TLS."""
        self._plain = transport
        self._steps = self._loop.start_tls(
            transport, self, self._context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )
        # Not as a task, which would begin when uvloop has already read the first bytes, and they would be lost.
        self._go_on()
        self._all.begin(self, len(self._connected))

    def data_received(self, data: bytes) -> None:
        """Keep what came together with the end of the handshake: not every event loop tells of that end first."""
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        """End with it."""
        self._all.end(self)

    def abort(self) -> None:
        """End the connection, without a word: it would have to be one of TLS."""
        self._all.end(self)
        self._plain.abort()

    def _go_on(self, _: object = None) -> None:
        tls: asyncio.Transport | None = None
        try:
            awaited: asyncio.Future[Any] = self._steps.send(None)
        except StopIteration as done:
            tls = done.value
        except OSError:
            # No TLS, no certificate, not in time, gone: no fault of ours, and anybody could fill the log with it.
            self.abort()
            return
        else:
            awaited.add_done_callback(self._go_on)
            return
        self._all.end(self)
        # It may have gone away just then, and nobody would be told of it any more.
        if tls is not None and not self._plain.is_closing():
            self._speak_http(tls)

    def _speak_http(self, tls: asyncio.Transport) -> None:
        protocol = self._make_protocol()
        tls.set_protocol(protocol)
        protocol.connection_made(cast(asyncio.Transport, Secured(tls, self._plain, self._loop)))
        if self._early:
            protocol.data_received(self._early)


class Secured:
    """A transport of TLS that does not wait for the client's goodbye.

    uvloop's own waits 30 s for it, and a client that is idle does not even read. Nothing is lost without it (RFC 8446,
    6.1).
    """

    def __init__(self, transport: asyncio.Transport, plain: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._plain = plain
        self._loop = loop
        self.write = transport.write

    def close(self) -> None:
        """Send what there is, say that this is the end, and close soon after."""
        self._transport.close()
        if not self._plain.is_closing():
            # What is not sent by then still goes first.
            self._loop.call_later(GOODBYE_SECONDS, self._plain.close)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
