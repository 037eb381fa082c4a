"""HTTP as uvicorn parses it, but what is no HTTP gets an answer of the same form as everything else."""

from __future__ import annotations

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from agent.api.errors import STATUS


class Protocol(HttpToolsProtocol):
    """uvicorn's own, which answers a malformed request with plain text."""

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
