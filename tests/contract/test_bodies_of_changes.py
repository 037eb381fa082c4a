"""The bodies of every route beside the actions that changes something: what has no effect there is refused by name.

So is `dry_run` in the query of any route that changes something, the actions' own included.

The routes are those of the app's own table, so that a new one is among them.
"""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from agent.api import changes
from agent.api.bodies import IN_QUERY
from agent.app import create_app
from agent.settings import Settings
from agent.state.tables import idempotency_keys as keys
from engines.action import Effect
from tests.contract.decoders import go_failure, javascript_failure
from tests.contract.doors import DOORS
from tests.contract.test_error_table import BODIES
from tests.fakes import ENGINE
from tests.fakes.driver import Gate
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


DROPS = {"action_name": "drop-thing", "params": {"name": "second"}}
READS = {"action_name": "list-things"}

CHANGING = changing_routes()
IDS_OF_ROUTES = [" ".join(route) for route in CHANGING]


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running() as valet:
        await plant(valet)
        yield valet


async def ask(
    valet: Valet, method: str, path: str, body: bytes | None, query: str = "", **headers: str
) -> httpx.Response:
    feature = "feature=force-ssl&" if path.endswith("/features") and method == "DELETE" else ""
    return await valet.ask(method, f"{path.format(**IDS)}?{feature}{query}", content=body, headers=headers)


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


@pytest.mark.parametrize("key", [None, "key-1"], ids=["without a key", "with a key"])
@pytest.mark.parametrize(("method", "path"), CHANGING, ids=IDS_OF_ROUTES)
async def test_a_dry_run_that_the_query_asks_for_is_refused_and_nothing_is_changed(
    valet: Valet, method: str, path: str, key: str | None
):
    before = await what_there_is(valet)
    headers = {"Idempotency-Key": key} if key else {}
    for query in ("dry_run=true", "dry_run=false", "dry_run=", "dry_run", "a=b&dry%5Frun=1"):
        # Its key is not used up by it: the next one is another request.
        refused = await ask(valet, method, path, BODIES.get((method, path)), query, **headers)
        if path in REFUSED:
            assert (refused.status_code, refused.json()["code"]) == (400, "not_supported")
        else:
            assert (refused.status_code, refused.json().get("errors")) == (422, {"dry_run": [IN_QUERY]})
        assert go_failure(refused)
        assert javascript_failure(refused)
    assert await what_there_is(valet) == before


@pytest.mark.parametrize("body", [DROPS, {**DROPS, "dry_run": True}, READS], ids=["destroys", "tries", "reads"])
async def test_a_dry_run_of_an_action_that_the_query_asks_for_is_refused_with_where_it_belongs(
    valet: Valet, body: dict[str, Any]
):
    valet.server().things["second"] = "red"
    before = await what_there_is(valet)
    refused = await valet.ask("POST", f"{ONE}/action?dry_run=true", json=body)
    assert (refused.status_code, refused.json()["errors"]) == (422, {"dry_run": [IN_QUERY]})
    assert refused.json()["ok"] == 0
    assert await what_there_is(valet) == before
    assert "second" in valet.server().things


async def test_whoever_may_not_know_of_a_database_is_told_so_first(valet: Valet):
    for token, status in ((None, 401), ("of-two", 404)):
        assert (await valet.ask("POST", f"{ONE}/action?dry_run=true", token, json=DROPS)).status_code == status
    assert (await valet.ask("POST", f"{ONE}/backups?dry_run=true", "reader")).status_code == 403


async def test_other_things_in_a_query_are_let_through(valet: Valet):
    valet.server().things["second"] = "red"
    tried = await valet.ask("POST", f"{ONE}/action?page=2&dry-run=", json={**DROPS, "dry_run": True})
    done = await valet.ask("POST", f"{ONE}/action?a=b", json=DROPS)
    begun = await valet.ask("POST", f"{ONE}/backups?feature=dry_run")
    assert (tried.status_code, tried.json()["dry_run"], done.status_code, begun.status_code) == (200, True, 200, 201)


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


@pytest.mark.parametrize(("method", "path"), [route for route in CHANGING if route[1] not in REFUSED])
async def test_what_is_done_with_a_key_said_that_it_was_begun(
    valet: Valet, method: str, path: str, monkeypatch: pytest.MonkeyPatch
):
    if path.endswith("/cancel"):
        valet.server().backups.gates["dump"] = Gate()
        made = await valet.ask("POST", f"{ONE}/backups")
        path = path.replace("{operation_id}", made.json()["database_backup"]["operation_id"])
    # Of an answer that is lost the key tells, unless it is taken for that of what was never begun.
    monkeypatch.setattr(changes._Keyed, "_answered", lambda _: (500, "internal", b""))
    done = await ask(valet, method, path, BODIES.get((method, path)), **{"Idempotency-Key": "key-1"})
    assert done.is_success
    asked = await valet.service.state.run(lambda connection: connection.execute(keys.select()).all())
    assert [(each.key, each.answer) for each in asked] == [("key-1", None)]


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
