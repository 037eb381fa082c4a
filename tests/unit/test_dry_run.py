"""`"dry_run": true`: what an action would do, by the same checks, with nothing done, written down or kept."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import httpx
import pytest

from engines import engine as engines_engine
from engines.action import Effect, action
from engines.engine import installed_engines
from engines.errors import ConnectionLost, DeadlineExceeded, Precondition
from engines.preview import MOST_OBJECTS, Affected, Change, preview_of
from tests.fakes import ENGINE
from tests.fakes.driver import Gate
from tests.fakes.service import Valet, running, until

SECOND = {"name": "second", "colour": "red"}
PATH = "/api/databases/ad-one/action"


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running() as valet:
        yield valet


async def attempt(valet: Valet, name: str, params: Any = None, token: str = "admin", **more: Any) -> httpx.Response:
    body = {"action_name": name, "params": params, "dry_run": True}
    return await valet.ask("POST", PATH, token, json=body, **more)


def rows_of(valet: Valet, table: str) -> int:
    file = valet.service.state._file
    assert file is not None
    if not file.path.exists():
        return 0
    with closing(sqlite3.connect(file.path)) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


async def test_it_says_what_would_be_done_and_does_nothing(valet: Valet):
    response = await attempt(valet, "add-thing", SECOND)
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    assert response.json() == {
        "ok": 1,
        "dry_run": True,
        "result": {
            "would": "Adds a thing.",
            "objects": [{"change": "create", "kind": "thing", "name": "second", "rows": None, "bytes": None}],
            "total": 1,
            "truncated": False,
            "sessions": 0,
            "keeps": [],
            "warnings": [],
            "before": None,
            "after": None,
        },
    }
    assert valet.server().things == {"first": "blue"}
    assert valet.server().performed == ["preview add-thing second"]


async def test_false_is_the_action_itself(valet: Valet):
    body = {"action_name": "add-thing", "params": SECOND, "dry_run": False}
    response = await valet.ask("POST", PATH, json=body)
    assert response.json() == {"ok": 1, "result": SECOND}
    assert "second" in valet.server().things
    reading = await valet.ask("POST", PATH, json={"action_name": "list-things", "dry_run": False})
    assert reading.status_code == 200


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("add-thing", {"name": "first"}),
        ("add-thing", {"name": ""}),
        ("add-thing", {"nmae": "x"}),
        ("drop-thing", {"name": "first"}),
        ("drop-thing", {"name": "none"}),
        ("drop-thing", None),
        ("unknown", None),
    ],
)
async def test_a_refusal_is_the_one_of_the_action(valet: Valet, name: str, params: Any):
    tried = await attempt(valet, name, params)
    done = await valet.act(name, params)
    assert not done.is_success
    assert (tried.status_code, tried.content) == (done.status_code, done.content)


@pytest.mark.parametrize("unmet", [{"superpower"}, {"preload"}, {"superpower", "preload"}])
async def test_what_is_missing_is_named_with_its_remedy(valet: Valet, unmet: set[str]):
    valet.server().unmet = unmet
    response = await attempt(valet, "use-power")
    code = "precondition" if "preload" in unmet else "privilege_missing"
    assert response.json()["code"] == code
    assert "Remedy: GRANT it TO valet" in response.json()["error"]
    if code == "privilege_missing":
        assert "The engine account lacks a privilege for use-power." in response.json()["error"]
    valet.server().unmet = set()
    assert (await attempt(valet, "use-power")).status_code == 200


async def test_what_reads_or_has_no_preview_is_refused_and_not_run(valet: Valet):
    reading, without = await attempt(valet, "list-things"), await attempt(valet, "set-mode", "FAST")
    assert (reading.status_code, reading.json()["code"]) == (without.status_code, without.json()["code"])
    assert (without.status_code, without.json()["code"]) == (400, "not_supported")
    assert "list-things only reads" in reading.json()["error"]
    assert "set-mode has no dry run" in without.json()["error"]
    assert valet.server().performed == []


@pytest.mark.parametrize("value", [None, 1, 0, "true", "false", [], {}])
async def test_another_type_than_a_boolean_is_refused_by_name(valet: Valet, value: Any):
    body = {"action_name": "add-thing", "params": SECOND, "dry_run": value}
    response = await valet.ask("POST", PATH, json=body)
    assert (response.status_code, response.json()["errors"]) == (422, {"dry_run": ["must be true or false"]})
    assert valet.server().performed == []


async def test_it_takes_the_right_to_the_action(valet: Valet):
    for token, name in (("reader", "add-thing"), ("operator", "drop-thing"), ("picky", "drop-thing")):
        assert (await attempt(valet, name, SECOND, token)).json()["code"] == "forbidden"
    assert (await attempt(valet, "drop-thing", {"name": "x"}, "of-two")).json()["code"] == "not_found"
    switched_off = {"action_name": "set-mode", "params": "FAST", "dry_run": True}
    response = await valet.ask("POST", "/api/databases/ad-two/action", json=switched_off)
    assert response.json()["code"] == "forbidden"
    assert (await attempt(valet, "add-thing", SECOND, "operator")).status_code == 200
    assert valet.server().performed == ["preview add-thing second"]


async def test_it_counts_as_a_read_alone():
    async with running(limits={"read": "2/hour", "write": "1/hour"}) as valet:
        for _ in range(2):
            assert (await attempt(valet, "add-thing", SECOND)).status_code == 200
        limited = await attempt(valet, "add-thing", SECOND)
        assert (limited.status_code, limited.json()["code"]) == (429, "rate_limited")
        assert (await valet.act("list-things")).status_code == 429
        assert (await valet.act("add-thing", SECOND)).status_code == 200


async def test_it_has_no_line_in_the_audit_and_no_key(valet: Valet):
    for headers in ({"Idempotency-Key": "key-1"}, {"Idempotency-Key": "two words"}, {}):
        assert (await attempt(valet, "drop-thing", {"name": "none"}, headers=headers)).status_code == 404
        assert (await attempt(valet, "add-thing", SECOND, headers=headers)).status_code == 200
    assert rows_of(valet, "audit") == rows_of(valet, "idempotency_keys") == 0
    body = {"action_name": "add-thing", "params": SECOND}
    done = await valet.ask("POST", PATH, json=body, headers={"Idempotency-Key": "key-1"})
    assert done.json() == {"ok": 1, "result": SECOND}
    assert "Idempotent-Replayed" not in done.headers


async def test_it_needs_no_state_that_can_be_written(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    async def broken(_: object) -> None:
        raise Precondition("the disk is full")

    for each in ("run", "run_soon_durable"):
        monkeypatch.setattr(valet.service.state, each, broken)
    assert (await valet.act("add-thing", SECOND)).json()["code"] == "state_unavailable"
    assert (await attempt(valet, "add-thing", SECOND)).status_code == 200


async def test_the_log_and_the_metrics_tell_it_from_the_action(valet: Valet):
    await attempt(valet, "add-thing", SECOND)
    assert valet.lines("action") == []
    (line,) = valet.lines("dry_run")
    assert (line["action"], line["who"], line["outcome"]) == ("add-thing", "admin", "ok")
    metrics = (await valet.ask("GET", "/metrics")).text
    assert 'action="add-thing (dry run)"' in metrics
    assert 'action="add-thing"' not in metrics


async def test_an_engine_that_hangs_is_given_up_after_ten_seconds_and_nothing_is_in_doubt(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
):
    assert engines_engine.PREVIEW_SECONDS == 10
    monkeypatch.setattr(engines_engine, "PREVIEW_SECONDS", 0.05)
    monkeypatch.setattr("engines.deadline.GRACE", 0.05)
    valet.server().gate = Gate()
    response = await attempt(valet, "add-thing", SECOND)
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
    assert "Nothing was changed." in response.json()["error"]


async def test_who_leaves_stops_it(valet: Valet):
    gate = valet.server().gate = Gate()
    task = asyncio.create_task(attempt(valet, "add-thing", SECOND))
    await until(lambda: gate.waiting)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not gate.waiting)
    assert valet.lines("dry_run")[0]["outcome"] == "client_left"


@pytest.mark.parametrize("problem", [ConnectionLost(), DeadlineExceeded(), Precondition("too early")])
async def test_what_the_engine_says_is_told_as_it_is(valet: Valet, problem: Exception):
    valet.server().problem = problem
    response = await attempt(valet, "add-thing", SECOND)
    assert response.json()["error"] == str(problem)


async def test_an_older_server_is_refused_as_by_the_action(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    newer = replace(ENGINE.actions["add-thing"], minimum_version=(9, 1))
    monkeypatch.setitem(ENGINE.actions, "add-thing", newer)
    await valet.database().look()
    tried, done = await attempt(valet, "add-thing", SECOND), await valet.act("add-thing", SECOND)
    assert done.json()["code"] == "precondition"
    assert tried.content == done.content


async def test_the_catalogue_says_what_has_a_dry_run(valet: Valet):
    listed = (await valet.ask("GET", "/api/databases/ad-one/actions")).json()["actions"]
    having = {each["name"] for each in listed if each["dry_run"]}
    assert having == {"add-thing", "drop-thing", "use-power"}


def test_every_action_of_ours_that_changes_something_has_a_dry_run():
    ours = [
        each
        for engine in installed_engines().values()
        if engine.package.startswith("engines.")
        for each in engine.actions.values()
        if each.function.__module__.startswith("engines.")
    ]
    assert {each.name for each in ours if each.effect is not Effect.READ and each.preview is None} == set()
    assert len([each for each in ours if each.preview is not None]) == 13


def test_what_reads_cannot_declare_one():
    with pytest.raises(ValueError, match="only reads"):
        action("look", effect=Effect.READ, preview=ENGINE.actions["add-thing"].preview)


async def test_as_a_library_an_action_without_one_is_refused(valet: Valet):
    with pytest.raises(Precondition, match="set-mode"):
        await engines_engine.preview(valet.server(), ENGINE.actions["set-mode"], "FAST")


def test_it_names_a_hundred_objects_and_counts_all():
    many = [Affected(change=Change.REMOVE, kind="table", name=str(number)) for number in range(MOST_OBJECTS + 1)]
    assert not preview_of("", many[1:]).truncated
    cut = preview_of("", many)
    assert (len(cut.objects), cut.total, cut.truncated) == (100, 101, True)
