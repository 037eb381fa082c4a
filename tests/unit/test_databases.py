"""The database resource: what is live, what was last seen, what stays the same."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent import databases
from agent.state.file import StateFile
from engines.engine import Description
from engines.errors import EngineUnavailable, PrivilegeMissing
from tests.contract.decoders import go_database
from tests.fakes.driver import STARTED, FakeServer, Gate
from tests.fakes.service import Valet, running, until

ONE = "/api/databases/ad-one"


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running() as valet:
        await until(lambda: valet.database().up and valet.database("ad-two").up)
        yield valet


def grown_old(valet: Valet, database_id: str = "ad-one") -> None:
    """Let what was last seen be too old to be shown again."""
    valet.database(database_id)._seen_at -= databases.FRESH_SECONDS


async def shown(valet: Valet, database_id: str = "ad-one") -> dict[str, Any]:
    return go_database(await valet.ask("GET", f"/api/databases/{database_id}"))


def described(valet: Valet) -> Description:
    description = valet.server().description
    assert isinstance(description, Description)
    return description


async def test_a_database_shows_the_live_engine_and_the_configuration(valet: Valet):
    database = await shown(valet)

    assert database["id"] == "ad-one"
    assert database["status"] == "running"
    assert database["readable_version"] == "1.2.0"
    assert database["features"] == [{"name": "shiny", "status": "ACTIVATED"}]
    assert database["mongo_repl_set_name"] == "rs0"
    assert (database["app_name"], database["plan"], database["encryption_at_rest"]) == ("app", "self-hosted", False)
    assert (database["type_name"], database["hostname"]) == ("fake", "db.example")
    (instance,) = database["instances"]
    assert (instance["hostname"], instance["port"], instance["status"]) == ("db.example", 1234, "running")
    assert (instance["type"], instance["private_ip"]) == ("db-node", None)


async def test_no_secret_is_shown(valet: Valet):
    text = (await valet.ask("GET", "/api/databases")).text
    assert "planted" not in text
    assert "valet:" not in text


async def test_the_list_holds_the_databases_in_scope_as_they_are_declared(valet: Valet):
    async def ids(token: str) -> list[str]:
        return [each["id"] for each in (await valet.ask("GET", "/api/databases", token)).json()["databases"]]

    assert await ids("reader") == ["ad-one", "ad-two"]
    assert await ids("of-two") == ["ad-two"]


async def test_ids_are_the_same_at_every_start(valet: Valet):
    before = await shown(valet)
    async with running() as again:
        after = await shown(again)
    for field in ("type_id", "version_id", "instances"):
        assert before[field] == after[field]
    assert len({before["type_id"], before["version_id"], before["instances"][0]["id"]}) == 3


async def test_a_new_version_has_another_version_id(valet: Valet):
    before = (await shown(valet))["version_id"]
    valet.server().description = replace(described(valet), readable_version="1.3.0")
    grown_old(valet)

    after = await shown(valet)
    assert after["readable_version"] == "1.3.0"
    assert after["version_id"] != before


async def test_a_look_is_shared_by_those_who_ask_at_once(valet: Valet):
    grown_old(valet)
    before = valet.server().described
    gate = valet.server().describe_gate = Gate()
    asked = [asyncio.create_task(shown(valet)) for _ in range(20)]
    await until(lambda: gate.waiting)
    gate.open.set()

    assert {each["status"] for each in await asyncio.gather(*asked)} == {"running"}
    assert valet.server().described == before + 1


async def test_what_was_seen_in_the_last_seconds_is_shown_again(valet: Valet):
    before = valet.server().described
    for _ in range(5):
        await shown(valet)
    assert valet.server().described == before
    grown_old(valet)
    await shown(valet)
    assert valet.server().described == before + 1


async def test_the_age_counts_from_the_beginning_of_a_look(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(databases, "FRESH_SECONDS", 0.2)
    before = valet.server().described
    gate = valet.server().describe_gate = Gate()
    await asyncio.sleep(0.2)
    asked = asyncio.create_task(shown(valet))
    await until(lambda: gate.waiting)
    await asyncio.sleep(0.25)
    gate.open.set()
    await asked
    await shown(valet)

    assert valet.server().described >= before + 2


@pytest.mark.parametrize("problem", [EngineUnavailable("nobody there"), RuntimeError("planted-bug")])
async def test_an_engine_that_is_down_is_stopped_and_the_rest_is_as_last_known(valet: Valet, problem: Exception):
    before = await shown(valet)
    valet.server().description = problem
    grown_old(valet)
    after = await shown(valet)

    assert after["status"] == "stopped"
    assert after["instances"][0]["status"] == "stopped"
    assert {**after, "status": "", "instances": []} == {**before, "status": "", "instances": []}


async def test_it_runs_again_when_the_engine_is_back(valet: Valet):
    description = described(valet)
    valet.server().description = EngineUnavailable("nobody there")
    grown_old(valet)
    assert (await shown(valet))["status"] == "stopped"
    valet.server().description = description
    grown_old(valet)
    assert (await shown(valet))["status"] == "running"

    told = [(line["event"], line["reason"]) for line in valet.lines() if line["database"] == "ad-one"]
    assert told == [("engine_up", None), ("engine_down", "nobody there"), ("engine_up", None)]


async def test_an_engine_that_stays_down_is_told_once(valet: Valet):
    valet.server().description = EngineUnavailable("nobody there")
    for _ in range(3):
        grown_old(valet)
        await shown(valet)
    assert len(valet.lines("engine_down")) == 1


async def test_an_engine_that_hangs_is_stopped_after_a_bounded_time(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(databases, "LOOK_SECONDS", 0.05)
    valet.server().describe_gate = Gate()
    grown_old(valet)
    began = asyncio.get_running_loop().time()
    database = await shown(valet)

    assert database["status"] == "stopped"
    assert database["readable_version"] == "1.2.0"
    assert asyncio.get_running_loop().time() - began < 1.5
    assert valet.database().down_reason == "The engine does not answer."


async def test_a_hanging_engine_delays_no_other_database(valet: Valet):
    valet.server().describe_gate = valet.server().gate = Gate()
    grown_old(valet)
    asked = asyncio.create_task(shown(valet))
    async with asyncio.timeout(5):
        assert (await shown(valet, "ad-two"))["status"] == "running"
        assert (await valet.act("list-things", database="ad-two")).status_code == 200
    asked.cancel()


async def test_an_engine_that_was_never_reached_shows_what_is_configured():
    async with running() as valet:
        for each in ("ad-one", "ad-two"):
            valet.server(each).description = EngineUnavailable("nobody there")
        database = await shown(valet)

        assert (database["status"], database["readable_version"], database["features"]) == ("stopped", None, [])
        assert (database["resource_id"], database["created_at"]) == ("ad-one", None)


async def test_a_bug_in_an_engine_does_not_end_its_watch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(databases, "FRESH_SECONDS", 0.02)
    async with running() as valet:
        server = valet.server()
        sound = described(valet)
        server.description = RuntimeError("planted-bug")
        await until(lambda: server.described > 3)
        assert valet.database().up is False
        assert "planted-bug" in valet.lines("bug")[0]["exception"]
        server.description = sound
        await until(lambda: valet.database().up)


async def test_the_watch_notices_by_itself_that_an_engine_went_and_came(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(databases, "FRESH_SECONDS", 0.02)
    async with running() as valet:
        sound = described(valet)
        await until(lambda: valet.database().up)
        valet.server().description = EngineUnavailable("nobody there")
        await until(lambda: valet.database().up is False)
        valet.server().description = sound
        await until(lambda: valet.database().up)


# What a server forgets when it restarts.


async def test_a_server_gets_back_what_it_forgets_when_it_is_first_seen(valet: Valet):
    assert valet.server().put_back == [described(valet)]


async def test_a_restart_is_noticed(valet: Valet):
    restarted = replace(described(valet), started_at=STARTED + timedelta(minutes=1))
    valet.server().description = restarted
    for _ in range(3):
        grown_old(valet)
        await shown(valet)

    assert valet.server().put_back[1:] == [restarted]


@pytest.mark.parametrize("seconds", [-3, -1, 0, 1, 3])
async def test_a_start_that_is_reckoned_a_little_differently_is_no_restart(valet: Valet, seconds: int):
    valet.server().description = replace(described(valet), started_at=STARTED + timedelta(seconds=seconds))
    grown_old(valet)
    await shown(valet)

    assert len(valet.server().put_back) == 1


async def test_a_server_that_goes_and_comes_without_a_restart_gets_nothing_back(valet: Valet):
    description = described(valet)
    for each in (EngineUnavailable(), description):
        valet.server().description = each
        grown_old(valet)
        await shown(valet)
    assert len(valet.server().put_back) == 1


@pytest.mark.parametrize("problem", [PrivilegeMissing("it may not"), RuntimeError("planted-bug")])
async def test_what_cannot_be_put_back_is_tried_again_while_the_server_counts_as_running(
    valet: Valet, problem: Exception
):
    server = valet.server()
    server.put_back_problem = problem
    server.description = replace(described(valet), started_at=STARTED + timedelta(minutes=1))
    for _ in range(2):
        grown_old(valet)
        assert (await shown(valet))["status"] == "running"
    assert len(server.put_back) == 1
    server.put_back_problem = None
    grown_old(valet)
    await shown(valet)

    assert len(server.put_back) == 2
    if isinstance(problem, PrivilegeMissing):
        assert [line["reason"] for line in valet.lines("not_put_back")] == ["it may not"]
    else:
        assert "planted-bug" in valet.lines("bug")[0]["exception"]


async def test_putting_back_is_bounded_on_an_engine_that_hangs(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(databases, "LOOK_SECONDS", 0.05)
    valet.server().put_back_gate = Gate()
    valet.server().description = replace(described(valet), started_at=STARTED + timedelta(minutes=1))
    grown_old(valet)
    async with asyncio.timeout(2):
        assert (await shown(valet))["status"] == "running"
    assert [line["reason"] for line in valet.lines("not_put_back")] == ["The engine does not answer."]


async def test_a_state_that_keeps_a_server_from_being_put_back_is_named(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    async def recall(*_: Any) -> None:
        await valet.service.state.memory_of("ad-one").recall("mode")

    monkeypatch.setattr(databases, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(valet.server(), "restarted", recall)
    monkeypatch.setattr(StateFile, "recall", lambda *_: time.sleep(2))
    valet.server().description = replace(described(valet), started_at=STARTED + timedelta(minutes=1))
    grown_old(valet)
    await valet.database().look()
    assert [line["reason"] for line in valet.lines("not_put_back")] == ["The state does not answer."]


# What is found once and stays the same.


async def test_the_identity_comes_from_the_engine_and_outlives_it(valet: Valet):
    before = await shown(valet)
    assert before["resource_id"] == "system-1"
    assert datetime.fromisoformat(before["created_at"]) == STARTED
    valet.server().description = replace(
        described(valet), resource_id="system-2", created_at=STARTED + timedelta(days=1)
    )
    grown_old(valet)

    after = await shown(valet)
    assert (after["resource_id"], after["created_at"]) == (before["resource_id"], before["created_at"])


async def test_the_identity_survives_a_restart_of_dbvalet(tmp_path_factory: pytest.TempPathFactory):
    state = f"sqlite:///{tmp_path_factory.mktemp('state')}/state.db"
    seen: list[tuple[str, str]] = []
    for resource_id in ("system-1", "system-2"):
        async with running(state=state) as valet:
            valet.server().description = replace(
                described(valet), resource_id=resource_id, created_at=datetime.now(UTC)
            )
            database = await shown(valet)
            seen.append((database["resource_id"], database["created_at"]))
    assert seen[0] == seen[1]


async def test_an_engine_that_knows_nothing_of_its_birth_was_created_when_it_was_first_seen():
    async with running() as valet:
        server = valet.server()
        server.description = replace(described(valet), resource_id=None, created_at=None)
        database = await shown(valet)
        created = datetime.fromisoformat(database["created_at"])

        assert database["resource_id"] == "ad-one"
        assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)
        assert (await shown(valet))["created_at"] == database["created_at"]


async def test_an_identity_that_was_not_found_yet_is_looked_for_again():
    async with running() as valet:
        server = valet.server()
        sound = server.description
        server.description = EngineUnavailable("nobody there")
        assert (await shown(valet))["created_at"] is None
        server.description = sound
        grown_old(valet)
        assert (await shown(valet))["resource_id"] == "system-1"


@pytest.mark.parametrize("configured", [{"resource_id"}, {"created_at"}, {"resource_id", "created_at"}])
async def test_what_is_configured_of_the_identity_wins(configured: set[str]):
    values = {"resource_id": "mine", "created_at": "2020-02-29T12:00:00+02:00"}
    database = {"id": "ad-one", "url": "fake://u:p@h/d", **{name: values[name] for name in configured}}
    async with running(databases=[database], tokens=[TOKEN_OF_ALL]) as valet:
        found = await shown(valet)

        assert found["resource_id"] == ("mine" if "resource_id" in configured else "system-1")
        expected = datetime.fromisoformat(values["created_at"]) if "created_at" in configured else STARTED
        assert datetime.fromisoformat(found["created_at"]) == expected


TOKEN_OF_ALL = {"name": "admin", "token": "token-of-the-admin-0123456789", "role": "admin", "databases": ["*"]}


async def test_a_state_that_cannot_be_written_hides_no_database():
    async with running(state="sqlite:////proc/nowhere/state.db") as valet:
        for _ in range(3):
            assert (await shown(valet))["resource_id"] == "system-1"

        (line,) = valet.lines("identity_not_kept")
        assert (line["database"], line["level"]) == ("ad-one", "warning")
        assert line["reason"].startswith("The state file /proc/nowhere/state.db cannot be written: ")


# The end.


async def test_the_end_closes_every_server():
    async with running() as valet:
        servers = [valet.server("ad-one"), valet.server("ad-two")]
    assert [server.closed for server in servers] == [True, True]


async def test_the_end_is_bounded_when_engines_hang(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(databases, "CLOSE_SECONDS", 0.1)
    before = asyncio.all_tasks()
    loop = asyncio.get_running_loop()
    async with running() as valet:
        hanging, other = valet.server("ad-one"), valet.server("ad-two")
        hanging.describe_gate = hanging.close_gate = Gate()
        valet.database()._seen_at -= databases.FRESH_SECONDS
        looking = asyncio.create_task(valet.database().look())
        await until(lambda: hanging.describe_gate and hanging.describe_gate.waiting)
        began = loop.time()
    assert loop.time() - began < 5
    assert (hanging.closed, other.closed) == (False, True)
    (line,) = valet.lines("not_closed")
    assert (line["database"], line["reason"]) == ("ad-one", "The engine does not answer.")
    await asyncio.wait([looking])
    await until(lambda: not asyncio.all_tasks() - before)


async def test_the_end_goes_on_when_a_server_cannot_be_closed():
    async with running() as valet:
        valet.server("ad-one").close_problem = RuntimeError("planted-bug")
        other: FakeServer = valet.server("ad-two")
    assert other.closed
    (line,) = valet.lines("not_closed")
    assert (line["database"], line["reason"]) == ("ad-one", "planted-bug")


async def test_a_service_that_was_never_looked_at_can_be_closed():
    async with running() as valet:
        await valet.service.databases.close()
    assert valet.lines("not_closed") == []
