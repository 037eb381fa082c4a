"""Who gets through which door: every route of the app's own table, with no list of routes to keep."""

from collections import defaultdict
from typing import Any

import httpx
import pytest

from agent.app import create_app
from agent.settings import Settings
from tests.contract.decoders import go_failure, javascript_failure
from tests.fakes import ENGINE
from tests.fakes.service import Valet, configuration
from tests.planted import IDS, plant

ACTION = ("POST", "/api/databases/{database_id}/action")
READS_BY_POST = {"/api/databases/{database_id}/ping"}
"""Routes that change nothing, though the method says otherwise."""


def route_table() -> list[tuple[str, str]]:
    app = create_app(Settings(**configuration()), engines={"fake": ENGINE})
    found: list[tuple[str, str]] = []
    for route in app.routes:
        path: str = getattr(route, "path", "")
        found += [(method, path) for method in sorted(getattr(route, "methods", None) or ()) if method != "HEAD"]
    return found


ROUTES = route_table()
OF_A_DATABASE = [each for each in ROUTES if "{database_id}" in each[1]]
CHANGES = [each for each in OF_A_DATABASE if each[0] != "GET" and each != ACTION and each[1] not in READS_BY_POST]


async def ask(valet: Valet, method: str, path: str, token: str | None, **ids: str) -> httpx.Response:
    content = b'{"action_name":"list-things"}' if (method, path) == ACTION else b"{}"
    known = defaultdict(lambda: "none", {**IDS, **ids})
    return await valet.ask(method, path.format_map(known), token, content=None if method == "GET" else content)


def told(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()


def test_the_table_is_the_whole_one() -> None:
    assert ACTION in ROUTES
    assert len(OF_A_DATABASE) >= 15
    assert CHANGES


@pytest.mark.parametrize(("method", "path"), OF_A_DATABASE)
async def test_a_database_of_others_is_answered_for_as_an_unknown_one(valet: Valet, method: str, path: str) -> None:
    await plant(valet)
    unknown = await ask(valet, method, path, "of-two", database_id="ad-none")
    outside = await ask(valet, method, path, "of-two", database_id="ad-one")
    assert told(outside) == told(unknown)
    assert outside.status_code == 404
    assert outside.json()["resource"] == "database"
    assert go_failure(outside)
    assert javascript_failure(outside)


@pytest.mark.parametrize(("method", "path"), OF_A_DATABASE)
async def test_nobody_learns_whether_a_database_is_there(valet: Valet, method: str, path: str) -> None:
    await plant(valet)
    known = await ask(valet, method, path, None)
    unknown = await ask(valet, method, path, None, database_id="ad-none")
    assert told(known) == told(unknown)
    assert known.status_code == 401
    assert known.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_a_reader_changes_nothing(valet: Valet, method: str, path: str) -> None:
    await plant(valet)
    refused = await ask(valet, method, path, "reader")
    assert refused.status_code == 403
    assert refused.json()["code"] == "forbidden"
