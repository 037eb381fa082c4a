"""The health check of the container: it knows nothing but where to ask."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from agent import healthcheck


@contextmanager
def listening(status: int) -> Iterator[tuple[int, list[str]]]:
    """Answer every request with a status; give the port and the paths that were asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            """Keep the output of the tests clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1], paths
        server.shutdown()


def check(monkeypatch: pytest.MonkeyPatch, listen: str) -> str:
    """Give what the check says, "" when all is well."""
    monkeypatch.setenv("DBVALET_LISTEN", listen)
    try:
        healthcheck.main()
    except SystemExit as end:
        return str(end.code)
    return ""


def test_a_ready_service_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(200) as (port, paths):
        assert check(monkeypatch, f"127.0.0.1:{port}") == ""
        assert paths == ["/readyz"]


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("0.0.0.0:8000", ("127.0.0.1", 8000)),
        ("[::]:80", ("::1", 80)),
        ("[fd00::1]:80", ("fd00::1", 80)),
        ("dbvalet.internal:8000", ("dbvalet.internal", 8000)),
    ],
)
def test_every_form_of_an_address_is_understood(listen: str, address: tuple[str, int]) -> None:
    assert healthcheck.address_of(listen) == address


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_service_that_is_not_ready_is_unhealthy(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    with listening(status) as (port, _):
        assert check(monkeypatch, f"127.0.0.1:{port}") == f"dbvalet at 127.0.0.1:{port} is not ready"


def test_silence_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(200) as (port, _):
        pass
    assert check(monkeypatch, f"127.0.0.1:{port}").startswith(f"dbvalet does not answer at 127.0.0.1:{port}: ")


def test_it_imports_nothing_of_the_service() -> None:
    code = "import sys, agent.healthcheck; print(sorted(n for n in sys.modules if n.partition('.')[0] == 'agent'))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "['agent', 'agent.healthcheck']\n"
