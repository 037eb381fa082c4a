"""Ask the dbvalet of this container whether it is ready: `python -m agent.healthcheck`, exit status 0 or 1.

It knows nothing but where the service listens, which is `DBVALET_LISTEN` as the image sets it; no secret is read. It
runs every few seconds for ever, so it imports nothing but `socket`: no HTTP client, no settings.
"""

from __future__ import annotations

import os
import socket
import sys

TIMEOUT = 2.0
"""Seconds."""

REQUEST = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def address_of(listen: str) -> tuple[str, int]:
    """Tell where to ask a service that listens at `host:port`: on the loopback address, if it listens on every one."""
    host, _, port = listen.rpartition(":")
    return {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]")), int(port)  # noqa: S104 - nothing is bound


def is_ready(address: tuple[str, int]) -> bool:
    """Tell whether `/readyz` is answered with 200.

    Raises: OSError, when nothing answers there
    """
    with socket.create_connection(address, TIMEOUT) as connection:
        connection.sendall(REQUEST)
        with connection.makefile("rb") as answer:
            return answer.read(12) == b"HTTP/1.1 200"


def main() -> None:
    """Say so in the exit status, and in one line if it is not ready."""
    listen = os.environ.get("DBVALET_LISTEN") or "127.0.0.1:8000"
    try:
        ready = is_ready(address_of(listen))
    except OSError as problem:
        sys.exit(f"dbvalet does not answer at {listen}: {problem}")
    if not ready:
        sys.exit(f"dbvalet at {listen} is not ready")


if __name__ == "__main__":
    main()
