"""Hostile names and params over HTTP: no effect beyond what a request names. With `--long` 100,000, else a share."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pymysql
import pytest

from tests.live.catalogues import CATALOGUES, TAKE_AWAY
from tests.live.four import IDS, Four, bearer, four
from tests.live.hostile_names import SEED
from tests.live.hostile_requests import Attacker, HostileRequest
from tests.live.servers import LiveServer

pytestmark = [pytest.mark.newest_version]

SYSTEM = (
    "mysql",
    "sys",
    "information_schema",
    "performance_schema",
    "admin",
    "local",
    "config",
    "_internal",
    "postgres",
)
POSSIBLE = {200, 201, 204, 400, 401, 403, 404, 405, 409, 413, 422}
"""Statuses of answers to such a request: never 5xx."""

COUNT = int(os.environ.get("HOSTILE_REQUESTS", "100000"))
"""Of the long run; a multiple of four."""

BATCH = 1_000


class Attack:
    """What is sent to one engine, and what its server must look like afterwards."""

    def __init__(self, engine: str, of_four: Four) -> None:
        self.engine, self._four = engine, of_four
        self._live, self._own = of_four.lives[engine], of_four.names[engine]
        self._kept = [self._own, of_four.neighbours.name]
        known = (*self._kept, *SYSTEM, "app", "root", "autogen", "kept")
        pids = (*of_four.neighbours.sessions()[0], 1, 2**31 - 1) if engine == "postgresql" else ()
        self._attacker = Attacker(engine, SEED, known, pids)
        self._before = self._look()
        self._made: tuple[set[str], set[str]] = (set(), set())
        self._default: list[str] = self._before.get("default", [])
        """Of InfluxDB's policies: one that is made may be made the default, and takes that with it when it goes."""
        self.statuses = Counter[int]()
        self.effects = Counter[str]()

    def _look(self) -> dict[str, Any]:
        return CATALOGUES[self.engine](self._live, self._own, self._kept)

    def run(self, count: int) -> None:
        host = self._four.running.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=60)
        for number in range(1, count + 1):
            request = self._attacker.next()
            status = send(connection, request)
            assert status in POSSIBLE, (SEED, status, request)
            self.statuses[status] += 1
            if status in (200, 201, 204):
                self._note(request)
            if number % BATCH == 0 or number == count:
                self._compare()
        connection.close()

    def _note(self, request: HostileRequest) -> None:
        """Work out what a request that was answered well has named."""
        databases, users = self._made
        if request.path == f"/api/databases/{IDS[self.engine]}/action":
            body: Any = json.loads(request.body or b"")
            self.effects[body["action_name"]] += 1
            params: Any = body.get("params")
            if body.get("dry_run") or not isinstance(params, dict):
                return
            name: Any = params.get("database_name", params.get("name"))  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            if body["action_name"] in ("create-database", "add-retention-policy"):
                databases.add(name)
                self._default = [name] if params.get("default") is True else self._default
            elif body["action_name"] in ("delete-database", "del-retention-policy"):
                # What it had not made itself must be refused.
                databases.remove(name)
                self._default = [each for each in self._default if each != name]
            elif body["action_name"] == "reset-database":
                assert name in databases, (SEED, request)
        elif "/users" in request.path and request.method != "GET":
            self.effects[f"{request.method} users"] += 1
            if request.method == "POST" and request.path.endswith("/users"):
                users.add(json.loads(request.body or b"")["database_user"]["name"])
            else:
                name = unquote(request.path.removesuffix("/reset_password").rpartition("/")[2])
                assert name in users, (SEED, request)
                if request.method == "DELETE":
                    users.remove(name)

    def _compare(self) -> None:
        databases, users = self._made
        self._put_mode_back()
        there = self._look()
        assert there["databases"] == self._before["databases"] | databases, SEED
        assert there["users"] == self._before["users"] | users, SEED
        assert there.get("default", []) == self._default, SEED
        TAKE_AWAY[self.engine](self._live, self._own, databases, users)
        databases.clear()
        users.clear()
        self._default = self._before.get("default", [])
        assert self._look() == self._before, SEED

    def _put_mode_back(self) -> None:
        """`set-sqlmode` names no object: its effect is the mode."""
        if self.engine != "mysql":
            return
        live = self._live
        with (
            pymysql.connect(host=live.host, port=live.port, user=live.admin, password=live.password) as admin,
            admin.cursor() as cursor,
        ):
            cursor.execute("RESET PERSIST IF EXISTS sql_mode" if live.flavour == "mysql" else "SELECT 1")
            cursor.execute("SET GLOBAL sql_mode = %s", self._before["mode"][0])


def send(connection: http.client.HTTPConnection, request: HostileRequest) -> int:
    headers = {**bearer("admin"), "Content-Type": "application/json"}
    for _ in range(3):
        connection.request(request.method, request.path, request.body, headers)
        answer = connection.getresponse()
        body = answer.read()
        assert body or answer.status == 204
        failure = json.loads(body) if answer.status >= 400 else {"code": "ok"}
        assert failure["code"]
        # On a busy disk the state may be too slow: then nothing was begun, and it may be asked again.
        if answer.status != 503 or not failure["error"].startswith("Nothing was"):
            return answer.status
        time.sleep(float(answer.headers["Retry-After"]))
    pytest.fail(f"{SEED}: {request} was put off again and again")


@pytest.fixture
def of_four(
    postgresql: LiveServer, mysql: LiveServer, mongodb: LiveServer, influxdb: LiveServer, tmp_path: Path
) -> Iterator[Four]:
    lives = {"postgresql": postgresql, "mysql": mysql, "mongodb": mongodb, "influxdb": influxdb}
    with four(lives, tmp_path) as made, made.client() as client:
        body = {"action_name": "pg-stat-statements-enable"}
        assert client.post(f"/api/databases/{IDS['postgresql']}/action", json=body).status_code == 200
        yield made


def attacked(of_four: Four, count: int) -> None:
    """Send so many requests, to all four engines at once."""
    print(f"TEST_SEED={SEED}")
    sessions = of_four.neighbours.sessions()
    attacks = [Attack(engine, of_four) for engine in IDS]
    with ThreadPoolExecutor(len(attacks)) as pool:
        for ended in [pool.submit(attack.run, count // len(attacks)) for attack in attacks]:
            ended.result()
    for attack in attacks:
        print(attack.engine, attack.statuses, attack.effects)
    assert of_four.neighbours.sessions() == sessions
    assert of_four.running.process.poll() is None
    assert sum(attack.statuses.total() for attack in attacks) == count
    done = set[str]().union(*(attack.effects for attack in attacks))
    assert done >= {"create-database", "add-retention-policy"}


def test_no_hostile_request_has_an_effect_beyond_what_it_names(of_four: Four) -> None:
    attacked(of_four, 1_200)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_no_effect_of_a_hundred_thousand_hostile_requests_beyond_what_they_name(of_four: Four) -> None:
    attacked(of_four, COUNT)
