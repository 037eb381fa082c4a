"""Each family of routes fails in each way, and the users of the known clients see the text that says why.

What a family can give by a cause of its own is provoked as in the error table; for the rest the cause is raised at the
edge of the process, in place of the route: another route may give it tomorrow.
"""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agent.errors import (
    Forbidden,
    Malformed,
    RateLimited,
    ResourceNotFound,
    TooLarge,
    Unauthenticated,
)
from engines.errors import EngineUnavailable, InvalidParams, Precondition
from tests.contract.decoders import GO_DECODES, MISREAD, go_failure, javascript_failure, json_object
from tests.contract.test_error_table import ACTION, BODIES, ONE, ROWS, TABLE, Provoke
from tests.fakes.service import Valet

OF_ONE = "/api/databases/{database_id}"
FAMILIES = {
    "platform": r"/v1/.*",
    "database": r"/api/databases(/{database_id}(/actions)?)?",
    "action": re.escape(ACTION[1]),
    "users": f"{OF_ONE}/users.*",
    "backups": f"(/api|{OF_ONE})/backup(s|_restorations).*",
    "pitr": f"{OF_ONE}/pitr/.*",
    "operations": f"{OF_ONE}/operations.*",
    "maintenance": f"{OF_ONE}/maintenance.*",
    "features": f"{OF_ONE}/features",
    "logs": f"(/api|{OF_ONE})/logs.*",
    "metrics and instances": f"{OF_ONE}/(metrics|instances|lag|ping|health|upgrade).*",
    "types and plans": f"({OF_ONE}/plan|/api/(plans|database_type|ca_certificate).*)",
    "firewall": f"(/api/firewall|{OF_ONE}/firewall_rules).*",
    "audit": "/api/audit",
}

CAUSES: dict[int, Exception] = {
    400: Malformed(),
    401: Unauthenticated(),
    403: Forbidden(),
    404: ResourceNotFound(),
    409: Precondition(),
    413: TooLarge(),
    422: InvalidParams({"name": ["is required", "must be a text"], "params": ["is not known"]}),
    429: RateLimited(retry_after=1),
    500: RuntimeError("planted-bug"),
    503: EngineUnavailable(),
}


def routes_of(family: str) -> list[tuple[str, str]]:
    return [route for route in ROWS if re.fullmatch(FAMILIES[family], route[1])]


def raised(route: tuple[str, str], cause: Exception) -> Provoke:
    """Let a route fail for this cause, whatever it is asked."""

    async def fail(*_: object) -> None:
        raise cause

    async def provoke(valet: Valet) -> httpx.Response:
        method, path = route
        found: Any
        (found,) = (
            each
            for each in valet.app.routes
            if getattr(each, "path", None) == path and method in getattr(each, "methods", ())
        )
        found.app = fail
        return await valet.ask(method, path.format(**ONE), content=BODIES.get(route))

    return provoke


def ways(family: str, status: int) -> Iterator[tuple[str, Provoke]]:
    """Give each code that a family can give under a status, with what provokes it; a cause that is raised if none.

    What was not found is another thing on each route, so that all of them are asked.
    """
    natural: dict[str, Provoke] = {}
    for route in routes_of(family):
        for code, provocations in ROWS[route].items():
            if TABLE[code] == status and code != "internal":
                natural.setdefault(f"{code} {' '.join(route)}" if status == 404 else code, provocations[0])
    yield from natural.items()
    if not natural:
        route = routes_of(family)[0]
        yield f"raised in {' '.join(route)}", raised(route, CAUSES[status])


CASES = [
    pytest.param(status, provoke, id=f"{family} {status} {what}")
    for family in FAMILIES
    for status in CAUSES
    for what, provoke in ways(family, status)
]


def test_every_public_route_is_of_one_family() -> None:
    found = [route for family in FAMILIES for route in routes_of(family)]
    assert sorted(found) == sorted(route for route in ROWS if route[1].startswith(("/api", "/v1")))


@pytest.mark.parametrize(("status", "provoke"), CASES)
async def test_a_failure_can_be_read_by_both_clients_and_shows_its_text(
    valet: Valet, status: int, provoke: Provoke
) -> None:
    response = await provoke(valet)

    assert response.status_code == status, response.text
    body = json_object(response)
    text: str = body["error"]
    assert text.strip()
    assert javascript_failure(response) == text
    shown = go_failure(response)
    match status:
        case 404:
            assert re.fullmatch(r"[A-Za-z]+( [A-Za-z]+)*", body["resource"])
            assert body["resource"] not in MISREAD
            assert shown == f"The {body['resource']} was not found"
        case 422:
            told = [each for texts in body["errors"].values() for each in texts]
            assert all(each.strip() and each in text for each in told), text
            assert len(shown.splitlines()) == len(told) > 0
        case _:
            assert shown == (text if status in GO_DECODES else f"status {status}")
