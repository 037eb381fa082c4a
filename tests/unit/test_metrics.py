"""What Prometheus reads."""

import asyncio
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.metrics import Metrics
from engines.engine import PoolUse
from tests.fakes.driver import Gate
from tests.fakes.service import TOKENS, Valet, running, until


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(valet: Valet) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    await asyncio.sleep(0)  # a read is recorded once its answer is on its way
    return samples((await valet.ask("GET", "/metrics")).text)


def key(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


async def test_actions_are_counted_by_database_action_and_outcome():
    async with running() as valet:
        for _ in range(3):
            await valet.act("list-things")
        await valet.act("add-thing", {"name": "first"})
        await valet.act("list-things", database="ad-two", token="of-two")
        found = await scraped(valet)

    assert found[key("dbvalet_actions_total", database="ad-one", action="list-things", outcome="ok")] == 3
    assert found[key("dbvalet_actions_total", database="ad-two", action="list-things", outcome="ok")] == 1
    assert found[key("dbvalet_actions_total", database="ad-one", action="add-thing", outcome="already_exists")] == 1


async def test_durations_are_counted_by_the_same():
    async with running() as valet:
        gate = valet.server().gate = Gate()
        hanging = await valet.act("read-clock")
        assert hanging.status_code == 504
        gate.open.set()
        await valet.act("read-clock")
        found = await scraped(valet)

    labels = {"database": "ad-one", "action": "read-clock"}
    of_ok, of_late = {**labels, "outcome": "ok"}, {**labels, "outcome": "deadline_exceeded"}
    assert found[key("dbvalet_action_duration_seconds_count", **of_ok)] == 1
    assert found[key("dbvalet_action_duration_seconds_bucket", **of_ok, le="0.5")] == 1
    assert found[key("dbvalet_action_duration_seconds_bucket", **of_late, le="0.5")] == 0
    assert found[key("dbvalet_action_duration_seconds_bucket", **of_late, le="2.5")] == 1
    assert 0.5 < found[key("dbvalet_action_duration_seconds_sum", **of_late)] < 2.5


async def test_only_declared_names_become_labels():
    async with running() as valet:
        await valet.act("planted-action")
        await valet.act("list-things", database="ad-planted")
        await valet.ask("POST", "/api/databases/planted/action", None, content=b"{planted")
        await valet.ask("GET", "/planted")
        await valet.ask("POST", "/api/databases/ad-one/action", content=b'{"planted":1}')
        text = (await valet.ask("GET", "/metrics")).text

    assert "planted" not in text
    found = samples(text)
    assert found[key("dbvalet_actions_total", database="ad-one", action="", outcome="unknown_action")] == 1
    assert found[key("dbvalet_actions_total", database="", action="", outcome="not_found")] == 1
    assert found[key("dbvalet_actions_total", database="", action="", outcome="unauthenticated")] == 1
    assert found[key("dbvalet_actions_total", database="ad-one", action="", outcome="invalid_params")] == 1


async def test_no_secret_is_among_the_metrics():
    async with running() as valet:
        for token in TOKENS:
            await valet.act("list-things", token=token)
        text = (await valet.ask("GET", "/metrics")).text

    assert not [token for token in TOKENS.values() if token in text]
    assert "valet:" not in text


async def test_reads_that_share_a_run_are_counted():
    async with running() as valet:
        gate = valet.server().gate = Gate()
        import asyncio

        asked = [asyncio.create_task(valet.act("list-things")) for _ in range(6)]
        await until(lambda: gate.waiting == 1 and valet.waiting_to_share == 5)
        gate.open.set()
        await asyncio.gather(*asked)
        found = await scraped(valet)

    # The first had a run of its own; of the five that shared the next, four got it for nothing.
    assert found[key("dbvalet_coalesced_reads_total")] == 4
    assert valet.server().performed == ["list-things"] * 2


async def test_engines_are_shown_as_up_or_down_once_they_were_looked_at():
    async with running() as valet:
        await valet.database().look()
        await valet.database("ad-two").look()
        valet.database("ad-two").up = False
        found = await scraped(valet)
        assert found[key("dbvalet_engine_up", database="ad-one")] == 1
        assert found[key("dbvalet_engine_up", database="ad-two")] == 0
        valet.database("ad-two").up = None
        assert key("dbvalet_engine_up", database="ad-two") not in await scraped(valet)


async def test_pools_are_shown_without_waiting():
    async with running() as valet:
        valet.server().pool = PoolUse(open=4, in_use=3, limit=5)
        found = await scraped(valet)

    assert found[key("dbvalet_pool_connections", database="ad-one")] == 4
    assert found[key("dbvalet_pool_connections_in_use", database="ad-one")] == 3
    assert found[key("dbvalet_pool_connections_limit", database="ad-one")] == 5
    assert found[key("dbvalet_pool_connections", database="ad-two")] == 2


async def test_the_process_is_shown():
    async with running() as valet:
        found = await scraped(valet)
    assert found[key("process_resident_memory_bytes")] > 1_000_000
    assert found[key("process_open_fds")] > 0


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("of-two", 403), ("reader", 200), ("admin", 200)])
async def test_metrics_take_a_token_that_sees_every_database(token: str | None, status: int):
    async with running() as valet:
        assert (await valet.ask("GET", "/metrics", token)).status_code == status


@pytest.mark.parametrize("token", [None, "of-two"])
async def test_metrics_take_no_token_where_they_are_public(token: str | None):
    async with running(metrics="public") as valet:
        response = await valet.ask("GET", "/metrics", token)
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")


async def test_metrics_answer_while_an_engine_hangs_and_its_pool_is_exhausted():
    async with running() as valet:
        server = valet.server()
        server.gate, server.describe_gate, server.check_gate = Gate(), Gate(), Gate()
        server.pool = PoolUse(open=4, in_use=4, limit=4)
        for path in ("/metrics", "/livez", "/readyz"):
            assert (await valet.ask("GET", path)).status_code == 200


def test_two_services_of_one_process_count_apart():
    one, two = Metrics(), Metrics()
    one.action("ad-one", "list-things", "ok", 0.1)
    name = key("dbvalet_actions_total", database="ad-one", action="list-things", outcome="ok")
    assert samples(one.render().decode())[name] == 1
    assert name not in samples(two.render().decode())


def test_counting_the_same_again_adds_up():
    metrics = Metrics()
    for seconds in (0.1, 0.2, 0.3):
        metrics.action("ad-one", "list-things", "ok", seconds)
    labels: dict[str, Any] = {"database": "ad-one", "action": "list-things", "outcome": "ok"}
    assert samples(metrics.render().decode())[key("dbvalet_action_duration_seconds_sum", **labels)] == pytest.approx(
        0.6
    )
