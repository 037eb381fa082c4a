"""The way of an action, from a request to its bytes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from agent.dispatch import ActionRequest, Envelope, parse_envelope
from agent.errors import Malformed
from agent.paging import Page
from engines.errors import EngineUnavailable, InvalidParams
from tests.fakes.driver import Gate
from tests.fakes.service import TOKENS, Valet, running, until


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running() as valet:
        yield valet


def request(read_body: Callable[[], Awaitable[bytes]]) -> ActionRequest:
    bearer = f"Bearer {TOKENS['admin']}".encode()
    return ActionRequest(
        id="x", authorization=bearer, database_id="ad-one", address=None, headers=(), read_body=read_body
    )


async def test_roles_are_checked_before_params(valet: Valet):
    assert (await valet.act("add-thing", {"planted": 1}, token="reader")).status_code == 403
    assert (await valet.act("add-thing", {"planted": 1}, token="operator")).status_code == 422


@pytest.mark.parametrize(
    ("token", "allowed"),
    [
        ("reader", {"list-things"}),
        ("operator", {"list-things", "add-thing"}),
        ("admin", {"list-things", "add-thing", "drop-thing"}),
        ("picky", {"list-things", "add-thing"}),
    ],
)
async def test_each_role_does_exactly_what_it_may(valet: Valet, token: str, allowed: set[str]):
    requests = {"list-things": None, "add-thing": {"name": "second"}, "drop-thing": {"name": "second"}}
    for name, params in requests.items():
        valet.server().things["second"] = "red"
        if name == "add-thing":
            del valet.server().things["second"]
        response = await valet.act(name, params, token=token)
        assert response.status_code == (200 if name in allowed else 403), name


async def test_an_action_that_is_switched_off_is_refused_to_everyone_on_that_database(valet: Valet):
    refused = await valet.act("set-mode", "FAST", database="ad-two")

    assert (refused.status_code, refused.json()["error"]) == (403, "set-mode is switched off for this database.")
    assert (await valet.act("set-mode", "FAST")).status_code == 200
    assert valet.server("ad-two").performed == []


async def test_a_token_of_one_database_acts_there_and_nowhere_else(valet: Valet):
    assert (await valet.act("list-things", database="ad-two", token="of-two")).status_code == 200
    assert (await valet.act("list-things", database="ad-one", token="of-two")).status_code == 404
    assert valet.server("ad-one").performed == []


async def test_an_action_of_a_later_version_is_refused_once_the_version_is_known(valet: Valet):
    await valet.database().look()
    refused = await valet.act("use-novelty")

    assert (refused.status_code, refused.json()["code"]) == (409, "precondition")
    assert refused.json()["error"] == "use-novelty needs Fake 9.1 or later."
    assert valet.server().performed == []


async def test_a_write_is_never_shared(valet: Valet):
    gate = valet.server().gate = Gate()
    asked = [asyncio.create_task(valet.act("set-mode", "FAST")) for _ in range(5)]
    await until(lambda: gate.waiting == 5)
    gate.open.set()
    await asyncio.gather(*asked)

    assert valet.server().performed == ["set-mode FAST"] * 5


async def test_reads_are_shared_by_database_action_and_params(valet: Valet):
    one, two = valet.server("ad-one"), valet.server("ad-two")
    gate = one.gate = two.gate = Gate()
    asked = [
        asyncio.create_task(valet.act(name, params, database=database))
        for _ in range(4)
        for database in ("ad-one", "ad-two")
        for name, params in (("list-things", None), ("find-things", {"colour": "blue"}), ("find-things", {}))
    ]
    await until(lambda: gate.waiting == 6)
    gate.open.set()
    assert {(await each).status_code for each in asked} == {200}

    expected = ["find-things None"] * 2 + ["find-things blue"] * 2 + ["list-things"] * 2
    assert (sorted(one.performed), sorted(two.performed)) == (expected, expected)


@pytest.mark.parametrize(
    "bodies",
    [
        [
            b'{"action_name":"find-things","params":{"colour":"blue"}}',
            b'{ "params":{"colour":"bl\\u0075e"}, "action_name":"find-things" }',
        ],
        [
            b'{"action_name":"find-things"}',
            b'{"action_name":"find-things","params":null}',
            b'{"action_name":"find-things","params":{}}',
        ],
    ],
)
async def test_the_same_params_written_differently_are_one_read(valet: Valet, bodies: list[bytes]):
    gate = valet.server().gate = Gate()
    path = "/api/databases/ad-one/action"
    asked = [asyncio.create_task(valet.ask("POST", path, content=body)) for body in bodies * 3]
    await until(lambda: gate.waiting == 1 and valet.waiting_to_share == len(asked) - 1)
    gate.open.set()
    assert {(await each).status_code for each in asked} == {200}

    assert len(valet.server().performed) == 2


async def test_a_shared_read_is_never_older_than_its_request(valet: Valet):
    state = 0
    valet.server().now = lambda: str(state)
    asked: list[tuple[int, asyncio.Task[Any]]] = []
    for _ in range(100):
        state += 1
        asked.append((state, asyncio.create_task(valet.act("read-clock"))))
        await asyncio.sleep(0.0005)

    for at_request, answer in asked:
        assert int((await answer).json()["result"]) >= at_request


async def test_each_who_shares_a_run_is_authorised_limited_and_logged_alone():
    async with running(limits={"read": "1/hour"}) as valet:
        gate = valet.server().gate = Gate()
        asked = [
            asyncio.create_task(valet.act("list-things", token=token))
            for token in ("admin", "reader", "reader", "of-two")
        ]
        await until(lambda: len(valet.lines("action")) == 2)
        gate.open.set()
        statuses = [(await each).status_code for each in asked]

        assert statuses == [200, 200, 429, 404]
        outcomes = sorted((line["who"], line["outcome"]) for line in valet.lines("action"))
        assert outcomes == [("admin", "ok"), ("of-two", "not_found"), ("reader", "ok"), ("reader", "rate_limited")]


async def test_on_a_frozen_engine_waiting_for_the_next_run_does_not_double_the_deadline(valet: Valet):
    valet.server().gate = Gate()
    loop = asyncio.get_running_loop()

    async def timed() -> tuple[int, float]:
        began = loop.time()
        response = await valet.act("read-clock")
        return response.status_code, loop.time() - began

    asked = [asyncio.create_task(timed())]
    for _ in range(3):
        await asyncio.sleep(0.3)
        asked.append(asyncio.create_task(timed()))
    for status, seconds in await asyncio.gather(*asked):
        assert status == 504
        # A deadline of 0.5 s and the grace of 0.75 s; the second would take 2.2 s if it had them once more.
        assert seconds < 1.9


async def test_an_action_past_its_deadline_says_what_is_known(valet: Valet):
    valet.server().gate = Gate()
    read = asyncio.create_task(valet.act("read-clock"))
    shared = asyncio.create_task(valet.act("read-clock"))
    write = asyncio.create_task(valet.act("set-mode", "FAST"))

    silent = "did not finish within 0.5 s: the engine does not answer."
    for each in (read, shared):
        assert (await each).json()["error"] == f"read-clock {silent}"
    assert (await write).json()["error"] == (
        f"set-mode {silent} Whether it was done is not known; look before trying again."
    )


async def test_a_privilege_that_is_missing_is_named_with_its_remedy(valet: Valet):
    from engines.errors import PrivilegeMissing

    valet.server().problem = PrivilegeMissing()
    valet.server().unmet = {"superpower"}
    refused = await valet.act("use-power")

    assert (refused.status_code, refused.json()["code"]) == (403, "privilege_missing")
    assert refused.json()["error"] == (
        "The engine account lacks a privilege for use-power. Missing: superpower. Remedy: GRANT it TO valet"
    )


async def test_an_engine_that_is_unavailable_says_when_to_try_again(valet: Valet):
    valet.server().problem = EngineUnavailable("every connection is in use")
    refused = await valet.act("list-things")

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert refused.json()["error"] == "every connection is in use"


class Model(BaseModel):
    """A result of a package that prefers models."""

    at: datetime
    amount: Decimal


NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, None),
        ([], []),
        ("żółw", "żółw"),
        (datetime(2026, 1, 31, 8, 0, 0, 5000, tzinfo=UTC), "2026-01-31T08:00:00.005000Z"),
        (datetime(2026, 1, 31, 8, 0), "2026-01-31T08:00:00Z"),
        (datetime(2026, 1, 31, 8, 0, tzinfo=timezone(timedelta(hours=1))), "2026-01-31T08:00:00+01:00"),
        (Decimal("1.50"), "1.50"),
        ({1}, [1]),
        (Model(at=NOON, amount=Decimal("1.5")), {"at": "2026-01-31T12:00:00Z", "amount": "1.5"}),
        (2**63 - 1, 2**63 - 1),
        (1837.1, 1837.1),
        (float("nan"), None),
    ],
)
async def test_a_result_is_written_as_json(valet: Valet, result: Any, expected: Any):
    valet.server().result = result
    response = await valet.act("odd-result")

    assert json.loads(response.content) == {"ok": 1, "result": expected}


@pytest.mark.parametrize("result", [object(), 2**70, "\ud800"])
async def test_a_result_that_cannot_be_written_is_a_bug(valet: Valet, result: Any):
    valet.server().result = result
    response = await valet.act("odd-result")

    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert valet.lines("action")[0]["outcome"] == "internal"


async def test_a_client_that_left_is_an_outcome_of_its_own(valet: Valet):
    async def leave() -> bytes:
        raise ClientDisconnect

    with pytest.raises(ClientDisconnect):
        await valet.service.dispatcher.act(request(leave))
    assert valet.lines("action")[0]["outcome"] == "client_left"


async def test_a_request_that_is_cancelled_is_recorded_and_leaves_nothing_behind(valet: Valet):
    gate = valet.server().gate = Gate()

    async def body() -> bytes:
        return b'{"action_name":"list-things"}'

    asked = asyncio.create_task(valet.service.dispatcher.act(request(body)))
    await until(lambda: gate.waiting)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    assert valet.lines("action")[0]["outcome"] == "client_left"
    assert gate.waiting == 0
    assert len(valet.service.dispatcher._coalescer) == 0


def test_an_envelope_is_a_name_and_params():
    assert parse_envelope(b'{"action_name": "a", "params": [1]}') == Envelope(
        name="a", params=[1], dry_run=False, page=None
    )
    alone = parse_envelope(b'{"action_name": "a"}')
    assert (alone.params, alone.dry_run, alone.page) == (None, False, None)
    assert parse_envelope(b'{"action_name": "a", "dry_run": true, "page": 2}').page == Page(2, 20)
    with pytest.raises(Malformed, match=r"^The body must be a JSON object, in UTF-8\.$"):
        parse_envelope(b"[]")
    with pytest.raises(Malformed, match=r"^The body is not JSON in UTF-8: .* \(line 2, column 1\)\.$"):
        parse_envelope(b'{"action_name":\n}')
    with pytest.raises(InvalidParams) as refused:
        parse_envelope(b'{"action_name": 1, "extra": 2}')
    assert refused.value.errors == {"extra": ["is not known"], "action_name": ["must be a text"]}


async def pages(valet: Valet, **fields: Any) -> Any:
    body = {"action_name": "list-things", **fields}
    return (await valet.ask("POST", "/api/databases/ad-one/action", json=body)).json()


async def test_a_list_is_given_in_pages_that_make_the_whole(valet: Valet):
    valet.server().things.update({f"thing-{number}": "grey" for number in range(6)})
    whole = (await pages(valet))["result"]
    found: list[Any] = []
    page: int | None = 1
    while page is not None:
        answer = await pages(valet, page=page, per_page=3)
        found += answer["result"]
        page = answer["meta"]["pagination"]["next_page"]
    assert found == whole
    assert len(whole) > 6


@pytest.mark.parametrize(
    ("page", "per_page", "place"),
    [
        (1, 3, (1, 2, None, 3, 7, 3)),
        (3, 3, (3, None, 2, 3, 7, 3)),
        (9, 3, (9, None, 8, 3, 7, 3)),
        (1, 20, (1, None, None, 1, 7, 20)),
    ],
)
def test_a_page_tells_where_it_stands(page: int, per_page: int, place: tuple[int | None, ...]):
    assert tuple(Page(page, per_page).place_in(7)["pagination"].values()) == place


def test_an_empty_list_has_one_page():
    assert Page(1, 20).place_in(0)["pagination"]["total_pages"] == 1


async def test_pages_of_one_read_do_not_share_their_bytes(valet: Valet):
    valet.server().things["second"] = "red"
    gate = valet.server().gate = Gate()
    asked = [asyncio.create_task(pages(valet, page=number, per_page=1)) for number in (1, 1, 2)]
    await until(lambda: gate.waiting == 2)
    gate.open.set()
    first, same, second = await asyncio.gather(*asked)
    assert first["result"] == same["result"] != second["result"]


async def test_a_list_that_is_too_long_for_one_answer_is_had_in_pages(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agent.dispatch.LARGEST_RESULT", 400)
    valet.server().things.update({f"thing-{number}": "grey" for number in range(20)})
    refused = await valet.act("list-things")
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert "page and per_page" in refused.json()["error"]
    assert len((await pages(valet, page=1, per_page=5))["result"]) == 5
