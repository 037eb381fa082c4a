"""A load of action requests, in a process of its own.

`python -m tests.bench.load HOST PORT DATABASE ACTION CLIENTS SECONDS`.
The token comes from the variable BENCH_TOKEN. Prints one JSON object: requests, failed, seconds, p50_ms, p99_ms.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time

import uvloop

from tests.bench.figures import summary

MARK = b'{"ok":1,'


def request(host: str, database: str, action: str) -> bytes:
    body = json.dumps({"action_name": action}).encode()
    head = (
        f"POST /api/databases/{database}/action HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {os.environ['BENCH_TOKEN']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def complete(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return len(body) >= int(length[15:])


def one_client(host: str, port: int, message: bytes, seconds: float) -> dict[str, float]:
    """Ask in turn over one kept connection, with blocking calls: the least that a client can cost."""
    took: list[float] = []
    failed = 0
    with socket.create_connection((host, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            asked = time.perf_counter()
            connection.sendall(message)
            answer = connection.recv(262144)
            while answer and not complete(answer):
                more = connection.recv(262144)
                answer = answer + more if more else b""
            took.append(time.perf_counter() - asked)
            if MARK not in answer:
                failed += 1
                if not answer:
                    break
        elapsed = time.perf_counter() - began
    return summary(took, elapsed, failed)


class Client(asyncio.Protocol):
    """One kept connection that asks again as soon as it has its answer."""

    def __init__(self, message: bytes, ends: float, took: list[float], failures: list[int]) -> None:
        self.message, self.ends, self.took, self.failures = message, ends, took, failures
        self.answer = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.asked = time.perf_counter()
        self.transport.write(self.message)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.answer += data
        if not complete(self.answer):
            return
        now = time.perf_counter()
        self.took.append(now - self.asked)
        if MARK not in self.answer:
            self.failures[0] += 1
        self.answer = b""
        if now < self.ends:
            self.ask()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.failures[0] += 1
            self.done.set_result(None)


async def many_clients(host: str, port: int, message: bytes, clients: int, seconds: float) -> dict[str, float]:
    took: list[float] = []
    failures = [0]
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Client(message, began + seconds, took, failures), host, port)
        for _ in range(clients)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    elapsed = time.perf_counter() - began
    for transport, _ in made:
        transport.close()
    return summary(took, elapsed, failures[0])


def main() -> None:
    host, port, database, action, clients, seconds = sys.argv[1:]
    message = request(host, database, action)
    if int(clients) == 1:
        found = one_client(host, int(port), message, float(seconds))
    else:
        found = uvloop.run(many_clients(host, int(port), message, int(clients), float(seconds)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
