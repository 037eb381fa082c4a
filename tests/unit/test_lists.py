"""Lists of users, of backups and of operations: whole, as the known clients read them, or in pages."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent.api import lists
from agent.backups import record
from agent.errors import ListTooLarge
from agent.operations import record as operations
from agent.paging import LARGEST_RESULT
from engines.errors import default_message
from engines.users import User
from tests.fakes.service import Valet, running
from tests.planted import IDS, THEN, plant

LISTS = {"users": "database-users", "backups": "database_backups", "operations": "operations"}


def add_operations(connection: Any, number: int) -> None:
    """Add operations like one that `plant` has put there, each a second younger than the one before."""
    like = operations.find(connection, "ad-one", IDS["restoration_id"])
    assert like is not None
    for each in range(1, number + 1):
        created_at = THEN + timedelta(seconds=each)
        operations.add(connection, replace(like, id=f"{each:024x}", created_at=created_at))


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    """Seven users, seven backups and seven operations."""
    async with running() as valet:
        await plant(valet)
        server = valet.server()
        server.users = {
            name: User(name=name, read_only=False, protected=False) for name in (f"user-{each}" for each in range(7))
        }

        def work(connection: Any) -> None:
            for each in range(2, 8):
                record.add(
                    connection,
                    backup_id=str(each) * 24,
                    database_id="ad-one",
                    operation_id=IDS["operation_id"],
                    method="manual",
                    created_at=THEN,
                )
            add_operations(connection, 5)

        await valet.service.state.run(work)
        yield valet


@pytest.mark.parametrize(("path", "root"), LISTS.items())
async def test_a_list_comes_in_pages_with_its_place_and_whole_to_who_asks_for_none(
    valet: Valet, path: str, root: str
) -> None:
    whole = (await valet.ask("GET", f"/api/databases/ad-one/{path}")).json()
    assert list(whole) == [root], "clients of the documented API unwrap the one root"
    assert len(whole[root]) == 7
    assert (await valet.ask("GET", f"/api/databases/ad-one/{path}?page=&per_page=")).json() == whole
    pages = [
        (await valet.ask("GET", f"/api/databases/ad-one/{path}?page={page}&per_page=3")).json() for page in (1, 2, 3, 4)
    ]
    assert [len(each[root]) for each in pages] == [3, 3, 1, 0]
    assert [entry for each in pages for entry in each[root]] == whole[root]
    assert pages[1]["meta"]["pagination"] == {
        "current_page": 2,
        "next_page": 3,
        "prev_page": 1,
        "total_pages": 3,
        "total_count": 7,
        "per_page": 3,
    }
    alone = (await valet.ask("GET", f"/api/databases/ad-one/{path}?page=1")).json()["meta"]["pagination"]
    assert (alone["per_page"], alone["total_pages"]) == (20, 1)


@pytest.mark.parametrize(("path", "root"), LISTS.items())
async def test_a_list_that_is_too_long_for_one_answer_is_had_in_pages(
    valet: Valet, monkeypatch: pytest.MonkeyPatch, path: str, root: str
) -> None:
    size = len((await valet.ask("GET", f"/api/databases/ad-one/{path}")).content)
    monkeypatch.setattr(lists, "LARGEST_RESULT", size)
    assert (await valet.ask("GET", f"/api/databases/ad-one/{path}")).status_code == 200
    monkeypatch.setattr(lists, "LARGEST_RESULT", size - 1)
    refused = await valet.ask("GET", f"/api/databases/ad-one/{path}")
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert "page and per_page" in refused.json()["error"]
    page = await valet.ask("GET", f"/api/databases/ad-one/{path}?per_page=2")
    assert len(page.json()[root]) == 2


async def test_operations_are_listed_as_long_as_they_are_remembered() -> None:
    async with running() as valet:
        await plant(valet)
        await valet.service.state.run(lambda connection: add_operations(connection, 148))
        whole = (await valet.ask("GET", "/api/databases/ad-one/operations")).json()["operations"]
        assert [each["id"] for each in whole][:149] == [
            *(f"{each:024x}" for each in range(148, 0, -1)),
            IDS["operation_id"],
        ]
        assert len(whole) == 150
        last = (await valet.ask("GET", "/api/databases/ad-one/operations?page=2&per_page=100")).json()
        assert (last["operations"], last["meta"]["pagination"]["total_count"]) == (whole[100:], 150)


async def test_what_is_wrong_with_a_page_is_said_before_the_engine_is_asked(valet: Valet) -> None:
    refused = await valet.ask("GET", "/api/databases/ad-one/users?page=0&per_page=x")
    assert set(refused.json()["errors"]) == {"page", "per_page"}
    assert valet.server().performed == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("databases/ad-one/users", "page"),
        ("databases/ad-one/users", "per_page"),
        ("databases/ad-one/maintenance", "page"),
        ("databases/ad-one/metrics/cpu", "since"),
        ("databases/ad-one/metrics/cpu", "last"),
        ("audit", "after"),
        ("audit", "limit"),
        ("audit", "database"),
    ],
)
async def test_what_stands_in_the_query_twice_is_refused(valet: Valet, path: str, name: str) -> None:
    refused = await valet.ask("GET", f"/api/{path}?{name}=1&{name}=")
    assert (refused.status_code, refused.json()["errors"]) == (422, {name: ["must not be given more than once"]})


def test_the_default_text_names_the_size_that_counts() -> None:
    assert f"larger than {LARGEST_RESULT // 2**20} MiB" in default_message(ListTooLarge)
