"""Every route of the app × every holder of a token × its own, a foreign and an unknown database.

What is to be expected stands in `tests.contract.doors`, one row a route: a route without one fails.
"""

import base64
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Host, Route, WebSocketRoute

from agent.api.edge import Edge
from agent.app import create_app
from agent.roles import Role
from agent.settings import Settings
from engines.action import Effect
from tests.contract.decoders import go_failure, javascript_failure
from tests.contract.doors import ACTION, ACTIONS, DOORS, Door
from tests.contract.routes import SOCKET, entries_of
from tests.contract.test_error_table import BODIES
from tests.fakes import ENGINE
from tests.fakes.service import Valet, configuration, running
from tests.planted import IDS, plant

OWN, FOREIGN, UNKNOWN = "ad-one", "ad-two", "ad-none"
NAMES_A_DATABASE = {"database_id", "backup_id", "app", "addon", "log_id"}

STATIC = {
    f"{role}-of-{scope}": {"name": f"{role}-of-{scope}", "role": role, "databases": databases}
    for role in Role
    for scope, databases in (("all", ["*"]), ("one", [OWN]), ("two", [FOREIGN]))
}
EXPIRED = {"name": "expired", "role": Role.ADMIN, "databases": ["*"], "expires_at": "2020-01-01T00:00:00Z"}


def value(name: str) -> str:
    return f"door-token-of-{name}-0123456789"


@asynccontextmanager
async def planted() -> AsyncGenerator[Valet]:
    tokens = [{**each, "token": value(each["name"])} for each in (*STATIC.values(), EXPIRED)]
    async with running(tokens=tokens) as valet:
        await plant(valet)
        yield valet


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with planted() as valet:
        yield valet


@pytest.fixture(scope="module")
async def unchanged() -> AsyncIterator[Valet]:
    """One for all the tests in which nobody may change anything."""
    async with planted() as valet:
        yield valet
        assert await changes(valet) == []


async def holders(valet: Valet) -> dict[str, tuple[str, Role, set[str]]]:
    """Give the bearer token, the role and the databases of everybody who may come, the weakest first."""
    found: dict[str, tuple[str, Role, set[str]]] = {}
    tokens = valet.service.tokens
    for role in Role:
        for scope, seen in (("all", {OWN, FOREIGN}), ("one", {OWN}), ("two", {FOREIGN})):
            name = f"{role}-of-{scope}"
            principal = tokens.authenticate(f"Bearer {value(name)}".encode())
            found[name] = value(name), role, seen
            found[f"{name}, short-lived"] = await tokens.signed_for(principal), role, seen
            if scope == "all":
                for only in (OWN, FOREIGN):
                    found[f"{name}, short-lived for {only}"] = (
                        await tokens.signed_for(principal, only),
                        role,
                        {only},
                    )
    return found


async def strangers(valet: Valet) -> dict[str, str | None]:
    principal = valet.service.tokens.authenticate(f"Bearer {value('admin-of-all')}".encode())
    over = await valet.service.tokens.signed_for(replace(principal, until=1))
    good = await valet.service.tokens.signed_for(principal)
    return {
        "nobody": None,
        "an unknown token": f"Bearer {value('somebody')}",
        "an expired token": f"Bearer {value('expired')}",
        "an expired short-lived token": f"Bearer {over}",
        "a short-lived token that was changed": f"Bearer {good[:-4]}AAAA",
        "a token in capitals": f"Bearer {value('admin-of-all').upper()}",
        "a token without a scheme": value("admin-of-all"),
        "an empty token": "Bearer ",
    }


async def ask(valet: Valet, case: "Case", authorization: str | None, **ids: str) -> httpx.Response:
    method, path, action = case
    content = b'{"action_name":"%b","params":{"name":"x"}}' % action.encode() if action else BODIES.get((method, path))
    if action == "list-things":
        content = b'{"action_name":"list-things"}'
    headers = {} if authorization is None else {"Authorization": authorization}
    given = {**IDS, "app": OWN, "addon": OWN, **ids}
    path = path.format_map(given) + ("?feature=force-ssl" if path.endswith("/features") and method == "DELETE" else "")
    if method == SOCKET:
        return await valet.open_socket(path, headers)
    return await valet.client.request(method, path, headers=headers, content=content)


def route_table() -> list[tuple[str, str]]:
    return entries_of(create_app(Settings(**configuration()), engines={"fake": ENGINE}))


ROUTES = route_table()
Case = tuple[str, str, str]
CASES: dict[Case, Door] = {(method, path, ""): door for (method, path), door in DOORS.items()}
CASES |= {(*ACTION, action): door for action, door in ACTIONS.items()}


def cases(condition: Any) -> Any:
    found = [case for case, door in CASES.items() if condition(case, door)]
    assert found
    return pytest.mark.parametrize("case", found, ids=[" ".join(each).strip() for each in found])


def about_a_database(case: Case, door: Door) -> bool:
    return door.role is not None and any(f"{{{name}}}" in case[1] for name in NAMES_A_DATABASE)


async def changes(valet: Valet) -> list[dict[str, Any]]:
    answer = await valet.client.get(
        "/api/audit?limit=1000", headers={"Authorization": f"Bearer {value('admin-of-all')}"}
    )
    # How a restore ends has a line of its own, after the answer.
    return [line for line in answer.json()["audit"] if line["method"] != "OPERATION"]


def is_refused(answer: httpx.Response) -> bool:
    return answer.status_code == 403 and answer.json()["code"] == "forbidden"


def test_every_route_has_its_row_and_every_row_its_route() -> None:
    assert {ACTION, *DOORS} == set(ROUTES)


async def an_answer() -> None:
    """Stand in for what a new route does."""


@pytest.mark.parametrize(
    ("add", "entry"),
    [
        (lambda app: app.router.routes.append(WebSocketRoute("/new", an_answer)), ("WEBSOCKET", "/new")),
        (lambda app: app.add_api_websocket_route("/new", an_answer), ("WEBSOCKET", "/new")),
        (lambda app: app.mount("/new", FastAPI()), ("MOUNT", "/new")),
        (lambda app: app.router.routes.append(Host("new", FastAPI())), ("HOST", "")),
        (lambda app: app.router.routes.append(Route("/new", endpoint=Edge)), ("ROUTE", "/new")),
        (lambda app: app.add_api_route("/new", an_answer, methods=["PUT"]), ("PUT", "/new")),
    ],
)
def test_a_new_route_of_any_kind_needs_a_row(add: Callable[[FastAPI], None], entry: tuple[str, str]) -> None:
    app = create_app(Settings(**configuration()), engines={"fake": ENGINE})
    add(app)
    assert set(entries_of(app)) - {ACTION, *DOORS} == {entry}


def test_the_least_role_is_that_of_the_effect() -> None:
    for door in CASES.values():
        if door.effect is not Effect.READ:
            assert door.role is {Effect.WRITE: Role.OPERATOR, Effect.DESTRUCTIVE: Role.ADMIN}[door.effect]


@cases(lambda case, door: door.role is not None)
async def test_a_stranger_is_not_let_in_and_learns_nothing(unchanged: Valet, case: Case) -> None:
    for who, authorization in (await strangers(unchanged)).items():
        for database in (OWN, UNKNOWN):
            answer = await ask(unchanged, case, authorization, database_id=database, app=database, addon=database)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), who
            assert answer.headers["WWW-Authenticate"] in ("Bearer", "Basic"), who
    assert await changes(unchanged) == []


@cases(lambda case, door: door.role is None and not door.by_link)
async def test_what_is_open_is_open_to_everybody(unchanged: Valet, case: Case) -> None:
    told = {(await ask(unchanged, case, each)).status_code for each in (await strangers(unchanged)).values()}
    assert len(told) == 1
    assert told < {200, 400, 404}


@cases(lambda case, door: door.by_link)
async def test_no_token_replaces_a_link(unchanged: Valet, case: Case) -> None:
    for who, (token, _, _) in (await holders(unchanged)).items():
        answer = await ask(unchanged, case, f"Bearer {token}")
        assert is_refused(answer), who
    assert is_refused(await ask(unchanged, case, None))


@cases(lambda case, door: door.role is not None and not door.by_password)
async def test_a_token_may_what_its_role_may(valet: Valet, case: Case) -> None:
    door = CASES[case]
    assert door.role is not None
    order = list(Role)
    written = 0
    for who, (token, role, seen) in (await holders(valet)).items():
        if OWN not in seen:
            continue
        answer = await ask(valet, case, f"Bearer {token}")
        allowed = order.index(role) >= order.index(door.role) and (not door.every_database or len(seen) == 2)
        assert is_refused(answer) is not allowed, (who, answer.text)
        assert answer.status_code not in (401, 405, 500), who
        assert not allowed or named(answer) != "database", who
        lines = await changes(valet)
        if door.effect is Effect.READ:
            assert lines == [], who
        else:
            # One of a refusal, one of what was done, and two of what destroys and was begun.
            assert len(lines) > written, who
            assert {line["effect"] for line in lines} == {door.effect}, who
            assert lines[-1]["code"] == ("ok" if answer.is_success else answer.json()["code"]), who
        written = len(lines)


def named(answer: httpx.Response) -> str | None:
    body = answer.json() if answer.headers.get("Content-Type") == "application/json" else None
    return body.get("resource") if isinstance(body, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


@cases(about_a_database)
async def test_a_database_of_others_is_answered_for_as_an_unknown_one(unchanged: Valet, case: Case) -> None:
    for who, (token, _, seen) in (await holders(unchanged)).items():
        if OWN in seen:
            continue
        foreign = await ask(unchanged, case, f"Bearer {token}")
        unknown = await ask(
            unchanged, case, f"Bearer {token}", database_id=UNKNOWN, app=UNKNOWN, addon=UNKNOWN, backup_id="9" * 24
        )
        assert (foreign.status_code, foreign.json()) == (unknown.status_code, unknown.json()), who
        assert foreign.status_code == 404, who
        assert named(foreign) in ("database", "backup", "application"), who
        assert OWN not in foreign.text
        assert go_failure(foreign)
        assert javascript_failure(foreign)
    assert await changes(unchanged) == []


@cases(lambda case, door: door.role is not None and not about_a_database(case, door))
async def test_what_lists_shows_nothing_of_a_foreign_database(valet: Valet, case: Case) -> None:
    change = ("PATCH", "/api/databases/{database_id}", "")
    assert (await ask(valet, change, f"Bearer {value('admin-of-all')}")).is_success
    for who, (token, _, seen) in (await holders(valet)).items():
        if OWN not in seen:
            assert OWN not in (await ask(valet, case, f"Bearer {token}")).text, who


@cases(lambda case, door: door.by_password)
async def test_a_short_lived_token_is_given_for_a_static_one_alone(unchanged: Valet, case: Case) -> None:
    for who, (token, _, _) in (await holders(unchanged)).items():
        basic = base64.b64encode(f":{token}".encode()).decode()
        assert (await ask(unchanged, case, f"Bearer {token}")).status_code == 401, who
        assert (await ask(unchanged, case, f"Basic {basic}")).status_code == (401 if "short-lived" in who else 200), who
