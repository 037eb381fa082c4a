"""Where the service listens, and that it says so."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from fastapi import FastAPI

from agent.api.protocol import Protocol
from agent.errors import SettingsError
from agent.handshakes import Handshakes

if TYPE_CHECKING:
    from agent.certificates import Certificates
    from agent.settings import Settings

FINISH_SECONDS = 27
"""How long requests under way may take to finish: no action holds longer than 25 s, and Kubernetes kills after 30."""

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept: longer than proxies keep theirs (60 s as a rule), which else send a request on
one that is just being closed."""

BACKLOG = 2048


class Listener(uvicorn.Server):
    """uvicorn on sockets that are bound already; logs the address once it answers there.

    With certificates it speaks HTTPS there and nothing else.
    """

    def __init__(
        self, app: FastAPI, sockets: list[socket.socket], log: Any, certificates: Certificates | None = None
    ) -> None:
        self._handshakes = None if certificates is None else Handshakes(certificates.context)
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=cast(Any, self._handshakes or Protocol),
            ws=cast(Any, web_socket),
            ws_max_size=1024,
            ws_per_message_deflate=False,
            lifespan="on",
            access_log=False,
            server_header=False,
            # Where a request says that it comes from, anybody on this machine can say: the audit has no use for it.
            proxy_headers=False,
            log_config=None,
            log_level="warning",
            backlog=BACKLOG,
            timeout_graceful_shutdown=FINISH_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        super().__init__(config)
        self._certificates = certificates
        self._sockets = sockets
        self._log = log

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until SIGTERM or SIGINT."""
        super().run(sockets or self._sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then log one line a socket: whoever asked for port 0 learns there which it became."""
        await super().startup(sockets)
        tls: dict[str, str] = {}
        if self._certificates is not None:
            self._certificates.start()
            tls["scheme"] = "https"
        for each in sockets or []:
            self._log.info("listening", address=shown(*each.getsockname()[:2]), pid=os.getpid(), **tls)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the requests under way."""
        if self._handshakes is not None:
            self._handshakes.close()
        await super().shutdown(sockets)
        if self._certificates is not None:
            self._certificates.close()


def certificates_of(settings: Settings, log: Any) -> Certificates | None:
    """Read and check the files of `tls`; None where plain HTTP is spoken.

    Raises: SettingsError
    """
    if settings.tls is None:
        return None
    from agent.certificates import Certificates

    return Certificates(settings.tls, log)


def web_socket(**parts: Any) -> asyncio.Protocol:
    """Make uvicorn's side of a web socket. Its library is imported only now: 60 ms of a start that few ever need."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(**parts)


def bind(host: str, port: int) -> list[socket.socket]:
    """Take the port on every address that the host name stands for; port 0 becomes one free port.

    Raises: SettingsError
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as problem:
        raise SettingsError("listen", f"the host {host} cannot be resolved: {problem.strerror}") from None
    bound: list[socket.socket] = []
    refused: OSError | None = None
    for family, address in dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found):
        both = address == "::" and socket.has_dualstack_ipv6()
        try:
            bound.append(socket.create_server((address, port), family=family, backlog=BACKLOG, dualstack_ipv6=both))
        except OSError as problem:
            refused = problem
            # A machine without IPv6 may still have ::1 in /etc/hosts beside 127.0.0.1.
            if problem.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue
            break
        port = bound[0].getsockname()[1]
    else:
        if bound:
            return bound
    for each in bound:
        each.close()
    reason = os.strerror(refused.errno or 0) if refused else "it has no address"
    raise SettingsError("listen", f"cannot take {shown(host, port)}: {reason}")


def shown(host: str, port: int) -> str:
    """Write an address as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
