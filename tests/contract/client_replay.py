"""Sends the calls of `client_calls` as their clients do, and decodes the answers as these do."""

import asyncio
import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from tests.contract.client_calls import ABSENT, Call, Client, Token
from tests.contract.decoders import go_failure, javascript_failure
from tests.contract.fields import Undecodable

WAIT_SECONDS = 60.0
JSON = "application/json"
HEADERS = {
    Client.GO: {"User-Agent": "Scalingo Go Client", "Accept": JSON, "Content-Type": JSON},
    Client.JS: {"User-Agent": "Scalingo Javascript Client", "Accept": f"{JSON}, text/plain, */*"},
    Client.RUBY: {"User-Agent": "Scalingo Ruby Client", "Accept": JSON},
    Client.DOCUMENTATION: {"User-Agent": "curl/8", "Accept": JSON, "Content-Type": JSON},
}


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@dataclass(frozen=True)
class Replay:
    """All calls on one database of one engine; `known` begins with `api_token`, `app` and `database_id`."""

    client: httpx.AsyncClient
    engine: str
    known: dict[str, str]
    broken: list[str] = field(default_factory=list[str])
    """What a client could not read; the calls after it are made all the same, so that nothing stays behind."""

    async def run(self, calls: Sequence[Call]) -> None:
        for call in calls:
            if self.engine in call.engines:
                try:
                    await self._make(call)
                except (Undecodable, LookupError) as problem:
                    self.broken.append(f"{call}: {type(problem).__name__} {problem}")

    async def _make(self, call: Call) -> None:
        ends_at = time.monotonic() + WAIT_SECONDS
        while True:
            response = await self.client.request(**self.request(call))
            if self.engine in call.refused:
                refusal(call, response, call.refused[self.engine])
                return
            body = decoded(call, response)
            if call.until is None or at(body, call.until[0]) == call.until[1]:
                break
            if time.monotonic() > ends_at:
                raise Undecodable(f"{call.until[0]} is still {at(body, call.until[0])}")
            await asyncio.sleep(0.05)
        for name, place in call.keeps.items():
            self.known[name] = at(body, place)

    def request(self, call: Call) -> dict[str, Any]:
        """Give what goes over the wire."""
        # What is typed into the command-line client is a name; the others send the id that they were given.
        names = {**self.known, **{name: value.format_map(self.known) for name, value in call.given.items()}}
        if call.client in (Client.JS, Client.RUBY) and "app_id" in names:
            names["app"] = names["app_id"]
        headers = {} if call.plain else dict(HEADERS[call.client])
        if (authorization := self._authorization(call.token)) is not None:
            headers["Authorization"] = authorization
        query = call.query.format_map(names)
        if call.link is None:
            address = call.path.format_map(names)
        else:
            split = urlsplit(names[call.link])
            address = f"{split.scheme}://{split.netloc}{split.path}"
            kept = {name: values[0] for name, values in parse_qs(split.query).items()}
            query = "&".join(part for part in (urlencode(kept), query) if part)
        content = b""
        if call.method in ("GET", "DELETE"):
            # Go ends every address so, be there a query or not.
            address += f"?{query}" if query or call.client is Client.GO else ""
        elif call.body is ABSENT:
            content = b"{}" if call.client is Client.GO else b""
        elif call.body != "":
            content = json.dumps(filled_in(call.body, names)).encode()
            headers["Content-Type"] = JSON
        return {"method": call.method, "url": address, "headers": headers, "content": content}

    def _authorization(self, token: Token) -> str | None:
        match token:
            case Token.NONE:
                return None
            case Token.API:
                return basic("", self.known["api_token"])
            case Token.LOGIN:
                return basic("somebody@example.com", "a password of somebody")
            case Token.USER:
                return f"Bearer {self.known['jwt']}"
            case Token.ADDON:
                return f"Bearer {self.known['addon_jwt']}"
            case Token.STATIC:
                return f"Bearer {self.known['api_token']}"


def known(api_token: str, database_id: str) -> dict[str, str]:
    """Give what a user of the clients knows at the beginning, and ids that nothing has."""
    return {
        "api_token": api_token,
        "app": "app",
        "addon": database_id,
        "database_id": database_id,
        "log_id": database_id,
        "kind": "memory",
        "maintenance_id": "0" * 24,
        "rule_id": "0" * 24,
    }


def filled_in(body: Any, names: Mapping[str, str]) -> Any:
    """Put what is known into the texts of a body."""
    match body:
        case str():
            return body.format_map(names)
        case dict():
            return {key: filled_in(value, names) for key, value in body.items()}
        case list():
            return [filled_in(value, names) for value in body]
        case _:
            return body


def at(body: Any, place: str) -> Any:
    """Find `addons.0.id`."""
    for part in place.split("."):
        body = body[int(part)] if isinstance(body, list) else body[part]
    return body


def decoded(call: Call, response: httpx.Response) -> Any:
    """Decode a success as the client does, and give the whole body.

    Raises: Undecodable
    """
    if response.status_code != call.status:
        raise Undecodable(f"{response.status_code} is not {call.status}: {response.text:.200}")
    kind = response.headers.get("content-type")
    if call.status == 204:
        if response.content:
            raise Undecodable("a body where there is none")
        return None
    if kind != (call.file or JSON):
        raise Undecodable(f"content type {kind}")
    body: Any = response.content.decode("latin-1")
    if call.file is None:
        try:
            body = json.loads(body.encode("latin-1"))
        except ValueError as problem:
            raise Undecodable(f"no JSON: {response.content[:80]!r}") from problem
    value = body
    if call.root is not None:
        if not isinstance(body, dict) or call.root not in body:
            raise Undecodable(f"{call.root} is missing")
        value = body[call.root]
    call.reads(value, call.root or "body")
    return body


def refusal(call: Call, response: httpx.Response, status: int) -> None:
    """Look at what dbvalet cannot do on an engine: whoever asked must see why.

    Raises: Undecodable
    """
    if response.status_code != status:
        raise Undecodable(f"{response.status_code} is no refusal with {status}: {response.text:.200}")
    shown, message = go_failure(response), javascript_failure(response)
    if call.client is Client.GO and status != 404 and shown != message:
        raise Undecodable(f"the command-line client shows {shown}, not {message}")
    if call.path.endswith("/action") and response.json().get("ok") != 0:
        raise Undecodable("an action that failed without ok: 0")
