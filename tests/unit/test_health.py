"""Alive, ready: what is asked when everything else has stopped answering."""

import asyncio
from typing import Any

import httpx
import pytest

from engines.engine import PoolUse
from tests.fakes.driver import Gate
from tests.fakes.service import running, until


@pytest.mark.parametrize(("path", "body"), [("/livez", {"status": "alive"}), ("/readyz", {"status": "ready"})])
@pytest.mark.parametrize("token", [None, "of-two"])
async def test_they_take_no_token_and_give_no_detail(path: str, body: dict[str, str], token: str | None):
    async with running() as valet:
        response = await valet.ask("GET", path, token)
        assert (response.status_code, response.json()) == (200, body)


async def test_they_answer_at_once_while_an_engine_hangs_and_its_pool_is_exhausted():
    async with running() as valet:
        server = valet.server()
        gate = server.gate = Gate()
        server.describe_gate = server.check_gate = Gate()
        server.pool = PoolUse(open=4, in_use=4, limit=4)
        asked = [asyncio.create_task(valet.act("set-mode", "FAST")) for _ in range(10)]
        await until(lambda: gate.waiting == 10)
        async with asyncio.timeout(5):
            for path in ("/livez", "/readyz", "/metrics"):
                assert (await valet.ask("GET", path)).status_code == 200
        gate.open.set()
        await asyncio.gather(*asked)


async def test_they_do_not_touch_an_engine():
    async with running() as valet:
        await until(lambda: valet.database().up and valet.database("ad-two").up)
        described = valet.server().described
        for path in ("/livez", "/readyz"):
            await valet.ask("GET", path, None)
        assert (valet.server().described, valet.server().performed) == (described, [])


async def test_it_lives_through_the_start_and_the_end_that_its_server_tells_it():
    async with running() as valet:
        pass
    told: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    said: asyncio.Queue[Any] = asyncio.Queue()
    living = asyncio.create_task(valet.app({"type": "lifespan", "state": {}}, told.get, said.put))
    await told.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    assert valet.service.ready
    await told.put({"type": "lifespan.shutdown"})
    assert (await said.get())["type"] == "lifespan.shutdown.complete"
    await living
    assert not valet.service.ready


async def test_it_is_ready_between_its_start_and_its_end():
    async with running() as valet:
        assert valet.service.ready
    async with httpx.AsyncClient(transport=httpx.ASGITransport(valet.app), base_url="http://dbvalet") as client:
        response = await client.get("/readyz")
        assert (response.status_code, response.json()["code"]) == (503, "not_ready")
        assert (await client.get("/livez")).status_code == 200
