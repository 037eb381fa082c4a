"""A state file that is kept open: what lies beside it meanwhile, and what becomes of it when something goes wrong."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from agent.errors import SettingsError
from agent.state.file import StateFile
from agent.state.state import State


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def kept(file: Path) -> Iterator[StateFile]:
    kept = StateFile(file, stays=True)
    yield kept
    kept.close()


def beside(file: Path) -> list[str]:
    return sorted(each.name for each in file.parent.iterdir())


ALL = ["state.db", "state.db-shm", "state.db-wal"]


def mode_of(file: Path) -> str:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]


def value_of(file: Path) -> str:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT value FROM memory WHERE key = 'key'").fetchone()[0]


def elsewhere(script: str, file: Path) -> str:
    """Run something with the file in a process of its own."""
    begin = "import os, signal, sqlite3, sys; from pathlib import Path; from agent.state.file import StateFile\n"
    begin += "file = Path(sys.argv[1])\n"
    command = [sys.executable, "-c", begin + script, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.stdout


def test_a_new_file_is_in_wal_mode_until_it_is_closed(file: Path, kept: StateFile):
    kept.remember("ad-one", "key", 1)
    assert (beside(file), mode_of(file)) == (ALL, "wal")
    kept.close()
    assert (beside(file), mode_of(file)) == (["state.db"], "delete")
    assert kept.recall("ad-one", "key") == 1
    kept.remember("ad-one", "key", 2)
    assert mode_of(file) == "wal"


def test_an_old_file_gets_into_it_with_the_first_thing_that_is_kept(file: Path, kept: StateFile):
    StateFile(file).remember("ad-one", "key", 1)
    assert kept.recall("ad-one", "key") == 1
    assert mode_of(file) == "delete"
    kept.remember("ad-one", "other", 2)
    assert (mode_of(file), kept.recall("ad-one", "key")) == ("wal", 1)


async def test_transactions_bring_it_there_too(file: Path):
    state = State(f"sqlite:///{file}", stays=True)
    await state.run(count_values)
    assert (beside(file), mode_of(file)) == (ALL, "wal")
    state.close()
    assert (beside(file), mode_of(file)) == (["state.db"], "delete")


def test_all_three_files_are_for_their_owner_only(file: Path, kept: StateFile):
    old = os.umask(0)
    try:
        kept.remember("ad-one", "key", 1)
    finally:
        os.umask(old)
    assert {each: file.with_name(each).stat().st_mode & 0o777 for each in ALL} == dict.fromkeys(ALL, 0o600)


KILLED = """
StateFile(file, stays=True).remember("ad-one", "key", 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_in_the_log_is_read_by_the_next_start_which_changes_nothing(file: Path):
    StateFile(file).remember("ad-one", "key", "before")
    elsewhere(KILLED, file)
    assert beside(file) == ALL
    before = [file.with_name(each).read_bytes() for each in ("state.db", "state.db-wal")]
    assert b"before" in before[0]

    found = StateFile(file)
    assert [file.with_name(each).read_bytes() for each in ("state.db", "state.db-wal")] == before
    assert found.recall("ad-one", "key") == 1
    assert beside(file) == ["state.db"]


def test_a_damaged_file_with_a_log_is_told_and_both_are_left_untouched(file: Path):
    store = StateFile(file)
    for number in range(200):
        store.remember("ad-one", f"key {number}", "x" * 200)
    elsewhere(KILLED, file)
    content = bytearray(file.read_bytes())
    content[8192:40960] = os.urandom(32768)
    file.write_bytes(content)
    log = file.with_name("state.db-wal").read_bytes()

    with pytest.raises(SettingsError, match=r"is damaged: |malformed"):
        StateFile(file)
    assert (file.read_bytes(), file.with_name("state.db-wal").read_bytes()) == (bytes(content), log)


def test_a_file_in_wal_mode_without_a_log_is_checked_and_nothing_is_left_beside_it(file: Path):
    StateFile(file).remember("ad-one", "key", 1)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    before = file.read_bytes()

    found = StateFile(file)
    assert (beside(file), file.read_bytes()) == (["state.db"], before)
    assert found.recall("ad-one", "key") == 1


@pytest.mark.parametrize("obstacle", [Path.mkdir, lambda index: index.symlink_to("nowhere")], ids=["folder", "link"])
def test_where_its_index_cannot_be_had_it_works_as_it_is(file: Path, kept: StateFile, obstacle):
    """As on a file system without shared memory."""
    index = file.with_name("state.db-shm")
    obstacle(index)
    for number in range(3):
        kept.remember("ad-one", "key", number)
        assert kept.recall("ad-one", "key") == number
    kept.close()
    assert beside(file) == ["state.db", "state.db-shm"]
    index.rmdir() if index.is_dir() else index.unlink()
    assert (value_of(file), mode_of(file)) == ("2", "delete")


def test_while_somebody_else_is_at_it_it_works_as_it_is_and_gets_there_later(file: Path, kept: StateFile):
    StateFile(file).remember("ad-one", "key", 1)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM memory").fetchone()
        assert kept.settle() is not None
        assert mode_of(file) == "delete"
        other.execute("COMMIT")
    kept.remember("ad-one", "key", 2)
    assert mode_of(file) == "wal"


LEAVE = """
with sqlite3.connect(file, timeout=0) as connection:
    try:
        print(*connection.execute("PRAGMA journal_mode = DELETE").fetchone())
    except sqlite3.OperationalError as problem:
        print(problem)
"""


async def test_nobody_takes_its_log_away_whatever_this_process_does(file: Path):
    state = State(f"sqlite:///{file}", stays=True)
    await state.memory_of("").remember("key", 1)
    assert "locked" in elsewhere(LEAVE, file)
    await state.run(count_values)
    assert state._file is not None
    state._file.make()
    other = State(f"sqlite:///{file}")
    await other.run(count_values)
    assert await other.memory_of("").recall("key") == 1
    other.close()
    assert "locked" in elsewhere(LEAVE, file)
    assert beside(file) == ALL
    state.close()
    assert elsewhere(LEAVE, file) == "delete\n"


def test_commands_of_other_processes_read_and_write_it_meanwhile(file: Path, kept: StateFile):
    kept.remember("ad-one", "key", 1)
    assert elsewhere("print(StateFile(file).recall('ad-one', 'key'))", file) == "1\n"
    elsewhere("StateFile(file).remember('ad-one', 'key', 2)", file)
    assert kept.recall("ad-one", "key") == 2
    assert beside(file) == ALL


async def test_a_file_that_is_moved_away_takes_all_along_and_a_new_one_begins_without(file: Path, tmp_path: Path):
    state = State(f"sqlite:///{file}", stays=True)
    memory = state.memory_of("")
    for number in range(50):
        await memory.remember("key", number)
    await state.run(count_values)
    moved = move(file, tmp_path / "moved.db")

    assert await memory.recall("key") is None
    await memory.remember("other", 1)
    assert await state.run(count_values) == 1
    assert await memory.recall("key") is None
    assert value_of(moved) == "49"
    state.close()
    assert beside(file) == ["moved.db", "state.db"]


async def test_a_file_that_is_replaced_is_read_as_it_is(file: Path, tmp_path: Path):
    other = tmp_path / "other.db"
    for number in range(100):
        StateFile(other).remember("ad-one", f"key {number}", "x" * 500)
    StateFile(other).remember("", "key", "of the other")
    state = State(f"sqlite:///{file}", stays=True)
    await state.memory_of("").remember("key", "of the first")
    assert await state.run(count_values) == 1
    other.replace(file)

    assert await state.run(count_values) == 101
    assert await state.memory_of("").recall("key") == "of the other"
    state.close()
    assert (beside(file), value_of(file)) == (["state.db"], '"of the other"')
    StateFile(file)


def test_a_file_that_is_replaced_while_somebody_reads_it_gets_nothing_of_the_log(
    file: Path, kept: StateFile, tmp_path: Path
):
    kept.remember("ad-one", "key", "of the first")
    other = tmp_path / "other.db"
    StateFile(other).remember("ad-one", "key", "of the other")
    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT value FROM memory").fetchall() == [('"of the first"',)]
        kept.remember("ad-one", "key", "later")
        other.replace(file)

        assert kept.recall("ad-one", "key") == "of the other"
        for number in range(100):
            kept.remember("ad-one", f"key {number}", "x" * 500)
        assert reader.execute("SELECT value FROM memory").fetchall() == [('"of the first"',)]
    assert kept.recall("ad-one", "key") == "of the other"


def test_an_empty_file_in_its_place_is_filled_as_a_whole_or_left_empty(file: Path, kept: StateFile):
    kept.remember("ad-one", "key", 1)
    kept.close()
    file.write_bytes(b"")
    kept.settle()
    assert file.stat().st_size == 0
    kept.remember("ad-one", "other", 2)
    assert (kept.recall("ad-one", "key"), kept.recall("ad-one", "other"), mode_of(file)) == (None, 2, "wal")


async def test_a_file_that_is_gone_is_not_made_anew_by_a_transaction(file: Path):
    state = State(f"sqlite:///{file}", stays=True)
    await state.run(count_values)
    for each in ALL:
        file.with_name(each).unlink()
    for _ in range(2):
        with pytest.raises(Exception, match="unable to open database file"):
            await state.run(count_values)
    state.close()
    assert beside(file) == []


def move(file: Path, place: Path) -> Path:
    return file.rename(place)


def count_values(connection: Connection) -> int:
    return connection.execute(text("SELECT count(*) FROM memory")).scalar_one()
