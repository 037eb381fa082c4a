"""One dbvalet, five servers, one of them frozen: the others, one of its own kind too, are answered meanwhile.

Told by the order of events, not by a clock. If dbvalet had anything for all databases that those who wait for the
frozen server can use up (connections, threads, a lock, a queue), nobody else would be answered before one of them left.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.live.servers import LiveServer, spawn
from tests.live.test_backup_routes import MADE
from tests.unit.running import TOKEN, configuration, serving

READS = {
    "postgresql": "pg-list-queries",
    "mysql": "list-databases",
    "mongodb": "list-databases",
    "influxdb": "list-retention-policies",
}

FROZEN = "ad-frozen"

MANY = 50
"""Requests of each kind, reads and changes, that a database may have at work."""

ROUNDS = 50
"""Of a read and a change of each other server."""

pytestmark = [pytest.mark.newest_version, pytest.mark.timeout(180), pytest.mark.long]


@pytest.fixture(params=READS)
def frozen(request: pytest.FixtureRequest) -> str:
    """The engine of the server that is frozen."""
    return request.param


@pytest.fixture
def twin(request: pytest.FixtureRequest, frozen: str) -> Iterator[LiveServer]:
    """A second server of that engine."""
    first: LiveServer = request.getfixturevalue(frozen)
    with spawn(first.flavour, first.version) as live:
        yield live


@pytest.fixture
def four(postgresql: LiveServer, mysql: LiveServer, mongodb: LiveServer, influxdb: LiveServer) -> dict[str, LiveServer]:
    return {f"ad-{each.engine}": each for each in (postgresql, mysql, mongodb, influxdb)}


@pytest.fixture
async def client(four: dict[str, LiveServer], twin: LiveServer, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    name = f"isolation_{time.time_ns()}"
    with ExitStack() as stack:
        made = [
            {"id": each_id, "url": stack.enter_context(MADE[live.engine](live, name))[0]}
            for each_id, live in (four | {FROZEN: twin}).items()
        ]
        running = stack.enter_context(serving(configuration(tmp_path, *made, limits={"concurrent": MANY})))
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


async def read(client: httpx.AsyncClient, engine: str, of: str = "") -> httpx.Response:
    return await client.post(f"/api/databases/{of or f'ad-{engine}'}/action", json={"action_name": READS[engine]})


async def change(client: httpx.AsyncClient, engine: str, of: str = "") -> httpx.Response:
    """Ask for something that is refused, once the server was asked."""
    name, params = {
        "postgresql": ("pg-cancel-query", {"pid": 2**31 - 1}),
        "mysql": ("delete-database", {"database_name": "nothing_here"}),
        "mongodb": ("delete-database", {"database_name": "nothing_here"}),
        "influxdb": ("del-retention-policy", {"name": "nothing here"}),
    }[engine]
    body = {"action_name": name, "params": params}
    return await client.post(f"/api/databases/{of or f'ad-{engine}'}/action", json=body)


Ask = Callable[[httpx.AsyncClient, str, str], Awaitable[httpx.Response]]


class Crowd:
    """Who waits for the frozen server. Whoever is refused asks again, unless told that as many wait as may."""

    def __init__(self, client: httpx.AsyncClient, engine: str) -> None:
        self.waiting = 0
        self.left = 0
        """How often one of them was answered."""
        self.answers: set[int] = set()
        self._stopped = False
        self._whole: dict[Ask, asyncio.Event] = {kind: asyncio.Event() for kind in (read, change)}
        self._all = [
            asyncio.create_task(self._wait(kind, client, engine)) for kind in self._whole for _ in range(MANY + 1)
        ]

    async def _wait(self, kind: Ask, client: httpx.AsyncClient, engine: str) -> None:
        while not self._stopped:
            self.waiting += 1
            answer = await kind(client, engine, FROZEN)
            self.waiting -= 1
            self.left += 1
            self.answers.add(answer.status_code)
            if answer.json()["code"] == "overloaded":
                self._whole[kind].set()
                return

    async def is_whole(self) -> None:
        """Wait until one more of each kind was not let in: the others are."""
        for each in self._whole.values():
            await each.wait()

    async def stop(self) -> None:
        """Let nobody ask again, and wait for the answers."""
        self._stopped = True
        await asyncio.gather(*self._all)


async def test_a_frozen_server_holds_up_no_other(client: httpx.AsyncClient, frozen: str, twin: LiveServer) -> None:
    assert (await read(client, frozen, FROZEN)).status_code == 200
    undisturbed: list[int] = []
    with twin.paused():
        crowd = Crowd(client, frozen)
        await crowd.is_whole()
        for _ in range(ROUNDS):
            left = crowd.left
            answers = await asyncio.gather(
                *(read(client, engine) for engine in READS),
                *(change(client, engine) for engine in READS),
                *(client.get(path) for path in ("/livez", "/metrics")),
            )
            assert [each.status_code for each in answers] == [200] * 4 + [404] * 4 + [200] * 2
            if crowd.left == left:
                undisturbed.append(crowd.waiting)
        await crowd.stop()
    # In the others one of the crowd gave up by itself, as some do after some seconds; once the server is known to be
    # silent, fewer are let in.
    assert len(undisturbed) > ROUNDS / 2, undisturbed
    assert max(undisturbed) > MANY
    assert crowd.answers <= {503, 504}
    assert await answers_again(client, frozen)


async def answers_again(client: httpx.AsyncClient, engine: str) -> bool:
    async with asyncio.timeout(30):
        while (await read(client, engine, FROZEN)).status_code != 200:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.1)
    return True
