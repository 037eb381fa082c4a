"""Ask the dbvalet of this container whether it is ready: `python -m agent.healthcheck`, exit status 0 or 1.

It knows nothing but where the service listens, which is `DBVALET_LISTEN` as the image sets it, and how TLS is spoken
there; no token is read. It runs every few seconds for ever, so it imports nothing but `socket`, and `ssl` where that is
needed: no HTTP client, no settings.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

TIMEOUT = 2.0
"""Seconds."""

REQUEST = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def address_of(listen: str) -> tuple[str, int]:
    """Tell where to ask a service that listens at `host:port`: on the loopback address, if it listens on every one."""
    host, _, port = listen.rpartition(":")
    return {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]")), int(port)  # noqa: S104 - nothing is bound


def context_of(environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """Tell how TLS is spoken; None for plain HTTP, which it is unless one of these variables is set.

    `DBVALET_CA_FILE` has the authorities to trust, `DBVALET_TLS` is how the service itself is told to speak TLS.
    `DBVALET_CLIENT_CERTIFICATE` and `DBVALET_CLIENT_KEY` (in the same file unless given) are shown to a service that
    demands a certificate.

    Raises: OSError, when a file of these cannot be read or used
    """
    authority, own = environ.get("DBVALET_CA_FILE"), environ.get("DBVALET_CLIENT_CERTIFICATE")
    if not (authority or own or environ.get("DBVALET_TLS")):
        return None
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Asked is the service of this machine, by an address that no certificate names.
    context.check_hostname = False
    if authority:
        context.load_verify_locations(authority)
    else:
        # Nothing secret is sent, and nothing is taken but a status.
        context.verify_mode = ssl.CERT_NONE
    if own:
        context.load_cert_chain(own, environ.get("DBVALET_CLIENT_KEY") or None)
    return context


def is_ready(address: tuple[str, int], tls: ssl.SSLContext | None = None) -> bool:
    """Tell whether `/readyz` is answered with 200.

    Raises: OSError, when nothing answers there
    """
    with socket.create_connection(address, TIMEOUT) as plain:
        connection = tls.wrap_socket(plain) if tls is not None else plain
        with connection:
            connection.sendall(REQUEST)
            with connection.makefile("rb") as answer:
                status = answer.read(12)
    if not status.startswith(b"HTTP/"):
        hint = "" if tls is not None else "; if it speaks TLS, set DBVALET_CA_FILE"
        raise ConnectionError(f"what answers is no HTTP{hint}")
    return status == b"HTTP/1.1 200"


def problem_of(environ: Mapping[str, str]) -> str | None:
    """Tell in one line why it is not ready; None when it is."""
    listen = environ.get("DBVALET_LISTEN") or "127.0.0.1:8000"
    try:
        ready = is_ready(address_of(listen), context_of(environ))
    except OSError as problem:
        return f"dbvalet does not answer at {listen}: {problem}"
    return None if ready else f"dbvalet at {listen} is not ready"


def main() -> None:
    """Say so in the exit status, and in one line if it is not ready."""
    if problem := problem_of(os.environ):
        sys.exit(problem)


if __name__ == "__main__":
    main()
