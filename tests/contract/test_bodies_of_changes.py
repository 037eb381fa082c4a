"""The bodies of every route beside the actions that changes something: what has no effect there is refused by name.

The routes are those of the app's own table, so that a new one is among them.
"""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from agent.app import create_app
from agent.settings import Settings
from engines.action import Effect
from tests.contract.decoders import go_failure, javascript_failure
from tests.contract.doors import DOORS
from tests.contract.test_error_table import BODIES
from tests.fakes import ENGINE
from tests.fakes.service import Valet, configuration, running
from tests.planted import IDS, REFUSED, plant

ONE = "/api/databases/ad-one"


def changing_routes() -> list[tuple[str, str]]:
    app = create_app(Settings(**configuration()), engines={"fake": ENGINE})
    found: list[tuple[str, str]] = []
    for route in app.routes:
        extra: dict[str, Any] = getattr(route, "openapi_extra", None) or {}
        if "x-effect" in extra:
            found += [(method, getattr(route, "path", "")) for method in sorted(getattr(route, "methods", ()))]
    return found


CHANGING = changing_routes()
IDS_OF_ROUTES = [" ".join(route) for route in CHANGING]


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running() as valet:
        await plant(valet)
        yield valet


async def ask(valet: Valet, method: str, path: str, body: bytes | None, **headers: str) -> httpx.Response:
    query = "?feature=force-ssl" if path.endswith("/features") and method == "DELETE" else ""
    return await valet.ask(method, path.format(**IDS) + query, content=body, headers=headers)


async def what_there_is(valet: Valet) -> list[Any]:
    """Give all that a route could have changed."""
    shown = [(await valet.ask("GET", ONE + each)).json() for each in ("", "/users", "/backups", "/operations")]
    server = valet.server()
    changed = [each for each in server.performed if each != "list-users"]
    return [*shown, changed, dict(server.passwords), list(server.backups.done), list(server.recovery.done)]


def test_every_door_that_changes_something_is_among_them() -> None:
    assert {*CHANGING} == {route for route, door in DOORS.items() if door.effect is not Effect.READ}


@pytest.mark.parametrize("key", [None, "key-1"], ids=["without a key", "with a key"])
@pytest.mark.parametrize("field", ["dry_run", "another"])
@pytest.mark.parametrize(("method", "path"), CHANGING, ids=IDS_OF_ROUTES)
async def test_a_field_that_is_not_known_is_refused_by_name_and_nothing_is_changed(
    valet: Valet, method: str, path: str, field: str, key: str | None
):
    before = await what_there_is(valet)
    taken: dict[str, Any] = orjson.loads(BODIES.get((method, path), b"{}"))
    headers = {"Idempotency-Key": key} if key else {}
    refused = await ask(valet, method, path, orjson.dumps({**taken, field: True}), **headers)
    if path in REFUSED:  # a route that does nothing says so, whatever it is sent
        assert (refused.status_code, refused.json()["code"]) == (400, "not_supported")
    else:
        assert (refused.status_code, refused.json().get("errors")) == (422, {field: ["is not known"]})
    assert go_failure(refused)
    assert javascript_failure(refused)
    assert await what_there_is(valet) == before


@pytest.mark.parametrize(("method", "path"), CHANGING, ids=IDS_OF_ROUTES)
async def test_what_is_no_object_is_refused_and_nothing_is_changed(valet: Valet, method: str, path: str):
    before = await what_there_is(valet)
    refused = await ask(valet, method, path, b'["dry_run"]')
    assert (refused.status_code, refused.json()["code"]) == (400, "not_supported" if path in REFUSED else "malformed")
    assert await what_there_is(valet) == before


@pytest.mark.parametrize("body", [None, b"", b" ", b"{}"], ids=["none", "empty", "a space", "an empty object"])
@pytest.mark.parametrize(
    ("method", "path"),
    [route for route in CHANGING if route not in BODIES and route[1] not in REFUSED],
)
async def test_what_clients_send_where_no_body_is_needed_is_let_through(
    valet: Valet, method: str, path: str, body: bytes | None
):
    answer = await ask(valet, method, path, body)
    # An operation that has ended cannot be cancelled.
    assert answer.is_success or (answer.status_code, path.endswith("/cancel")) == (409, True)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/features", {"feature": {"name": "force-ssl", "dry_run": True}}),
        ("POST", "/users", {"database_user": {"name": "somebody", "dry_run": True}}),
        (
            "PATCH",
            "/users/self-hosted",
            {"database_user": {"password": "p" * 24, "password_confirmation": "p" * 24, "dry_run": True}},
        ),
        ("PATCH", "", {"database": {"dry_run": True}}),
    ],
)
async def test_within_what_is_asked_for_it_is_refused_too(valet: Valet, method: str, path: str, body: dict[str, Any]):
    before = await what_there_is(valet)
    refused = await valet.ask(method, ONE + path, json=body)
    assert (refused.status_code, refused.json()["errors"]) == (422, {"dry_run": ["is not known"]})
    assert await what_there_is(valet) == before
