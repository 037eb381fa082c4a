"""The tables of the state: migrated from every earlier version, shared, and not touched when they are not ours."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from agent.errors import SettingsError
from agent.state import database
from agent.state import state as state_module
from agent.state.file import APPLICATION_ID, SCHEMA_VERSION, StateFile
from agent.state.state import State
from agent.state.tables import metadata, schedule_slots
from engines.errors import Precondition

VERSION_1 = """
CREATE TABLE memory (
    database_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (database_id, key)
) STRICT, WITHOUT ROWID;
INSERT INTO memory VALUES ('ad-one', 'sql_mode', '"ANSI"'), ('ad-two', 'identity', '{"resource_id": "x"}');
"""
"""As dbvalet 0.1 wrote it, by hand."""

VERSION_2 = """
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE memory (
    database_id TEXT NOT NULL,
    "key" TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (database_id, "key")
)
 WITHOUT ROWID,
 STRICT;
CREATE TABLE database_settings (
    database_id TEXT NOT NULL,
    periodic_backups_enabled BOOLEAN NOT NULL,
    periodic_backups_scheduled_at TEXT NOT NULL,
    scheduled_since DATETIME,
    maintenance_weekday_utc INTEGER,
    maintenance_starting_hour_utc INTEGER,
    PRIMARY KEY (database_id)
);
CREATE TABLE operations (
    id TEXT NOT NULL,
    database_id TEXT NOT NULL,
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    progress INTEGER NOT NULL,
    step TEXT NOT NULL,
    error TEXT,
    params TEXT NOT NULL,
    notes TEXT NOT NULL,
    started_by TEXT NOT NULL,
    created_at DATETIME NOT NULL,
    finished_at DATETIME,
    owner TEXT,
    heartbeat BIGINT NOT NULL,
    clean_up_due BOOLEAN NOT NULL,
    PRIMARY KEY (id)
);
CREATE UNIQUE INDEX one_open_operation ON operations (database_id) WHERE finished_at IS NULL;
CREATE INDEX operations_of_a_database ON operations (database_id, created_at);
CREATE TABLE backups (
    id TEXT NOT NULL,
    database_id TEXT NOT NULL,
    operation_id TEXT NOT NULL,
    name TEXT NOT NULL,
    method TEXT NOT NULL,
    created_at DATETIME NOT NULL,
    finished_at DATETIME,
    size BIGINT,
    sha256 TEXT,
    manifest TEXT,
    PRIMARY KEY (id)
);
CREATE INDEX backups_of_a_database ON backups (database_id, created_at);
CREATE TABLE schedule_slots (
    database_id TEXT NOT NULL,
    slot DATETIME NOT NULL,
    operation_id TEXT NOT NULL,
    PRIMARY KEY (database_id, slot)
);
CREATE TABLE timelines (
    database_id TEXT NOT NULL,
    system_identifier TEXT NOT NULL,
    timeline INTEGER NOT NULL,
    parent INTEGER,
    forked_at_lsn TEXT,
    began_at DATETIME NOT NULL,
    ended_at DATETIME,
    PRIMARY KEY (database_id, system_identifier, timeline)
);
CREATE TABLE markers (
    database_id TEXT NOT NULL,
    committed_at DATETIME NOT NULL,
    timeline INTEGER NOT NULL,
    lsn TEXT NOT NULL,
    archived BOOLEAN NOT NULL,
    PRIMARY KEY (database_id, committed_at)
);
INSERT INTO alembic_version (version_num) VALUES ('0002');
INSERT INTO memory VALUES ('ad-one', 'sql_mode', '"ANSI"'), ('ad-two', 'identity', '{"resource_id": "x"}');
"""
"""As dbvalet of October 2026 wrote it."""

VERSION_3 = (
    VERSION_2.replace("'0002'", "'0003'")
    + """
CREATE TABLE audit (
    sequence BIGINT NOT NULL,
    database_id TEXT,
    line TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (sequence)
);
CREATE INDEX audit_of_a_database ON audit (database_id, sequence);
CREATE TABLE audit_head (
    id INTEGER NOT NULL,
    sequence BIGINT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (id)
);
INSERT INTO audit_head (id, sequence, digest) VALUES (1, 0, '');
CREATE TABLE idempotency_keys (
    who TEXT NOT NULL,
    "key" TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    owner TEXT NOT NULL,
    begun_at DATETIME NOT NULL,
    before TEXT,
    answer TEXT,
    PRIMARY KEY (who, "key")
);
CREATE INDEX keys_by_age ON idempotency_keys (begun_at);
"""
)
"""As dbvalet of November 2026 wrote it."""

VERSIONS = {1: VERSION_1, 2: VERSION_2, 3: VERSION_3}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def state(file: Path) -> Iterator[State]:
    state = State(f"sqlite:///{file}")
    yield state
    state.close()


def write_version(file: Path, version: int, more: str = "") -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(VERSIONS[version] + more)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")


def layout(file: Path) -> dict[str, str]:
    """Give the statements that would make the tables of a file, without differences in blanks and quotes."""
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: " ".join(sql.replace('"', "").split()).replace("( ", "(").replace(" )", ")") for name, sql in rows}


def marks(file: Path) -> tuple[Any, ...]:
    with closing(sqlite3.connect(file)) as connection:
        return (
            connection.execute("PRAGMA application_id").fetchone()[0],
            connection.execute("PRAGMA user_version").fetchone()[0],
            connection.execute("SELECT version_num FROM alembic_version").fetchone()[0],
        )


def test_every_earlier_version_is_known_here():
    assert list(VERSIONS) == list(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_of_an_earlier_version_is_migrated_at_the_start_and_keeps_its_values(file: Path, version: int):
    write_version(file, version)
    state = State(f"sqlite:///{file}")
    kept = StateFile(file)

    assert not kept.is_behind
    assert kept.recall("ad-one", "sql_mode") == "ANSI"
    assert kept.recall("ad-two", "identity") == {"resource_id": "x"}
    assert marks(file) == (APPLICATION_ID, SCHEMA_VERSION, f"{SCHEMA_VERSION:04}")
    state.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_new_file_is_what_the_migrations_make_of_an_old_one(tmp_path: Path, version: int):
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    write_version(old, version)
    State(f"sqlite:///{old}").close()
    StateFile(new).remember("ad-one", "key", 1)

    made = layout(old)
    made["memory"] = layout(new)["memory"]  # the first was written by hand, in another order of its options
    assert layout(new) == made
    assert marks(new) == marks(old)


def test_the_tables_are_what_the_migrations_make(file: Path):
    StateFile(file).remember("ad-one", "key", 1)
    engine = database.open_file(StateFile(file))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_migration_that_fails_leaves_the_file_as_it_was(file: Path):
    write_version(file, 1, "CREATE TABLE backups (theirs TEXT);")
    before = file.read_bytes()
    with pytest.raises(SettingsError, match=r"^state: it cannot be opened: table backups already exists$"):
        State(f"sqlite:///{file}")

    assert file.read_bytes() == before


def test_a_newer_file_ends_the_start_and_is_left_untouched(file: Path):
    StateFile(file).remember("ad-one", "key", 1)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = file.read_bytes()
    with pytest.raises(SettingsError, match=r"^state: .* was written by a newer dbvalet \(schema 5, known 4\)$"):
        State(f"sqlite:///{file}")

    assert file.read_bytes() == before


def test_an_old_file_that_cannot_be_written_ends_the_start_with_one_line(file: Path):
    write_version(file, 1)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SettingsError, match=r"^state: it cannot be opened: database is locked$"):
            State(f"sqlite:///{file}")


def test_two_that_start_at_once_migrate_one_file_once(file: Path):
    write_version(file, 1)
    script = "import sys; from agent.state.state import State; State('sqlite:///' + sys.argv[1]).close()"
    started = [subprocess.Popen([sys.executable, "-c", script, str(file)]) for _ in range(3)]

    assert [each.wait(timeout=60) for each in started] == [0] * 3
    assert marks(file) == (APPLICATION_ID, SCHEMA_VERSION, f"{SCHEMA_VERSION:04}")


def beside(file: Path) -> list[str]:
    return [each.name for each in file.parent.iterdir()]


async def test_nothing_is_made_by_asking_whether_there_is_work(state: State, file: Path):
    assert not await state.holds_work()
    assert not beside(file)


@pytest.mark.parametrize(
    "row",
    [
        "INSERT INTO database_settings VALUES ('ad-one', 1, '[3]', NULL, NULL, NULL)",
        "INSERT INTO operations VALUES ('1', 'ad-one', 'backup', 'running', 0, '', NULL, '{}', '[]', 'x', '2026', NULL,"
        " NULL, 0, 0)",
        "INSERT INTO backups VALUES ('1', 'ad-one', '1', 'n', 'manual', '2026', NULL, 1, 'x', NULL, NULL)",
    ],
)
async def test_settings_operations_and_backups_are_work(state: State, file: Path, row: str):
    await state.memory_of("ad-one").remember("key", 1)
    assert not await state.holds_work()
    with sqlite3.connect(file) as connection:
        connection.execute(row)
    connection.close()

    assert await state.holds_work()


async def test_the_first_value_is_kept_for_all_who_ask_at_once(file: Path):
    states = [State(f"sqlite:///{file}") for _ in range(5)]
    kept = await asyncio.gather(*(each.memory_of("").keep_first("key", number) for number, each in enumerate(states)))

    assert len(set(kept)) == 1
    for each in states:
        each.close()


async def test_changes_of_a_value_take_turns_and_a_change_that_fails_changes_nothing(file: Path):
    states = [State(f"sqlite:///{file}") for _ in range(4)]
    await asyncio.gather(*(each.memory_of("").change("number", one_more) for each in states for _ in range(5)))
    with pytest.raises(ValueError, match="no"):
        await states[0].memory_of("").change("number", refuse)

    assert await states[1].memory_of("").recall("number") == 20
    for each in states:
        each.close()


async def test_values_wait_for_no_thread_that_others_keep_busy(file: Path):
    state, end = State(f"sqlite:///{file}"), threading.Event()
    busy = [asyncio.create_task(asyncio.to_thread(end.wait)) for _ in range(100)]
    try:
        async with asyncio.timeout(10):
            await state.memory_of("").remember("key", 1)
            assert await state.memory_of("").recall("key") == 1
            assert not await state.holds_work()
    finally:
        end.set()
        await asyncio.gather(*busy)
        state.close()


async def test_what_waits_too_long_for_its_turn_is_refused_and_not_done_later(
    state: State, monkeypatch: pytest.MonkeyPatch
):
    await state.run(take_slot("first", state))
    end = threading.Event()
    busy = [asyncio.create_task(state.run(lambda _: end.wait())) for _ in range(state_module._THREADS)]
    await asyncio.sleep(0.5)
    # Those have their threads by now.
    monkeypatch.setattr(state_module, "QUEUED_SECONDS", 0.1)
    late = [
        asyncio.create_task(each)
        for each in (state.memory_of("").remember("key", 1), state.run(lambda _: None), state.run(lambda _: None))
    ]
    await asyncio.sleep(0.3)
    end.set()
    for each in await asyncio.gather(*late, return_exceptions=True):
        assert isinstance(each, Precondition)
        assert each.message.startswith("The state cannot be used: it does not answer in time. The key `state` of")
    assert await asyncio.gather(*busy) == [True] * len(busy)
    assert await state.memory_of("").recall("key") is None


async def test_who_waits_for_its_turn_has_it_when_the_one_before_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(state_module, "ANSWER_SECONDS", 5.0)
    kept = State(f"sqlite:///{tmp_path}/state.db", stays=True)
    await kept.run(take_slot("first", kept))
    assert kept._engine is not None
    waiting: Any = kept._engine.pool._pool.not_empty._waiters  # type: ignore[attr-defined]
    begun = threading.Event()

    def fail(_: Connection) -> None:
        begun.set()
        while not waiting:
            time.sleep(0.001)
        raise OSError("the disk is full")

    failing = asyncio.create_task(kept.run(fail))
    await asyncio.to_thread(begun.wait)
    assert await kept.run(lambda _: "its turn") == "its turn"
    with pytest.raises(Precondition, match="the disk is full"):
        await failing
    kept.close()


async def test_a_state_that_stands_still_is_not_waited_for_without_end(state: State, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(state_module, "ANSWER_SECONDS", 0.3)
    end, done = threading.Event(), list[str]()
    works = [lambda _: end.wait(30), lambda _: end.wait(30), lambda _: done.append("later")]
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*(state.run(work) for work in works), return_exceptions=True)
    end.set()
    for each in answers:
        assert isinstance(each, Precondition)
        assert each.message.startswith("The state cannot be used: it does not answer in time. The key `state` of")
    monkeypatch.undo()
    assert await state.run(lambda _: "again") == "again"
    assert done == []


def one_more(number: int | None) -> int:
    return (number or 0) + 1


def refuse(_: Any) -> Any:
    raise ValueError("no")


def take_slot(operation: str, state: State) -> Any:
    def work(connection: Connection) -> None:
        row = {"database_id": "ad-one", "slot": state.now(connection).replace(minute=0, second=0, microsecond=0)}
        connection.execute(insert(schedule_slots).values(**row, operation_id=operation))

    return work


async def test_a_row_that_is_there_already_is_told_and_nothing_else_of_the_transaction_stays(state: State):
    await state.run(take_slot("first", state))
    with pytest.raises(IntegrityError):
        await state.run(take_slot("second", state))

    def read(connection: Connection) -> list[Any]:
        return list(connection.execute(select(schedule_slots.c.operation_id)).scalars())

    assert await state.run(read) == ["first"]


async def test_transactions_of_several_never_fail_for_being_at_the_same_time(file: Path):
    states = [State(f"sqlite:///{file}") for _ in range(4)]

    def count(connection: Connection) -> None:
        found = connection.exec_driver_sql("SELECT value FROM memory WHERE key = 'count'").scalar()
        connection.exec_driver_sql("DELETE FROM memory WHERE key = 'count'")
        connection.exec_driver_sql("INSERT INTO memory VALUES ('', 'count', ?)", (str(int(found or "0") + 1),))

    await asyncio.gather(*(each.run(count) for each in states for _ in range(25)))
    assert StateFile(file).recall("", "count") == 100
    for each in states:
        each.close()


def spoil(file: Path) -> None:
    file.write_bytes(os.urandom(8192))


async def test_a_state_that_was_spoilt_meanwhile_is_an_error_that_says_where_to_look(state: State, file: Path):
    await state.run(take_slot("first", state))
    spoil(file)

    text = r"^The state cannot be used: file is not a database\. The key `state` of dbvalet's configuration says where"
    with pytest.raises(Precondition, match=text):
        await state.run(take_slot("second", state))


def test_a_server_that_does_not_answer_ends_the_start_with_one_line_without_the_password():
    with pytest.raises(SettingsError, match=r"^state: it cannot be opened: connection") as refused:
        State("postgresql://valet:planted-password@127.0.0.1:1/state")
    assert "planted" not in refused.value.message
    assert "\n" not in refused.value.message


ACTIONS_ONLY = """
import asyncio, sys
from tests.fakes.service import running

async def main():
    async with running() as valet:
        await valet.act("list-things")
        assert (await valet.ask("GET", "/api/databases/ad-one")).status_code == 200
        await valet.database()._memory.remember("key", 1)
    heavy = {"sqlalchemy", "alembic", "fsspec", "apscheduler"} & set(sys.modules)
    assert not heavy, heavy

asyncio.run(main())
"""


def test_a_service_that_only_performs_actions_does_not_import_what_keeps_more():
    subprocess.run([sys.executable, "-c", ACTIONS_ONLY], check=True, timeout=60, cwd=Path(__file__).parents[2])


def test_the_tables_of_a_file_do_not_import_what_a_server_needs():
    seen = "import sys, agent.state.tables; print('sqlalchemy.dialects.postgresql' in sys.modules)"
    tree = Path(__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", seen], timeout=60, cwd=tree) == b"False\n"
