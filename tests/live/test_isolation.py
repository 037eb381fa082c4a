"""One dbvalet, four servers, one of them frozen: the others are answered as if nothing were."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.live.servers import LiveServer
from tests.live.test_backup_routes import MADE
from tests.unit.running import TOKEN, configuration, serving

READS = {
    "postgresql": "pg-list-queries",
    "mysql": "list-databases",
    "mongodb": "list-databases",
    "influxdb": "list-retention-policies",
}

MANY = 100

pytestmark = [pytest.mark.newest_version, pytest.mark.timeout(120), pytest.mark.long]


@pytest.fixture
async def client(
    postgresql: LiveServer, mysql: LiveServer, mongodb: LiveServer, influxdb: LiveServer, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    name = f"isolation_{time.time_ns()}"
    with ExitStack() as stack:
        made = [
            {"id": f"ad-{each.engine}", "url": stack.enter_context(MADE[each.engine](each, name))[0]}
            for each in (postgresql, mysql, mongodb, influxdb)
        ]
        running = stack.enter_context(serving(configuration(tmp_path, *made)))
        assert running.process.stdout is not None
        # A pipe that nobody reads holds up whoever writes to it.
        threading.Thread(target=running.process.stdout.read, daemon=True).start()
        async with httpx.AsyncClient(
            base_url=running.url,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=60,
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        ) as client:
            yield client


async def read(client: httpx.AsyncClient, engine: str) -> int:
    answer = await client.post(f"/api/databases/ad-{engine}/action", json={"action_name": READS[engine]})
    return answer.status_code


async def change(client: httpx.AsyncClient, engine: str) -> int:
    """Ask for something that is refused, once the server was asked."""
    name, params = {
        "postgresql": ("pg-cancel-query", {"pid": 2**31 - 1}),
        "mysql": ("delete-database", {"database_name": "nothing_here"}),
        "mongodb": ("delete-database", {"database_name": "nothing_here"}),
        "influxdb": ("del-retention-policy", {"name": "nothing here"}),
    }[engine]
    body = {"action_name": name, "params": params}
    return (await client.post(f"/api/databases/ad-{engine}/action", json=body)).status_code


@pytest.mark.parametrize("frozen", READS)
async def test_a_frozen_server_holds_up_no_other(
    client: httpx.AsyncClient, frozen: str, request: pytest.FixtureRequest
) -> None:
    server: LiveServer = request.getfixturevalue(frozen)
    others = [engine for engine in READS if engine != frozen]
    assert [await read(client, engine) for engine in READS] == [200] * 4
    with server.paused():
        waiting = [asyncio.create_task(change(client, frozen)) for _ in range(MANY)]
        waiting += [asyncio.create_task(read(client, frozen)) for _ in range(MANY)]
        await asyncio.sleep(0.5)
        answers = await asyncio.gather(*(read(client, engine) for engine in others for _ in range(MANY)))
        refused = await asyncio.gather(*(change(client, engine) for engine in others))
        # Not by the clock: whoever waits for the frozen one waits still.
        assert any(not each.done() for each in waiting)
        assert set(answers) == {200}
        assert set(refused) == {404}
        assert {await each for each in waiting} <= {503, 504}
    assert await answers_again(client, frozen)


async def answers_again(client: httpx.AsyncClient, engine: str) -> bool:
    async with asyncio.timeout(30):
        while await read(client, engine) != 200:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.1)
    return True
