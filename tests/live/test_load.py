"""64 clients with mixed actions on four servers: no failure, and nothing that grows.

A short form runs always; `--long` takes 30 minutes, or LOAD_MINUTES of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pymongo
import pymysql
import pytest

from tests.live.four import IDS, Four, bearer, four
from tests.live.hostile_names import SEED
from tests.live.servers import LiveServer

pytestmark = [pytest.mark.newest_version]

CLIENTS = 64
MINUTES = float(os.environ.get("LOAD_MINUTES", "30"))
SHORT_SECONDS = 9.0
WARM_SECONDS = 60.0
"""After so long everything that is made when it is first needed has been made."""

SLACK = 4
"""Connections that pools have opened or closed just then; however long the load is, no more."""

HIGH = {"read": "1000000/minute", "write": "1000000/minute", "destructive": "1000000/minute"}


@dataclass(frozen=True)
class Figures:
    """What may not grow."""

    memory: int
    """Bytes, resident."""
    descriptors: int
    connections: int
    """Of dbvalet at the three servers that tell."""


def figures(of_four: Four) -> Figures:
    process = Path(f"/proc/{of_four.running.process.pid}")
    (resident,) = [line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS")]
    return Figures(
        memory=int(resident.split()[1]) * 1024,
        descriptors=len(list((process / "fd").iterdir())),
        connections=connections_of(of_four),
    )


def connections_of(of_four: Four) -> int:
    """Count the sessions in the own databases; MongoDB's by the name that dbvalet gives itself."""
    pg, my, mg = (of_four.lives[each] for each in ("postgresql", "mysql", "mongodb"))
    with psycopg.connect(pg.url()) as admin:
        row = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'dbvalet%%'",
            [of_four.names["postgresql"]],
        ).fetchone()
    found = int(row[0]) if row else 0
    with (
        pymysql.connect(host=my.host, port=my.port, user=my.admin, password=my.password) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = %s", (of_four.names["mysql"],))
        found += (cursor.fetchone() or (0,))[0]
    with pymongo.MongoClient[dict[str, Any]](mg.url(), appname="counts") as client:
        operations = client.admin.aggregate([{"$currentOp": {"allUsers": True, "idleConnections": True}}])
        found += sum("dbvalet" in str(each.get("appName", "")) for each in operations)
    return found


@dataclass(frozen=True)
class Step:
    """A request, and what may come of it."""

    engine: str
    path: str
    body: Any
    statuses: set[int]
    method: str = "POST"
    key: bool = False


Journey = Callable[[random.Random, int], Iterator[Step]]
"""What one client does, over and over: requests that follow on each other; the number is its own."""


def act(engine: str, name: str, params: Any = None, *, statuses: set[int] | None = None, key: bool = False) -> Step:
    return Step(engine, "/action", {"action_name": name, "params": params}, statuses or {200}, key=key)


def reads(_: random.Random, number: int) -> Iterator[Step]:
    del number
    yield act("postgresql", "pg-list-queries")
    yield act("postgresql", "list-extensions")
    yield act("postgresql", "pg-stat-statements-list")
    yield act("mysql", "list-databases")
    yield act("mysql", "get-sqlmode")
    yield act("mongodb", "list-databases")
    yield act("influxdb", "list-retention-policies")
    for engine in IDS:
        yield Step(engine, "", None, {200}, method="GET")


def writes(chance: random.Random, number: int) -> Iterator[Step]:
    """Make, fill again and take away; whoever sends a key twice gets the first answer."""
    name = f"load_{number}"
    for engine in ("mysql", "mongodb"):
        one = {"database_name": name}
        made = act(engine, "create-database", one, key=chance.random() < 0.5)
        yield made
        if made.key:
            yield made
        else:
            yield act(engine, "create-database", one, statuses={409})
        yield act(engine, "reset-database", one)
        yield act(engine, "delete-database", one, key=chance.random() < 0.5)
        yield act(engine, "delete-database", one, statuses={404})
    policy = {"name": f"policy {number}"}
    yield act("influxdb", "add-retention-policy", {**policy, "duration": "30d"}, key=chance.random() < 0.5)
    yield act("influxdb", "del-retention-policy", policy)
    yield act("postgresql", "pg-cancel-query", {"pid": 2**31 - 1 - number}, statuses={404})
    yield act("postgresql", "pg-stat-statements-reset")
    body = {"database": {"periodic_backups_scheduled_at": chance.randrange(24)}}
    yield Step("mysql", "", body, {200}, method="PATCH")


def bad_input(chance: random.Random, number: int) -> Iterator[Step]:
    yield act("mysql", "create-database", {"database_name": "a;b" * chance.randint(1, 50)}, statuses={422})
    yield act("mongodb", "delete-database", {"database_name": {"$gt": ""}}, statuses={422})
    yield act("influxdb", "add-retention-policy", {"name": f"p{number}", "duration": "1 fortnight"}, statuses={422})
    yield act("postgresql", "pg-cancel-query", {"pid": "1"}, statuses={422, 404})
    yield act("postgresql", "no-such-action", statuses={404})
    yield Step("mysql", "/action", [number], {400})
    yield Step("mongodb", "/backups/none", None, {404}, method="GET")
    yield Step("influxdb", "/nothing", None, {404}, method="GET")


JOURNEYS: tuple[Journey, ...] = (reads, reads, writes, bad_input)


class Load:
    """The clients, and what they were answered."""

    def __init__(self, of_four: Four, seconds: float) -> None:
        self._four = of_four
        self._ends_at = time.monotonic() + seconds
        self.answered = Counter[int]()
        self.unexpected: list[str] = []

    async def run(self) -> None:
        # A connection that lay idle for longer may be closed by the server just as the client writes on it.
        limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS, keepalive_expiry=1)
        async with httpx.AsyncClient(
            base_url=self._four.running.url, headers=bearer("admin"), timeout=60, limits=limits, trust_env=False
        ) as client:
            await asyncio.gather(*(self._one(client, number) for number in range(CLIENTS)))

    async def _one(self, client: httpx.AsyncClient, number: int) -> None:
        chance = random.Random(f"{SEED} {number}")
        own = f"{number}-{time.time_ns()}"
        journey = JOURNEYS[number % len(JOURNEYS)]
        keys = 0
        while time.monotonic() < self._ends_at:
            last: Step | None = None
            for step in journey(chance, number):
                # The same step once more goes out with the same key.
                keys += step is not last
                last = step
                if journey is not writes and time.monotonic() >= self._ends_at:
                    return  # which leaves nothing behind
                await self._send(client, step, f"{own}-{keys}")

    async def _send(self, client: httpx.AsyncClient, step: Step, key: str) -> None:
        path = f"/api/databases/{IDS[step.engine]}{step.path}"
        headers = {"Idempotency-Key": key} if step.key else {}
        try:
            answer = await client.request(step.method, path, json=step.body, headers=headers)
        except httpx.HTTPError as problem:
            self.unexpected.append(f"{step}: {problem!r}")
            return
        self.answered[answer.status_code] += 1
        if answer.status_code not in step.statuses:
            self.unexpected.append(f"{step} → {answer.status_code} {answer.text[:300]}")


@pytest.fixture
async def of_four(
    postgresql: LiveServer, mysql: LiveServer, mongodb: LiveServer, influxdb: LiveServer, tmp_path: Path
) -> AsyncIterator[Four]:
    lives = {"postgresql": postgresql, "mysql": mysql, "mongodb": mongodb, "influxdb": influxdb}
    with four(lives, tmp_path, limits=HIGH) as made, made.client() as client:
        body = {"action_name": "pg-stat-statements-enable"}
        assert client.post(f"/api/databases/{IDS['postgresql']}/action", json=body).status_code == 200
        yield made


async def loaded(of_four: Four, *, warm: float, seconds: float, factor: float) -> None:
    """Load it for so long to warm up and then for so long; nothing may be more than at first, memory by a factor."""
    neighbours = of_four.neighbours.look()
    print(f"TEST_SEED={SEED}")
    first = Load(of_four, warm)
    await first.run()
    before = await at_rest(of_four)
    load = Load(of_four, seconds)
    await load.run()
    after = await at_rest(of_four)
    print(f"{load.answered.total()} answers in {seconds:.0f} s, {load.answered}, before {before}, after {after}")
    assert not first.unexpected + load.unexpected, (first.unexpected + load.unexpected)[:10]
    assert load.answered.total() > CLIENTS
    assert after.memory <= factor * before.memory
    assert after.descriptors <= before.descriptors + SLACK
    assert after.connections <= before.connections + SLACK
    assert of_four.neighbours.look() == neighbours


async def at_rest(of_four: Four) -> Figures:
    """Give the figures once the connections of clients are closed: they are descriptors too."""
    found = await asyncio.to_thread(figures, of_four)
    async with asyncio.timeout(20):
        while True:
            await asyncio.sleep(0.5)
            again = await asyncio.to_thread(figures, of_four)
            if again.descriptors == found.descriptors and again.connections == found.connections:
                return again
            found = again


async def test_sixty_four_clients_for_some_seconds(of_four: Four) -> None:
    await loaded(of_four, warm=SHORT_SECONDS / 3, seconds=SHORT_SECONDS * 2 / 3, factor=1.5)


@pytest.mark.long
@pytest.mark.timeout(int(MINUTES * 60 + 600))
async def test_sixty_four_clients_for_half_an_hour(of_four: Four) -> None:
    await loaded(of_four, warm=WARM_SECONDS, seconds=MINUTES * 60 - WARM_SECONDS, factor=1.1)
