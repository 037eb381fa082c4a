"""The same through `dbvalet serve`, a process of its own: what only its start puts together."""

import json
import signal
import socket
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.unit.running import ACME, TOKEN, configuration, serving


def answered(url: str, sent: bytes) -> bytes:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(sent)
        received = b""
        while data := client.recv(65536):
            received += data
    return received


def test_no_http_gets_json_and_is_told_in_a_line_of_the_log(tmp_path: Path):
    with serving(configuration(tmp_path, ACME)) as running:
        received = answered(running.url, b"\x16\x03\x01 is TLS, not HTTP\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert json.loads(received.partition(b"\r\n\r\n")[2])["code"] == "malformed"
        assert running.process.stdout is not None
        lines = map(json.loads, iter(running.process.stdout.readline, b""))
        line = next(line for line in lines if line["event"] == "library")

    assert (line["level"], line["logger"]) == ("warning", "uvicorn.error")
    assert line["message"] == "This is not a valid HTTP request."


def test_an_answer_names_no_server(tmp_path: Path):
    with serving(configuration(tmp_path, ACME)) as running:
        received = answered(running.url, b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    assert b"\r\nserver:" not in received.lower()
    assert b"\r\nx-request-id: " in received
    assert received.endswith(b'{"status":"alive"}')


@pytest.mark.parametrize("trusted", [{}, {"FORWARDED_ALLOW_IPS": "*"}])
def test_nobody_says_by_a_header_where_a_request_comes_from(tmp_path: Path, trusted: dict[str, str]):
    file = tmp_path / "engine.log"
    file.write_text("2026-01-31 08:00:00 UTC before\n")
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "X-Forwarded-For": "203.0.113.66",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "elsewhere.example",
        "Forwarded": "for=203.0.113.66;proto=https;host=elsewhere.example",
    }

    with serving(configuration(tmp_path, {**ACME, "log_file": str(file)}), more=trusted) as running:

        def asked(path: str, method: str = "GET", body: bytes | None = None) -> Any:
            with urlopen(Request(running.url + path, body, headers, method=method), timeout=10) as answer:
                return json.load(answer)

        asked("/api/databases/ad-acme", "PATCH", b'{"database":{"periodic_backups_enabled":true}}')
        (line,) = asked("/api/audit")["audit"]
        link = asked("/api/databases/ad-acme/logs")["url"]
        region = asked("/v1/regions")["regions"][0]

    assert line["address"] == "127.0.0.1"
    assert link.startswith(f"{running.url}/api/logs/")
    assert {value for value in region.values() if "://" in str(value)} == {running.url}


def test_a_stop_does_not_wait_for_who_follows_a_log(tmp_path: Path):
    file = tmp_path / "engine.log"
    file.write_text("2026-01-31 08:00:00 UTC before\n")
    with serving(configuration(tmp_path, {**ACME, "log_file": str(file)})) as running:
        asked = Request(f"{running.url}/api/databases/ad-acme/logs", headers={"Authorization": f"Bearer {TOKEN}"})
        with urlopen(asked) as answer:
            url: str = json.load(answer)["url"]
        with connect(url.replace("http", "ws", 1) + "&stream=true") as socket:
            with file.open("a") as log:
                log.write("2026-01-31 08:00:01 UTC after\n")
            assert json.loads(socket.recv(timeout=10))["log"].endswith("[acme] after")
            began = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                socket.recv(timeout=10)
        assert running.process.wait(10) == 0
        assert time.monotonic() - began < 5
