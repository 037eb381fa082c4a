"""Backup before destroy on live servers: what was destroyed comes back, and the deployment's own data stay."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pymongo
import pytest

from tests.live.accounts import USER, account_on
from tests.live.servers import LiveServer
from tests.live.test_backup_routes import MADE, ONE, Content, Influx, Valet, prepared
from tests.unit.running import TOKEN

pytestmark = [pytest.mark.newest_version, pytest.mark.timeout(240)]

SAFE = [{"name": "safe", "token": TOKEN, "role": "admin", "databases": ["*"], "backup_before_destroy": True}]


@contextmanager
def two_databases(live: LiveServer, folder: Path) -> Iterator[tuple[Valet, Content, str, Content]]:
    """Serve one logical database that is filled, with another one, filled too, beside it."""
    other_name = f"other_{time.time_ns()}"
    with prepared(live, folder, tokens=SAFE) as (valet, own), MADE[live.engine](live, other_name) as (_, other):
        other.fill()
        # The account is the same one; its url is that of the other database, and of no use here.
        yield valet, own, other_name, other


def let_it_back_up(live: LiveServer, name: str) -> None:
    """Give the account what the refusal names."""
    if live.engine == "mysql":
        account_on(live, name, parts=("backups", "restores"))
        return
    with pymongo.MongoClient[dict[str, Any]](live.url()) as client:
        roles = [{"role": role, "db": name} for role in ("readWrite", "dbAdmin")]
        client.admin.command("grantRolesToUser", USER, roles=roles)


def act(valet: Valet, name: str, params: Any) -> httpx.Response:
    ends_at = time.monotonic() + 120
    while True:
        answer = valet.client.post(f"{ONE}/action", json={"action_name": name, "params": params})
        if answer.json().get("code") != "in_progress":
            return answer
        assert time.monotonic() < ends_at
        time.sleep(float(answer.headers["Retry-After"]))


def bring_back(valet: Valet, backup: dict[str, Any]) -> dict[str, Any]:
    begun = valet.post(f"{ONE}/backups/{backup['id']}/restore")
    ended = valet.ended(begun["operation_id"])
    assert (ended["status"], ended["error"]) == ("finished", None), ended
    return begun


DESTROYING = pytest.mark.parametrize(
    "action", ["delete-database", pytest.param("reset-database", marks=pytest.mark.long)]
)


@DESTROYING
def test_another_logical_database_of_mysql_that_was_destroyed_comes_back(
    mysql: LiveServer, action: str, tmp_path: Path
) -> None:
    destroyed_and_brought_back(mysql, action, tmp_path)


@DESTROYING
def test_another_logical_database_of_mongodb_that_was_destroyed_comes_back(
    mongodb: LiveServer, action: str, tmp_path: Path
) -> None:
    destroyed_and_brought_back(mongodb, action, tmp_path)


def destroyed_and_brought_back(live: LiveServer, action: str, tmp_path: Path) -> None:
    with two_databases(live, tmp_path) as (valet, own, name, other), valet.serving():
        own_before, before = own.look(), other.look()
        refused = act(valet, action, {"database_name": name})
        assert (refused.status_code, refused.json()["code"]) == (409, "precondition"), refused.text
        assert name in refused.json()["error"]
        assert ("GRANT" if live.engine == "mysql" else "grant") in refused.json()["error"]
        assert other.look() == before

        let_it_back_up(live, name)
        done = act(valet, action, {"database_name": name})
        assert done.status_code == 200, done.text
        backup = done.json()["backup"]
        assert backup["logical_database"] == name
        listed = act(valet, "list-databases", None).json()["result"]
        assert (name in [each["name"] for each in listed]) == (action == "reset-database")

        begun = bring_back(valet, backup)
        assert other.look() == before
        assert own.look() == own_before
        # The restore was safe too.
        assert valet.get(f"/api/backups/{begun['safety_backup_id']}", "database_backup")["logical_database"] == name


def test_a_policy_that_was_removed_comes_back(influxdb: LiveServer, tmp_path: Path) -> None:
    with prepared(influxdb, tmp_path, tokens=SAFE) as (valet, content), valet.serving():
        assert isinstance(content, Influx)
        before = content.look()
        done = act(valet, "del-retention-policy", {"name": "month"})
        assert done.status_code == 200, done.text
        assert done.json()["backup"]["logical_database"] is None
        assert content.look() != before
        bring_back(valet, done.json()["backup"])
        assert content.look() == before


def test_a_restore_can_be_taken_back(postgresql: LiveServer, tmp_path: Path) -> None:
    with prepared(postgresql, tmp_path, tokens=SAFE) as (valet, content), valet.serving():
        first = valet.back_up()
        content.spoil()
        spoilt = spoilt_state(valet)
        begun = bring_back(valet, first)
        assert spoilt_state(valet) != spoilt
        back = valet.get(f"/api/backups/{begun['safety_backup_id']}", "database_backup")
        assert back["status"] == "done"
        bring_back(valet, back)
        assert spoilt_state(valet) == spoilt


def spoilt_state(valet: Valet) -> Any:
    import psycopg

    with psycopg.connect(valet.url, autocommit=True) as session:
        tables = b"SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
        return session.execute(tables).fetchall(), session.execute(b"SELECT min(text), count(*) FROM kept").fetchall()
