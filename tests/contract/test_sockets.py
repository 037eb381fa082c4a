"""What only real sockets show: clients that leave, bodies in pieces, bytes that are no HTTP."""

import asyncio
import gzip
import json
import resource
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trustme
import uvloop

from agent import handshakes, listen
from agent.api import edge, protocol
from agent.api.protocol import LARGEST_HEAD, MOST_HEADERS, MOST_WAITING, Protocol
from agent.listen import Listener
from agent.log import make_log
from tests.fakes.driver import Gate
from tests.fakes.service import TOKENS, Valet, listening, running, until

ACTION = b"/api/databases/ad-one/action"
BEARER = b"Authorization: Bearer " + TOKENS["admin"].encode()
LIST = b'{"action_name":"list-things"}'


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """A client's end of a connection to the service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()

    async def answer(self) -> Answer:
        async with asyncio.timeout(10):
            first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(first.split()[1]), headers, body)

    @property
    def is_answered(self) -> bool:
        """Whether something came that was not read yet."""
        return bool(self._reader._buffer)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType]

    async def rest(self) -> bytes:
        """Read until the service closes the connection."""
        async with asyncio.timeout(10):
            return await self._reader.read()

    def leave(self) -> None:
        """Go without a goodbye: a reset, as a killed client's kernel sends it."""
        self._writer.transport.abort()


class SecurePort(int):
    """A port where TLS is spoken, or may be."""

    tls: ssl.SSLContext | None
    """Of a client."""


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Give the contexts of a service and of its clients."""
    authority = trustme.CA()
    service, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("127.0.0.1").configure_cert(service)
    authority.configure_trust(client)
    return service, client


@pytest.fixture(params=["http", "https"])
async def port(
    valet: Valet, tls: tuple[ssl.SSLContext, ssl.SSLContext], request: pytest.FixtureRequest
) -> AsyncIterator[int]:
    of_service, of_client = tls
    async with listening(valet, of_service if request.param == "https" else None) as number:
        port = SecurePort(number)
        port.tls = of_client if request.param == "https" else None
        yield port


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    tls = port.tls if isinstance(port, SecurePort) else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


def head(*headers: bytes, method: bytes = b"POST", path: bytes = ACTION) -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: dbvalet", BEARER, *headers, b"", b""])


def request(body: bytes = LIST, *headers: bytes) -> bytes:
    return head(b"Content-Length: %d" % len(body), *headers) + body


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


async def ask(port: int, *parts: bytes) -> Answer:
    async with connected(port) as connection:
        await connection.send(*parts)
        return await connection.answer()


def complaints(valet: Valet) -> list[dict[str, Any]]:
    """Give the lines of the log that speak of something wrong."""
    return [line for line in valet.lines() if line["level"] in ("warning", "error")]


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(valet: Valet, port: int):
    async with connected(port) as connection:
        await connection.send(head(b"Content-Length: 100"), b'{"action_')
        await asyncio.sleep(0.05)
        connection.leave()
    await until(lambda: valet.lines("action"))

    (line,) = valet.lines("action")
    assert (line["outcome"], line["level"], line["who"], line["action"]) == ("client_left", "info", "admin", None)
    assert complaints(valet) == []
    assert valet.server().performed == []
    assert b'outcome="client_left"' in valet.service.metrics.render()
    assert b'outcome="internal"' not in valet.service.metrics.render()


async def test_a_client_that_leaves_in_the_middle_of_a_chunk_is_no_error(valet: Valet, port: int):
    async with connected(port) as connection:
        await connection.send(head(b"Transfer-Encoding: chunked"), chunk(b'{"action_'), b"ff\r\n")
        await asyncio.sleep(0.05)
        connection.leave()
    await until(lambda: valet.lines("action"))

    assert complaints(valet) == []


async def test_a_client_that_leaves_while_its_action_runs_is_no_error_and_the_action_ends(valet: Valet, port: int):
    gate = valet.server().gate = Gate()
    async with connected(port) as connection:
        await connection.send(request(b'{"action_name":"add-thing","params":{"name":"late"}}'))
        await until(lambda: gate.waiting)
        connection.leave()
    await asyncio.sleep(0.05)
    gate.open.set()
    await until(lambda: valet.lines("action"))

    assert valet.lines("action")[0]["outcome"] == "ok"
    assert "late" in valet.server().things
    assert complaints(valet) == []


async def test_a_body_in_chunks_is_read_to_its_end(port: int):
    pieces = [chunk(LIST[start : start + 7]) for start in range(0, len(LIST), 7)]
    answer = await ask(port, head(b"Transfer-Encoding: chunked"), *pieces, b"0\r\n\r\n")

    assert (answer.status, answer.json()["ok"]) == (200, 1)


async def test_a_body_byte_by_byte_is_read_to_its_end(port: int):
    whole = request()
    answer = await ask(port, *(whole[at : at + 1] for at in range(len(whole))))
    assert answer.status == 200


async def test_chunks_over_the_limit_are_413_before_the_last_one(port: int):
    async with connected(port) as connection:
        await connection.send(head(b"Transfer-Encoding: chunked"), *[chunk(b" " * 65536)] * 17)
        answer = await connection.answer()
    assert (answer.status, answer.json()["code"]) == (413, "too_large")


async def test_a_body_that_never_comes_is_400_in_the_end(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(edge, "BODY_SECONDS", 0.1)
    answer = await ask(port, head(b"Content-Length: 100"), b"{")

    assert (answer.status, answer.json()["code"]) == (400, "malformed")
    assert answer.json()["error"] == "The body did not arrive within 0.1 s."


async def test_a_client_that_expects_100_continue_is_told_to_go_on(port: int):
    async with connected(port) as connection:
        await connection.send(head(b"Content-Length: %d" % len(LIST), b"Expect: 100-continue"))
        first = await connection.answer()
        await connection.send(LIST)
        answer = await connection.answer()
    assert (first.status, answer.status) == (100, 200)


async def test_a_client_that_expects_100_continue_with_too_much_is_refused_first(port: int):
    answer = await ask(port, head(b"Content-Length: 1048577", b"Expect: 100-continue"))
    assert answer.status == 413


async def test_a_compressed_body_is_no_json(port: int):
    answer = await ask(port, request(gzip.compress(LIST), b"Content-Encoding: gzip"))
    assert (answer.status, answer.json()["code"]) == (400, "malformed")


async def test_a_connection_is_kept_and_requests_may_follow_without_waiting(port: int):
    async with connected(port) as connection:
        await connection.send(request() + request(b"{") + request())
        statuses = [(await connection.answer()).status for _ in range(3)]
    assert statuses == [200, 400, 200]


async def test_a_connection_is_kept_after_every_refusal(port: int):
    async with connected(port) as connection:
        for body, status in ((b"[]", 400), (b"{}", 422), (b'{"action_name":"none"}', 404), (LIST, 200)):
            await connection.send(request(body))
            assert (await connection.answer()).status == status


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nA\x00b: c\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\n: c\r\n\r\n",
        head(b"Content-Length: x") + LIST,
        head(b"Content-Length: -1") + LIST,
        head(b"Content-Length: 99999999999999999999999") + LIST,
        head(b"Content-Length: 29", b"Content-Length: 30") + LIST,
        head(b"Content-Length: 29", b"Transfer-Encoding: chunked") + LIST,
        head(b"Transfer-Encoding: chunked") + b"zz\r\n",
        head(b"Transfer-Encoding: gzip") + LIST,
    ],
)
async def test_what_is_no_http_is_400_with_a_json_body(valet: Valet, port: int, sent: bytes):
    async with connected(port) as connection:
        await connection.send(sent)
        answer = await connection.answer()
        assert await connection.rest() == b""

    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"error": "This is not a valid HTTP request.", "code": "malformed"}
    assert valet.server().performed == []


@pytest.mark.parametrize("target", [b"*", b"http://evil.example/api/databases", b"evil.example:443", b"/%00", b"/\xff"])
@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"CONNECT", b"PROPFIND"])
async def test_an_odd_target_is_refused_with_a_json_body(valet: Valet, port: int, method: bytes, target: bytes):
    answer = await ask(port, head(method=method, path=target))

    if (method, target) == (b"GET", b"http://evil.example/api/databases"):
        assert answer.status == 200  # the absolute form of a target names the same path (RFC 9112, 3.2.2)
        return
    assert answer.status in (400, 404, 405)
    assert answer.json()["error"]
    assert [line for line in valet.lines() if line["level"] == "error"] == []


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"TLS/1.0, HTTP/2.0"])
async def test_a_wish_for_another_protocol_is_ignored_and_costs_no_body(valet: Valet, port: int, protocol: bytes):
    """As Java's client sends its first request, and `curl --http2`."""
    wish = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + protocol, b"HTTP2-Settings: AAMAAABkAAQAAP__")
    whole = request(LIST, *wish)
    for parts in ([whole], [whole[:-5], whole[-5:]], [whole[at : at + 1] for at in range(len(whole))]):
        async with connected(port) as connection:
            await connection.send(*parts)
            first = await connection.answer()
            await connection.send(request(b"{") + head(b"Connection: upgrade", b"Upgrade: h2c", method=b"GET"))
            second, third = await connection.answer(), await connection.answer()
        assert [first.status, second.status, third.status] == [200, 400, 405]
    chunks = head(b"Transfer-Encoding: chunked", *wish) + chunk(LIST) + b"0\r\n\r\n"
    assert (await ask(port, chunks)).status == 200
    assert valet.server().performed == ["list-things"] * 4


HANDSHAKE = {
    b"Connection": b"Upgrade",
    b"Upgrade": b"websocket",
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Key": b"AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        (b"/api/logs/ad-one", {}),
        (b"/api/logs/ad-one", {b"Sec-WebSocket-Version": b"8"}),
        (b"/api/logs/ad-one", {b"Sec-WebSocket-Key": b"AAAA"}),
        (b"/api/logs/ad-one", {b"Sec-WebSocket-Key": b""}),
        (b"/api/logs/ad-one", {b"Content-Length": b"5"}),
        (b"/api/logs/ad-one", {b"Transfer-Encoding": b"chunked"}),
        (b"/api/logs/ad-one", {b"A": b"b" * 9000}),
        (b"/api/logs/ad-one?token=" + b"a" * 9000, {}),
    ],
)
async def test_what_cannot_become_a_web_socket_is_answered_as_anything_else(
    port: int, path: bytes, changes: dict[bytes, bytes]
):
    lines = [b"%b: %b" % header for header in (HANDSHAKE | changes).items()]
    answer = await ask(port, head(*lines, method=b"GET", path=path))
    assert (answer.status, answer.json()["code"]) == (403, "forbidden")


async def test_http_1_0_is_answered_and_closed(port: int):
    async with connected(port) as connection:
        await connection.send(b"GET /livez HTTP/1.0\r\n\r\n")
        assert (await connection.answer()).json() == {"status": "alive"}
        assert await connection.rest() == b""


async def test_head_has_no_body_on_the_wire(port: int):
    async with connected(port) as connection:
        await connection.send(b"HEAD /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        whole = await connection.rest()
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 18\r\n" in whole
    assert whole.endswith(b"\r\n\r\n")


async def test_the_service_does_not_name_its_server(port: int):
    answer = await ask(port, request())
    assert "server" not in answer.headers


async def test_an_idle_connection_outlives_that_of_a_proxy(valet: Valet):
    listener = Listener(valet.app, [], make_log(stream=valet.log))
    assert listener.config.timeout_keep_alive > 60


TOO_LARGE = {
    "error": "The target and the headers are larger than 64 KiB together, or there are more than 100 headers.",
    "code": "head_too_large",
}


def of_size(size: int, *, path: bytes = b"/livez", value: bool = True) -> bytes:
    """Give a head whose target, names and values have so many bytes, most of them in one value or in the target."""
    rest = size - len(path) - len(b"Hosta") - len(b"b") - 1
    target, text = (path, b"x" * rest) if value else (path + b"?" + b"x" * (rest - 1), b"")
    return b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nb: y" + text + b"\r\n\r\n"


def in_pieces(whole: bytes, size: int) -> list[bytes]:
    return [whole[at : at + size] for at in range(0, len(whole), size)]


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("size", [1000, 40_000, LARGEST_HEAD * 2])
async def test_a_head_of_just_the_limit_is_taken_and_a_larger_one_is_431(
    port: int, size: int, value: bool, caplog: pytest.LogCaptureFixture
):
    async with connected(port) as connection:
        await connection.send(*in_pieces(of_size(LARGEST_HEAD, value=value), size))
        assert (await connection.answer()).status == 200
        await connection.send(*in_pieces(of_size(LARGEST_HEAD + 1, value=value), size))
        answer = await connection.answer()
        assert await connection.rest() == b""

    assert (answer.status, answer.json(), answer.headers["connection"]) == (431, TOO_LARGE, "close")
    assert caplog.messages == [TOO_LARGE["error"]]


async def test_more_headers_than_a_hundred_are_431(port: int):
    def headers(number: int) -> bytes:
        return b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"a:\r\n" * (number - 1) + b"\r\n"

    async with connected(port) as connection:
        await connection.send(headers(MOST_HEADERS))
        assert (await connection.answer()).status == 200
        await connection.send(headers(MOST_HEADERS + 1))
        assert (await connection.answer()).json() == TOO_LARGE
    async with connected(port) as connection:
        await connection.send(headers(MOST_HEADERS + 2)[:-2])  # which shows that the last but one is whole
        assert (await connection.answer()).json() == TOO_LARGE


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /", b"x" * 1000),
        (b"GET /livez HTTP/1.1\r\n", b"x" * 1000),
        (b"GET /livez HTTP/1.1\r\nHost: ", b"x" * 1000),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\n", b"a:\r\n" * 2),
        (b"\r\n", b"\r\n" * 500),
        (head(b"Transfer-Encoding: chunked") + b"0\r\na: ", b"x" * 1000),
        (head(b"Transfer-Encoding: chunked") + b"0\r\n", b"a:\r\n" * 250),
        (head(b"Transfer-Encoding: chunked") + b"1;a=", b"x" * 1000),
    ],
)
async def test_what_is_no_body_and_has_no_end_is_431_before_it_has_one(port: int, begin: bytes, more: bytes):
    async with connected(port) as connection:
        await connection.send(begin)
        sent = 0
        while not connection.is_answered and sent < 5 * LARGEST_HEAD:
            await connection.send(more)
            await asyncio.sleep(0.001)
            sent += len(more)
        answer = await connection.answer()
        assert await connection.rest() == b""
    assert answer.json() == TOO_LARGE


UNFINISHED = [
    [b"GET /"],
    [b"GET /livez HTTP/1.1\r\nHost: "],
    [b"\r\n"],
    [head(b"Transfer-Encoding: chunked"), b"0\r\n"],
    [head(b"Transfer-Encoding: chunked"), b"1;a="],
]


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("begin", UNFINISHED)
async def test_what_is_begun_and_not_ended_is_400_however_slowly_it_goes_on(
    port: int, begin: list[bytes], before: int, monkeypatch: pytest.MonkeyPatch
):
    received: list[bytes] = []
    taken = Protocol.data_received

    def take(self: Protocol, data: bytes) -> None:
        taken(self, data)
        received.append(data)

    monkeypatch.setattr(Protocol, "data_received", take)
    more = b"\r\n" if begin == [b"\r\n"] else b"x"
    async with connected(port) as connection:
        for _ in range(before):
            await connection.send(request())
            assert (await connection.answer()).status == 200
        with monkeypatch.context() as patched:
            patched.setattr(protocol, "REQUEST_SECONDS", 0.3)
            for part in begin:
                received.clear()
                await connection.send(part)
                await until(lambda: received)
        # Whatever comes now does not prolong it.
        await connection.send(more)
        answer = await connection.answer()
        assert await connection.rest() == b""
    assert (answer.status, answer.json()["code"]) == (400, "malformed")
    assert answer.json()["error"].startswith("The request did not arrive within ")


async def test_a_head_in_pieces_is_taken_and_the_next_has_its_own_time(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 2)
    async with connected(port) as connection:
        # All of them together take longer.
        for _ in range(20):
            for piece in in_pieces(request(), 60):
                await connection.send(piece)
                await asyncio.sleep(0.05)
            assert (await connection.answer()).status == 200


async def test_what_waits_for_its_turn_is_not_late(valet: Valet, port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.1)
    gate = valet.server().gate = Gate()
    async with connected(port) as connection:
        await connection.send(request() * 2 + request()[:30])
        await until(lambda: gate.waiting)
        await asyncio.sleep(0.5)
        monkeypatch.setattr(protocol, "REQUEST_SECONDS", 10)
        await asyncio.sleep(0.2)
        gate.open.set()
        await connection.send(request()[30:])
        assert [(await connection.answer()).status for _ in range(3)] == [200] * 3


async def test_the_body_of_what_is_answered_keeps_no_connection(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.3)
    async with connected(port) as connection:
        await connection.send(head(b"Content-Length: 100000").replace(BEARER, b"Authorization: none") + b"{")
        assert (await connection.answer()).status == 401
        for _ in range(200):
            await asyncio.sleep(0.02)
            try:
                await connection.send(b"x")
            except ConnectionError:
                return
    raise AssertionError("it was kept")


async def test_who_says_nothing_is_not_kept_for_ever(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listen, "KEEP_ALIVE_SECONDS", 0.2)
    async with listening(valet) as port, connected(port) as connection:
        assert await connection.rest() == b""


async def test_more_clients_than_there_may_be_are_told_so_until_one_leaves(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 2)
    async with connected(port) as one:
        await one.send(request())
        assert (await one.answer()).status == 200
        async with connected(port), connected(port) as third:
            answer = await third.answer()
            assert await third.rest() == b""
            await one.send(request())
            assert (await one.answer()).status == 200
        assert (answer.status, answer.json()["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
        assert answer.json()["error"] == "More than 2 clients are connected."
        assert caplog.messages == ["More than 2 clients are connected."]
        async with asyncio.timeout(10):
            status = 503
            while status == 503:  # until it is seen that they left
                await asyncio.sleep(0.01)
                status = (await ask(port, request())).status
        assert status == 200


@pytest.mark.parametrize(("files", "most"), [(resource.RLIM_INFINITY, 4096), (1_048_576, 4096), (1024, 512), (1, 1)])
def test_half_of_the_files_that_may_be_open_are_left_to_the_engines(
    files: int, most: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert protocol.most_connections() == most


async def test_many_small_requests_are_no_large_one(port: int):
    async with connected(port) as connection:
        for _ in range(3):
            await connection.send(of_size(30_000))
            assert (await connection.answer()).status == 200


async def test_a_large_body_is_no_head(port: int):
    """Also where the begin of the next head came with its end."""
    body = LIST + b" " * (edge.LARGEST_BODY - len(LIST))
    pieces = [chunk(part) for part in in_pieces(body, 10_000)]
    async with connected(port) as connection:
        await connection.send(request(body) + request()[:50], request()[50:])
        await connection.send(head(b"Transfer-Encoding: chunked"), *pieces, b"0\r\n\r\n" + request())
        assert [(await connection.answer()).status for _ in range(4)] == [200] * 4


async def test_what_stands_behind_a_body_is_no_header(valet: Valet, port: int):
    body = b'{"action_name":"add-thing","params":{"name":"late"}}'
    async with connected(port) as connection:
        statuses: list[int] = []
        for _ in range(2):
            await connection.send(
                head(b"Transfer-Encoding: chunked"), chunk(body), b"0\r\nIdempotency-Key: one\r\n\r\n"
            )
            statuses.append((await connection.answer()).status)
    assert statuses == [200, 409]


async def test_requests_that_wait_for_their_turn_are_not_read_on(valet: Valet, port: int):
    gate = valet.server().gate = Gate()
    async with connected(port) as connection:
        await connection.send(request() * 60)
        await until(lambda: gate.waiting)
        await connection.send(request() * 60)
        gate.open.set()
        assert [(await connection.answer()).status for _ in range(120)] == [200] * 120


async def test_too_many_requests_at_once_are_answered_as_far_as_they_were_begun(valet: Valet, port: int):
    async with connected(port) as connection:
        await connection.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        answers = [await connection.answer() for _ in range(MOST_WAITING + 2)]
        assert await connection.rest() == b""

    assert [answer.status for answer in answers] == [200] * (MOST_WAITING + 1) + [503]
    assert (answers[-1].json()["code"], answers[-1].headers["retry-after"]) == ("overloaded", "1")
    assert answers[-1].json()["error"] == (
        "More than 100 requests wait for their answers on this connection: neither this one nor any after it was begun."
    )


async def test_wishes_for_another_protocol_do_not_go_deeper_and_deeper(
    valet: Valet, port: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(protocol, "MOST_WAITING", 10_000)
    wish = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    async with connected(port) as connection:
        await connection.send(wish * 1500)
        assert {(await connection.answer()).status for _ in range(1500)} == {200}
    assert complaints(valet) == []


@pytest.mark.parametrize(
    "broken", [b"nonsense\r\n\r\n", head(b"Transfer-Encoding: chunked") + b"zz\r\n", of_size(LARGEST_HEAD + 1)]
)
@pytest.mark.parametrize("before", [b"", request(b"{")])
async def test_a_refusal_waits_for_the_answers_before_it(
    valet: Valet, port: int, before: bytes, broken: bytes, caplog: pytest.LogCaptureFixture
):
    gate = valet.server().gate = Gate()
    async with connected(port) as connection:
        await connection.send(request() + before + broken + request())
        await until(lambda: gate.waiting)
        await connection.send(b"nonsense\r\n\r\n", request())
        await asyncio.sleep(0.05)
        gate.open.set()
        statuses = [(await connection.answer()).status for _ in range(3 if before else 2)]
        assert await connection.rest() == b""

    last = 431 if len(broken) > LARGEST_HEAD else 400
    assert statuses == ([200, 400, last] if before else [200, last])
    assert valet.server().performed == ["list-things"]
    assert len(caplog.messages) == 1


async def test_a_request_that_is_answered_is_not_refused_as_well(port: int):
    async with connected(port) as connection:
        await connection.send(head(b"Transfer-Encoding: chunked", method=b"GET", path=b"/livez"))
        assert (await connection.answer()).status == 200
        await connection.send(b"zz\r\n")
        assert await connection.rest() == b""


async def test_a_handshake_that_does_not_come_is_not_awaited_for_ever(
    valet: Valet, tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(handshakes, "HANDSHAKE_SECONDS", 0.2)
    async with listening(valet, tls[0]) as port, connected(port) as connection:
        assert await connection.rest() == b""


async def test_the_oldest_handshake_gives_way_where_there_are_too_many(
    valet: Valet, tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 2)
    async with listening(valet, tls[0]) as port, connected(port) as first, connected(port), connected(port):
        secure = SecurePort(port)
        secure.tls = tls[1]
        assert (await ask(secure, request())).status == 200
        assert await first.rest() == b""


def test_who_reads_slowly_has_the_whole_answer_before_the_connection_ends(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(handshakes, "GOODBYE_SECONDS", 0.01)

    def read_slowly(port: int) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            tls[1].wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall(request(LIST, b"Connection: close"))
            time.sleep(0.5)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))

    async def ask_for_much() -> bytes:
        async with running() as valet, listening(valet, tls[0]) as port:
            valet.server().things |= {f"{number:05}" * 400: "grey" for number in range(7000)}
            return await asyncio.to_thread(read_slowly, port)

    # The event loop of `serve`.
    _, _, body = uvloop.run(ask_for_much()).partition(b"\r\n\r\n")
    assert len(json.loads(body)["result"]) > 7000
