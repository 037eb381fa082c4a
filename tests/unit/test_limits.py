"""How often a token may ask."""

import asyncio
import json
import random
import re
import time
import tracemalloc
from typing import Any

import pytest

from agent.api.changes import ChangeRoute
from agent.errors import RateLimited
from agent.limits import Limits
from agent.settings_tokens import LimitSettings
from agent.state.state import State
from engines.action import Effect
from tests.fakes.service import Valet, running


def test_without_limits_nothing_is_counted():
    limits = Limits(LimitSettings())
    for _ in range(10_000):
        limits.count("ops", Effect.READ)


def test_the_last_one_that_fits_is_allowed_and_the_next_is_told_when():
    limits = Limits(LimitSettings(read="3/minute"))
    for _ in range(3):
        limits.count("ops", Effect.READ)
    with pytest.raises(RateLimited) as refused:
        limits.count("ops", Effect.READ)

    assert 1 <= refused.value.retry_after <= 60
    assert refused.value.message == (
        f"More than 3 per 1 minute with this token. Try again in {refused.value.retry_after} s."
    )


def test_tokens_and_effects_are_counted_apart():
    limits = Limits(LimitSettings(read="1/hour", write="1/hour", destructive="1/hour"))
    for token in ("ops", "ci"):
        for effect in Effect:
            limits.count(token, effect)
    for effect in Effect:
        with pytest.raises(RateLimited):
            limits.count("ops", effect)


def test_an_effect_without_a_rate_is_not_limited():
    limits = Limits(LimitSettings(destructive="1/day"))
    for _ in range(100):
        limits.count("ops", Effect.READ)
        limits.count("ops", Effect.WRITE)


def test_after_a_while_it_is_allowed_again():
    limits = Limits(LimitSettings(read="1/second"))
    limits.count("ops", Effect.READ)
    with pytest.raises(RateLimited) as refused:
        limits.count("ops", Effect.READ)
    assert refused.value.retry_after == 1


def test_no_window_holds_more_than_the_rate_and_who_waits_as_told_is_served(monkeypatch: pytest.MonkeyPatch):
    chance = random.Random(1)
    now, taken, refused = 1000.0, list[float](), 0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limits = Limits(LimitSettings(read="50/minute"))
    for _ in range(5000):
        now += chance.expovariate(2)
        try:
            limits.count("ops", Effect.READ)
        except RateLimited as problem:
            refused += 1
            # It is not refused for longer than it must be: a hundredth of the window is counted together.
            assert sum(each > now - 60.6 for each in taken[-200:]) >= 50
            assert 1 <= problem.retry_after <= 60
            now += problem.retry_after
            limits.count("ops", Effect.READ)
        taken.append(now)
        assert sum(each > now - 60 for each in taken[-200:]) <= 50
    assert refused > 100


def test_a_rate_that_is_never_reached_needs_little_memory(monkeypatch: pytest.MonkeyPatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limits = Limits(LimitSettings(read="999999999/day"))
    tracemalloc.start()
    try:
        for _ in range(20_000):
            now += 10
            limits.count("ops", Effect.READ)
        assert tracemalloc.get_traced_memory()[0] < 64 * 1024
    finally:
        tracemalloc.stop()


async def test_a_request_over_the_rate_is_429_and_does_not_reach_the_engine():
    async with running(limits={"write": "2/hour"}) as valet:
        for _ in range(2):
            assert (await valet.act("set-mode", "FAST")).status_code == 200
        refused = await valet.act("set-mode", "FAST")

        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 3600
        assert valet.server().performed == ["set-mode FAST"] * 2
        assert (await valet.act("list-things")).status_code == 200
        assert (await valet.act("set-mode", "FAST", token="operator")).status_code == 200


async def test_what_a_token_may_not_do_is_counted_too_so_that_it_fills_no_disk():
    nested = {f"key {number}": {"x" * 500: ["y" * 500] * 20} for number in range(50)}
    async with running(limits={"destructive": "1/hour"}) as valet:
        answers = [await valet.act("drop-thing", nested, token="reader") for _ in range(20)]
        assert [answer.status_code for answer in answers] == [403, *[429] * 19]
        audit = (await valet.ask("GET", "/api/audit")).json()["audit"]
        assert [(line["who"], line["code"]) for line in audit] == [("reader", "forbidden")]
        assert len(json.dumps(audit)) < 10_000
        assert (await valet.act("drop-thing", {"name": "x"}, token="admin")).status_code == 404


@pytest.mark.parametrize(
    ("database", "content", "status"),
    [
        ("ad-two", b'{"action_name":"no-such-thing"}', 404),
        ("ad-two", b"[", 400),
        ("ad-two", b"{}", 422),
        ("ad-two", b" " * (1024 * 1024 + 1), 413),
        ("ad-none", b'{"action_name":"add-thing"}', 404),
        ("ad-one", b'{"action_name":"add-thing"}', 404),
    ],
)
async def test_what_is_refused_before_its_effect_is_known_is_counted_as_a_read(
    database: str, content: bytes, status: int
):
    async with running(limits={"read": "2/hour", "write": "1/hour"}) as valet:
        path = f"/api/databases/{database}/action"
        answers = [await valet.ask("POST", path, "of-two", content=content) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [status, status, 429, 429]
        assert answers[-1].json()["code"] == valet.lines("action")[-1]["outcome"] == "rate_limited"
        for name, params, expected in (("list-things", None, 429), ("add-thing", {"name": "second"}, 200)):
            assert (await valet.act(name, params, database="ad-two", token="of-two")).status_code == expected


@pytest.mark.parametrize("limit", ["write", "destructive"])
async def test_a_route_that_a_token_may_not_use_is_counted_by_what_it_would_do(limit: str):
    method, path = {"write": ("PATCH", ""), "destructive": ("DELETE", "/backups/none")}[limit]
    async with running(limits={limit: "1/hour"}) as valet:
        answers = [await valet.ask(method, f"/api/databases/ad-one{path}", "reader", json={}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [403, 429, 429]
        assert len((await valet.ask("GET", "/api/audit")).json()["audit"]) == 1
        assert (await valet.act("list-things", token="reader")).status_code == 200


def changing(valet: Valet) -> list[tuple[str, str, Effect]]:
    """Give method, path and declared effect of every route beside the actions that changes something."""
    return [
        (method, re.sub(r"{\w+}", "none", route.path.replace("{database_id}", "ad-one")), Effect(extra["x-effect"]))
        for route in valet.app.routes
        if isinstance(route, ChangeRoute)
        and (extra := route.openapi_extra or {})
        and "forbidden" in extra["x-failures"]
        for method in {*(route.methods or ())} - {"GET"}
    ]


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "key-1"}], ids=["without a key", "with a key"])
async def test_what_is_over_the_rate_costs_the_state_nothing(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    async with running(limits={"write": "1/hour", "destructive": "1/hour"}) as valet:
        for effect in (Effect.WRITE, Effect.DESTRUCTIVE):
            valet.service.limits.count("admin", effect)
        work: list[Any] = []
        run, own = State.run, asyncio.current_task()

        async def counted(state: State, job: Any) -> Any:
            if asyncio.current_task() is own:  # and not what is done without being asked
                work.append(job)
            return await run(state, job)

        monkeypatch.setattr(State, "run", counted)
        asked = changing(valet)
        assert len(asked) > 15
        for method, path, _ in asked:
            refused = await valet.ask(method, path, headers=headers, json={})
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited"), path
        assert work == []
        method, path, _ = asked[0]
        await valet.ask(method, path, "operator", headers=headers, json={})
        assert work


async def test_a_route_is_counted_once_by_what_its_token_must_be_allowed() -> None:
    counted: list[Effect] = []
    async with running() as valet:
        valet.service.limits.count = lambda token, effect: counted.append(effect)  # type: ignore[method-assign]
        for method, path, effect in changing(valet):
            await valet.ask(method, path, json={})
            assert counted == [effect], path
            counted.clear()


@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_who_asks_for_databases_that_there_are_not_is_counted(method: str):
    path = {"GET": "/api/databases/ad-none/logs", "PATCH": "/api/databases/ad-none"}[method]
    async with running(limits={"read": "2/hour", "write": "2/hour"}) as valet:
        answers = [await valet.ask(method, path, json={}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [404, 404, 429]


async def test_a_dry_run_that_a_token_may_not_ask_for_is_counted_as_a_read():
    async with running(limits={"read": "1/hour", "destructive": "1/hour"}) as valet:
        asked = {"action_name": "drop-thing", "params": {"name": "first"}, "dry_run": True}
        answers = [await valet.ask("POST", "/api/databases/ad-one/action", "reader", json=asked) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [403, 429]
        assert (await valet.act("drop-thing", {"name": "first"}, token="reader")).status_code == 403


async def test_every_route_with_a_token_counts_as_a_read():
    async with running(limits={"read": "3/hour"}) as valet:
        for path in ("/api/databases", "/api/databases/ad-one", "/metrics"):
            assert (await valet.ask("GET", path)).status_code == 200
        assert (await valet.ask("GET", "/api/databases/ad-one/actions")).status_code == 429
        assert (await valet.act("list-things")).status_code == 429
        assert (await valet.ask("GET", "/livez", None)).status_code == 200
