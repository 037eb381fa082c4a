"""A state that several dbvalets share: a PostgreSQL."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import sql
from sqlalchemy import Connection, event, text

from agent import once, scheduler
from agent.audit import record
from agent.audit.journal import pages
from agent.audit.line import Check, Row
from agent.errors import SettingsError
from agent.operations import keeper, runner
from agent.pitr import record as past
from agent.state import connection, database
from agent.state.state import DatabaseMemory, State
from agent.state.tables import metadata
from engines.errors import Precondition
from engines.recovery import Marker, Timeline
from tests.fakes.driver import Gate
from tests.fakes.kinds import FakeKind
from tests.fakes.service import URL, Valet, running, until
from tests.live.servers import LiveServer

# What dbvalet does around the engine's own tools does not differ between versions.
pytestmark = pytest.mark.newest_version

ONE = "/api/databases/ad-one"


@pytest.fixture
def state(postgresql: LiveServer) -> Iterator[str]:
    """A URL of a fresh logical database."""
    name = f"state_{token_hex(4)}"
    with psycopg.connect(postgresql.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield postgresql.url(database=name)


async def test_those_that_start_at_once_make_the_tables_once(state: str):
    with ThreadPoolExecutor(4) as threads:
        states = list(threads.map(State, [state] * 4))

    found = await states[0].run(lambda connection: compare_metadata(MigrationContext.configure(connection), metadata))
    for each in states:
        each.close()
    assert found == []


async def test_the_state_of_a_newer_dbvalet_ends_the_start(state: str):
    first = State(state)
    await first.run(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '0999'")))
    first.close()
    with pytest.raises(SettingsError, match=r"^state: it was written by a newer dbvalet \(schema 999, known \d+\)$"):
        State(state)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE alembic_version SET version_num = 'ae1027a6acf'", "ae1027a6acf"),
        ("DELETE FROM alembic_version", "empty"),
    ],
)
async def test_the_database_of_another_application_ends_the_start_and_is_named(state: str, statement: str, found: str):
    first = State(state)
    await first.run(lambda connection: connection.execute(text(statement)))
    first.close()
    with pytest.raises(SettingsError, match=rf"^state: .* of another application \(alembic_version: {found}\)"):
        State(state)


def one_more(number: int | None) -> int:
    return (number or 0) + 1


async def test_values_are_shared(state: str):
    states = [State(state) for _ in range(3)]
    kept = await asyncio.gather(*(each.memory_of("").keep_first("key", number) for number, each in enumerate(states)))
    assert len(set(kept)) == 1
    await states[0].memory_of("ad-one").remember("sql_mode", {"a": "ż"})
    await states[1].memory_of("ad-one").remember("sql_mode", {"a": "b"})
    assert await states[2].memory_of("ad-one").recall("sql_mode") == {"a": "b"}
    assert await states[2].memory_of("ad-two").recall("sql_mode") is None
    await asyncio.gather(*(each.memory_of("").change("number", one_more) for each in states for _ in range(5)))
    assert await states[0].memory_of("").recall("number") == 15
    for each in states:
        each.close()


async def test_a_value_that_is_changed_is_not_changed_from_one_that_was_replaced_meanwhile(state: str):
    """As `rotate-keys --at-once` replaces the keys that a dbvalet is about to add one to."""
    changing, keeping = State(state), State(state)
    read, replaced = threading.Event(), threading.Event()

    def one_added(keys: list[int] | None) -> list[int]:
        read.set()
        replaced.wait(1)
        return [*(keys or []), 1]

    async def while_changed(key: str, keep: Callable[[DatabaseMemory], Awaitable[Any]]) -> Any:
        read.clear()
        replaced.clear()
        changed = asyncio.create_task(changing.memory_of("").change(key, one_added))
        await asyncio.to_thread(read.wait)
        told = await keep(keeping.memory_of(""))
        replaced.set()
        await changed
        return told

    await while_changed("replaced", lambda memory: memory.remember("replaced", [7]))
    assert await keeping.memory_of("").recall("replaced") == [7]
    assert await while_changed("first", lambda memory: memory.keep_first("first", [7])) == [1]
    for each in (changing, keeping):
        each.close()


@pytest.mark.parametrize(("chosen", "kept"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
async def test_a_server_that_acknowledges_before_the_disk_has_it_does_not_do_so_to_dbvalet(
    state: str, chosen: str, kept: str
):
    with psycopg.connect(state, autocommit=True) as admin:
        name = sql.Identifier(admin.info.dbname)
        admin.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = {}").format(name, chosen))
    one = State(state)

    def level(connection: Connection) -> str:
        return connection.execute(text("SHOW synchronous_commit")).scalar_one()

    assert [await each(level) for each in (one.run, one.run_soon_durable, one.run)] == [kept, "off", kept]
    one.close()


async def test_what_is_answered_while_another_one_takes_it_for_silent_is_not_done_again(
    state: str, monkeypatch: pytest.MonkeyPatch
):
    async with running(state=state) as first, running(state=state) as other:
        gate = first.server().gate = Gate()
        body = {"action_name": "add-thing", "params": {"name": "one"}}
        asked = {"json": body, "headers": {"Idempotency-Key": "key-1"}}
        late = asyncio.create_task(first.ask("POST", f"{ONE}/action", **asked))
        await until(lambda: gate.waiting)
        loop = asyncio.get_running_loop()

        async def answered() -> None:
            gate.open.set()
            await late

        def lives(*_: Any) -> bool:
            asyncio.run_coroutine_threadsafe(answered(), loop).result(10)
            return False

        with monkeypatch.context() as patched:
            patched.setattr(once.Once, "_lives", lives)
            refused = await other.ask("POST", f"{ONE}/action", **asked)
        assert (refused.status_code, refused.json()["code"]) == (409, "in_progress")
        again = await other.ask("POST", f"{ONE}/action", **asked)
        assert (again.content, again.headers["Idempotent-Replayed"]) == ((await late).content, "true")
        assert other.server().performed == []


async def test_only_what_may_wait_for_a_later_sync_does_so(state: str):
    one = State(state)

    def level(connection: Connection) -> str:
        return connection.execute(text("SHOW synchronous_commit")).scalar_one()

    assert [await each(level) for each in (one.run, one.run_soon_durable, one.run)] == ["on", "off", "on"]
    one.close()


async def test_a_write_with_a_key_waits_for_one_commit_and_what_destroys_for_two(state: str):
    async with running(state=state) as valet:
        told: list[str] = []
        event.listen(valet.service.state._opened(), "before_cursor_execute", lambda *given: told.append(given[2]))
        for name, later in (("add-thing", 1), ("drop-thing", 0)):
            told.clear()
            body = {"action_name": name, "params": {"name": "second"}}
            for replayed in (None, "true"):
                answer = await valet.ask("POST", f"{ONE}/action", json=body, headers={"Idempotency-Key": name})
                assert (answer.status_code, answer.headers.get("Idempotent-Replayed")) == (200, replayed)
            assert told.count("SET LOCAL synchronous_commit = off") == later


async def test_what_one_has_backed_up_is_named_by_who_takes_its_request_over(
    state: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    safe = [{"id": "ad-one", "url": URL, "backup_before_destroy": True}, {"id": "ad-two", "url": URL}]
    places = {"storage": f"file://{tmp_path}/kept", "spool": f"{tmp_path}/spool"}

    async def drop(valet: Valet) -> httpx.Response:
        body = {"action_name": "drop-thing", "params": {"name": "second"}}
        return await valet.ask("POST", f"{ONE}/action", json=body, headers={"Idempotency-Key": "k"})

    async with (
        running(state=state, databases=safe, backups=places) as first,
        running(state=state, databases=safe, backups=places) as other,
    ):
        first.server().things["second"] = "red"
        gate = first.server().gates["drop-thing second"] = Gate()
        late = asyncio.create_task(drop(first))
        await until(lambda: gate.waiting)
        with monkeypatch.context() as patched:
            patched.setattr(once, "SILENT", timedelta(seconds=-1))
            done = (await drop(other)).json()  # there is no such thing any more on the server that it sees
        (made,) = (await other.ask("GET", f"{ONE}/backups")).json()["database_backups"]
        assert done == {
            "ok": 1,
            "result": None,
            "backup": {"id": made["id"], "name": made["name"], "logical_database": None},
        }
        gate.open.set()
        assert (await late).json()["error"] == f"{once.TAKEN_OVER} Backed up before: {made['name']} ({made['id']})."


async def test_an_operation_runs_once_and_is_taken_over_when_its_dbvalet_dies(
    state: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.05)
    for name, seconds in {"LOOK_SECONDS": 0.05, "ABANDONED_SECONDS": 1.0}.items():
        monkeypatch.setattr(runner, name, seconds)
    kind = FakeKind()
    kind.gate = Gate()
    async with running(state=state) as first, running(state=state) as second:
        for each in (first, second):
            each.service.operations.kinds["fake"] = kind
        operation = await first.service.operations.begin(first.database(), "fake", {}, "admin")
        assert (await second.ask("POST", f"{ONE}/backups")).status_code == 409
        await until(lambda: kind.ran)
        operations = first.service.operations

        async def nothing(*_: Any) -> None:
            return

        monkeypatch.setattr(operations._keeper, "_leave", nothing)
        assert operations._watcher is not None
        operations._watcher.cancel()
        operations._working[operation.id].cancel()
        await until(lambda: kind.recovered, 20)
        await until(lambda: second.lines("operation_ended"))

        found = (await second.ask("GET", f"{ONE}/operations/{operation.id}")).json()["operation"]
        assert (found["status"], kind.recovered) == ("finished", [operation.id])


async def test_a_periodic_backup_is_made_once_and_downloaded_anywhere(
    state: str, monkeypatch: pytest.MonkeyPatch, tmp_path
):
    monkeypatch.setattr(scheduler, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)
    shared: dict[str, Any] = {
        "state": state,
        "backups": {"storage": f"file://{tmp_path}/kept", "spool": f"{tmp_path}/spool"},
    }
    async with running(**shared) as first, running(**shared) as second, running(**shared) as third:
        hours = {"periodic_backups_enabled": True, "periodic_backups_scheduled_at": list(range(24))}
        assert (await first.ask("PATCH", ONE, json={"database": hours})).status_code == 200
        await first.service.state.run(
            lambda connection: connection.execute(text("UPDATE database_settings SET scheduled_since = '2020-01-01Z'"))
        )
        valets: list[Valet] = [first, second, third]
        await until(lambda: [line for valet in valets for line in valet.lines("operation_ended")])
        await asyncio.sleep(0.5)
        made = (await third.ask("GET", f"{ONE}/backups")).json()["database_backups"]
        assert [each["status"] for each in made] == ["done"]
        url = (await first.ask("GET", f"{ONE}/backups/{made[0]['id']}/archive")).json()["download_url"]
        for valet in valets:
            assert len((await valet.client.get(url)).content) == made[0]["size"]
            assert valet.lines("bug") == []


async def test_two_that_write_the_same_timelines_and_markers_down_at_once_are_both_heard(state: str):
    now = datetime(2026, 1, 31, tzinfo=UTC)
    marks = [
        Marker(committed_at=now + timedelta(seconds=number), timeline=1, lsn="0/1", archived=False)
        for number in range(20)
    ]
    first = Timeline(number=1, parent=None, forked_at_lsn=None, began_at=now, ended_at=None)
    states = [State(state) for _ in range(3)]

    def write(connection: Connection, number: int) -> None:
        past.keep_timeline(connection, "ad-one", str(number), first)
        past.keep_markers(connection, f"ad-{number}", marks)

    for number in range(20):
        await asyncio.gather(*(each.run(lambda connection, n=number: write(connection, n)) for each in states))
        assert await states[0].run(lambda connection, n=number: past.markers_of(connection, f"ad-{n}")) == marks
        assert await states[0].run(lambda connection, n=number: past.timelines_of(connection, "ad-one", str(n))) == [
            first
        ]
    for each in states:
        each.close()


async def test_many_writers_make_one_audit(state: str):
    async with running(state=state) as first, running(state=state) as second:
        asked = [each.act("add-thing", {"name": f"thing {number}"}) for number in range(25) for each in (first, second)]
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
        check = Check()
        async for page in pages(first.service.state, None, 20):
            check.follow_page(page)
        assert check.head.sequence == 50


async def test_a_line_that_is_written_while_the_audit_is_read_is_no_tampering(
    state: str, monkeypatch: pytest.MonkeyPatch
):
    async with running(state=state) as reading, running(state=state) as writing:
        for number in range(3):
            await writing.act("add-thing", {"name": f"thing {number}"})
        loop, really = asyncio.get_running_loop(), record.page

        def after_one_more(connection: Connection, **asked: Any) -> list[Row]:
            more = asyncio.run_coroutine_threadsafe(writing.act("set-mode", "FAST"), loop)
            assert more.result(10).status_code == 200
            return really(connection, **asked)

        monkeypatch.setattr(record, "page", after_one_more)
        check = Check()
        async for page in pages(reading.service.state, None, 20):
            check.follow_page(page)
        assert check.head.sequence == 3


async def refused_in_time(valet: Valet, name: str) -> None:
    began = time.monotonic()
    refused = await valet.act("add-thing", {"name": name})
    assert (refused.status_code, refused.json()["code"]) == (503, "state_unavailable")
    assert time.monotonic() - began < 25
    assert name not in valet.server().things


@pytest.mark.long
async def test_whoever_holds_the_end_of_the_audit_keeps_a_write_waiting_for_seconds(state: str):
    async with running(state=state) as valet:
        with psycopg.connect(state) as other:
            other.execute("SELECT * FROM audit_head FOR UPDATE")
            await refused_in_time(valet, "one")
            await asyncio.gather(*(refused_in_time(valet, f"thing {number}") for number in range(20)))
        assert (await valet.act("add-thing", {"name": "one"})).status_code == 200
        assert valet.lines("bug") == []


@pytest.mark.long
async def test_a_dbvalet_that_is_stopped_within_a_transaction_loses_it_to_the_others(state: str):
    stopped = State(state)

    def hold(session: Connection) -> None:
        record.head(session, lock=True)
        time.sleep(15)
        record.head(session)

    async with running(state=state) as valet:
        held = asyncio.create_task(stopped.run(hold))
        await asyncio.sleep(0.5)
        await refused_in_time(valet, "one")
        async with asyncio.timeout(20):
            while (await valet.act("add-thing", {"name": "one"})).status_code != 200:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.1)
        assert not held.done()
        with pytest.raises(Precondition, match="The state cannot be used"):
            await held
        assert (await stopped.run(record.head)).sequence == 1
    stopped.close()


@pytest.mark.long
async def test_a_frozen_state_refuses_writes_and_is_used_again_once_it_answers(state: str, postgresql: LiveServer):
    async with running(state=state) as valet:
        assert (await valet.act("add-thing", {"name": "one"})).status_code == 200
        with postgresql.paused():
            await asyncio.gather(*(refused_in_time(valet, name) for name in ("two", "three")))
            await refused_in_time(valet, "four")
            with pytest.raises(Precondition):
                await valet.database()._memory.remember("key", 1)
        for name in ("two", "three", "four"):
            assert (await valet.act("add-thing", {"name": name})).status_code == 200
        await valet.database()._memory.remember("key", 1)
        assert valet.lines("bug") == []


@pytest.mark.long
async def test_a_start_waits_for_another_that_migrates(state: str):
    State(state).close()
    with psycopg.connect(state) as other, ThreadPoolExecutor(1) as threads:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (database._ONE_AT_A_TIME,))
        started = threads.submit(State, state)
        await asyncio.sleep(connection.SILENT_SECONDS + 2)
        assert not started.done()
        other.rollback()
        started.result(30).close()
