"""The whole service on fake databases, in this process."""

import asyncio
import io
import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import httpx
from fastapi import FastAPI

from agent.api.protocol import Protocol
from agent.api.service import Service
from agent.app import create_app, secrets_of
from agent.databases import Database
from agent.handshakes import Handshakes
from agent.listen import Listener, bind
from agent.log import make_log
from agent.settings import Settings
from engines.engine import Engine
from tests.fakes import ENGINE
from tests.fakes.driver import FakeServer

TOKENS = {
    "admin": "token-of-the-admin-0123456789",
    "operator": "token-of-the-operator-0123456789",
    "reader": "token-of-the-reader-0123456789",
    "of-two": "token-of-database-two-0123456789",
    "picky": "token-of-some-actions-0123456789",
}
PASSWORD = "planted-pass/word%100"
URL = "fake://valet:planted-pass%2Fword%25100@db.example:1234/app"

PITR = {"stanza": "main", "control": {"commands": {"stop": ["no"], "start": ["no"], "status": ["no"]}}}

ABSENT: Any = object()
"""Params that do not stand in the request at all."""


def configuration(**changes: Any) -> dict[str, Any]:
    """Two databases, and a token for each role and for each kind of limit on it."""
    return {
        "listen": "127.0.0.1:0",
        "tokens": [
            {"name": "admin", "token": TOKENS["admin"], "role": "admin", "databases": ["*"]},
            {"name": "operator", "token": TOKENS["operator"], "role": "operator", "databases": ["*"]},
            {"name": "reader", "token": TOKENS["reader"], "role": "reader", "databases": ["*"]},
            {"name": "of-two", "token": TOKENS["of-two"], "role": "admin", "databases": ["ad-two"]},
            {
                "name": "picky",
                "token": TOKENS["picky"],
                "role": "admin",
                "databases": ["*"],
                "allow": ["list-things", "drop-thing", "add-thing"],
                "deny": ["drop-thing"],
            },
        ],
        "databases": [
            {"id": "ad-one", "url": URL, "pitr": PITR},
            {"id": "ad-two", "url": URL, "disabled_actions": ["set-mode"]},
        ],
        **changes,
    }


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for a condition, not longer than so many seconds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@dataclass(frozen=True, kw_only=True)
class Valet:
    """A running service, and a client that talks to it without a socket."""

    app: FastAPI
    client: httpx.AsyncClient
    log: io.BytesIO

    @property
    def service(self) -> Service:
        return self.app.state.service

    def database(self, database_id: str = "ad-one") -> Database:
        return next(each for each in self.service.databases if each.id == database_id)

    def server(self, database_id: str = "ad-one") -> FakeServer:
        return cast(FakeServer, self.database(database_id).server)

    @property
    def waiting_to_share(self) -> int:
        """How many requests wait for the next run of a read."""
        slots = self.service.dispatcher._coalescer._slots.values()
        return sum(len(each.waiting) for each in slots)

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Give the lines of the log, or those of one event."""
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if event in (None, line["event"])]

    async def ask(self, method: str, path: str, token: str | None = "admin", **more: Any) -> httpx.Response:
        """Send a request with a token of `TOKENS`."""
        headers = httpx.Headers(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {TOKENS[token]}"
        return await self.client.request(method, path, headers=headers, **more)

    async def open_socket(self, url: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Ask for a web socket and leave; gives the answer to the handshake, 101 where it was accepted."""
        asked = self.client.build_request("GET", url, headers=dict(headers or {}))
        coming = [{"type": "websocket.connect"}]
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return coming.pop() if coming else {"type": "websocket.disconnect", "code": 1001}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "scheme": "ws",
            "path": asked.url.path,
            "raw_path": asked.url.raw_path.partition(b"?")[0],
            "query_string": asked.url.query,
            "headers": [(name.lower(), value) for name, value in asked.headers.raw],
            "client": ("127.0.0.1", 123),
            "server": ("dbvalet", None),
            "subprotocols": [],
            "state": {},
            "extensions": {"websocket.http.response": {}},
        }
        await self.app(scope, receive, send)
        first, *rest = sent
        if first["type"] == "websocket.accept":
            return httpx.Response(101, headers=first["headers"], request=asked)
        content = b"".join(each.get("body", b"") for each in rest)
        return httpx.Response(first["status"], headers=first["headers"], content=content, request=asked)

    async def act(
        self, name: str, params: Any = ABSENT, *, database: str = "ad-one", token: str | None = "admin"
    ) -> httpx.Response:
        """Ask for an action."""
        body = {"action_name": name} | ({} if params is ABSENT else {"params": params})
        return await self.ask("POST", f"/api/databases/{database}/action", token, json=body)


def settings_of(raw: Mapping[str, Any], folder: Path) -> Settings:
    return Settings(**{"state": f"sqlite:///{folder}/state.db", **raw})


@asynccontextmanager
async def running(*, engines: Mapping[str, Engine] | None = None, **changes: Any) -> AsyncGenerator[Valet]:
    """Run the service in this event loop. `changes` are keys of the configuration."""
    log = io.BytesIO()
    with TemporaryDirectory() as folder:
        settings = settings_of(configuration(**changes), Path(folder))
        app = create_app(
            settings,
            log=make_log(settings.log_level, secrets_of(settings), log),
            engines=engines or {ENGINE.name: ENGINE},
        )
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://dbvalet") as client,
        ):
            yield Valet(app=app, client=client, log=log)


@asynccontextmanager
async def listening(valet: Valet, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    """Let a running service listen too, in the way of `dbvalet serve`; gives the port."""
    (socket,) = bind("127.0.0.1", 0)
    listener = Listener(valet.app, [socket], make_log(stream=valet.log))
    listener.config.load()

    begin = Protocol if tls is None else Handshakes(tls)

    def protocol() -> asyncio.Protocol:
        return begin(config=listener.config, server_state=listener.server_state, app_state={})

    server = await asyncio.get_running_loop().create_server(protocol, sock=socket)
    async with server:
        yield socket.getsockname()[1]
