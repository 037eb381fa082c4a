"""What survives a restart, and what becomes of a state file that is not what it should be."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.errors import SettingsError
from agent.state import wal
from agent.state.file import APPLICATION_ID, SCHEMA_VERSION, StateFile
from agent.state.state import DatabaseMemory
from engines.errors import Precondition

THREADS = ThreadPoolExecutor(2)

OPEN: list[StateFile] = []
STAYS = False


@pytest.fixture(params=[False, True], ids=["opened-for-each-use", "kept-open"], autouse=True)
def stays(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Every test is one of a file that is opened for each use, and of one that is kept open, in WAL mode."""
    monkeypatch.setattr(sys.modules[__name__], "STAYS", request.param)
    yield request.param
    leave()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "state.db"


def store_at(file: Path) -> StateFile:
    OPEN.append(StateFile(file, stays=STAYS))
    return OPEN[-1]


def leave() -> None:
    """Close what was opened, as an orderly end of the process does."""
    while OPEN:
        OPEN.pop().close()


def test_nothing_is_made_until_something_is_kept(file: Path):
    assert store_at(file).recall("ad-one", "identity") is None
    assert not file.parent.exists()


@pytest.mark.parametrize("value", ["text", 5, 0.5, True, None, ["a", {"b": []}], {"ż": "\x00\u2028"}, "x" * 100_000])
def test_a_value_survives_a_restart(file: Path, value: object):
    store_at(file).remember("ad-one", "key", value)
    assert store_at(file).recall("ad-one", "key") == value


def test_a_later_value_replaces_the_one_before(file: Path):
    store = store_at(file)
    for value in (1, 2, 3):
        store.remember("ad-one", "key", value)
    assert store.recall("ad-one", "key") == 3


def test_values_are_kept_by_database_and_key(file: Path):
    store = store_at(file)
    for database in ("ad-one", "ad-two"):
        for key in ("a", "b", "'; DROP TABLE memory; --"):
            store.remember(database, key, f"{database} {key}")
    for database in ("ad-one", "ad-two"):
        for key in ("a", "b", "'; DROP TABLE memory; --"):
            assert store.recall(database, key) == f"{database} {key}"
    assert store.recall("ad-three", "a") is None


def test_the_file_is_for_its_owner_only(file: Path):
    old = os.umask(0)
    try:
        store_at(file).remember("ad-one", "key", 1)
    finally:
        os.umask(old)
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["with space.db", "100%25.db", "what?.db", "a#b.db", "żółw.db"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str):
    store_at(tmp_path / name).remember("ad-one", "key", 1)

    assert store_at(tmp_path / name).recall("ad-one", "key") == 1
    leave()
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_relative_file_stands_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    StateFile(Path("state.db")).remember("ad-one", "key", 1)
    assert (tmp_path / "state.db").exists()


def damaged_in_the_middle(file: Path) -> None:
    store = store_at(file)
    for number in range(200):
        store.remember("ad-one", f"key {number}", "x" * 200)
    leave()
    content = bytearray(file.read_bytes())
    content[4096:12288] = os.urandom(8192)
    file.write_bytes(content)


def cut_off(file: Path) -> None:
    store_at(file).remember("ad-one", "key", "x" * 20_000)
    leave()
    file.write_bytes(file.read_bytes()[:5000])


def no_database(file: Path) -> None:
    file.write_bytes(b"this is no database" * 500)


def newer(file: Path) -> None:
    store_at(file).remember("ad-one", "key", 1)
    leave()
    with sqlite3.connect(file) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()


def somebody_elses(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE theirs (a)")
        connection.execute("PRAGMA user_version = 1")
    connection.close()


def with_our_mark_alone(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.close()


def a_folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (damaged_in_the_middle, "is damaged: |malformed"),
        (cut_off, "is damaged: |malformed"),
        (no_database, "cannot be read: file is not a database"),
        (newer, r"was written by a newer dbvalet \(schema 5, known 4\)"),
        (somebody_elses, "is not a state file of dbvalet"),
        (with_our_mark_alone, "is not a state file of dbvalet"),
        (a_folder, "cannot be read: unable to open database file"),
    ],
)
def test_what_is_no_sound_state_file_ends_the_start_and_is_left_untouched(file: Path, spoil, text: str):
    file.parent.mkdir()
    spoil(file)
    before = None if file.is_dir() else file.read_bytes()
    with pytest.raises(SettingsError, match=f"^state: {file} .*({text})") as refused:
        store_at(file)

    assert "\n" not in refused.value.message
    assert before is None or file.read_bytes() == before
    assert [each.name for each in file.parent.iterdir()] == ["state.db"]


def test_a_path_that_cannot_be_looked_at_ends_the_start(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"^state: .*/state\.db cannot be read: File name too long$"):
        store_at(tmp_path / ("x" * 300) / "state.db")


def test_an_empty_file_is_what_an_interrupted_start_left_and_is_filled(file: Path):
    file.parent.mkdir()
    file.touch()
    store = store_at(file)
    assert store.recall("ad-one", "key") is None
    store.remember("ad-one", "key", 1)

    assert store_at(file).recall("ad-one", "key") == 1


def test_a_symbolic_link_stays_one(tmp_path: Path):
    """Where the folder of a state file is mounted, the file itself is often a link into it."""
    (tmp_path / "real").mkdir()
    link = tmp_path / "state.db"
    link.symlink_to(tmp_path / "real" / "kept.db")
    store_at(link).remember("ad-one", "key", 1)

    assert link.is_symlink()
    assert store_at(tmp_path / "real" / "kept.db").recall("ad-one", "key") == 1


def test_what_cannot_be_written_says_why_and_changes_nothing(tmp_path: Path):
    (tmp_path / "a-file").touch()
    with pytest.raises(OSError, match=r"^the state file .*/a-file/state\.db cannot be written: "):
        store_at(tmp_path / "a-file" / "state.db").remember("ad-one", "key", 1)


def test_a_full_disk_keeps_the_value_of_before(file: Path, monkeypatch: pytest.MonkeyPatch):
    store = store_at(file)
    store.remember("ad-one", "key", "before")
    store.close()

    def full(path: Path) -> sqlite3.Connection:
        connection = wal.connect(path)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    with monkeypatch.context() as patched:
        patched.setattr("agent.state.file.connect", full)
        patched.setattr(wal.KeptOpen, "_opened", lambda kept: full(kept._path))
        for _ in range(2):
            with pytest.raises(OSError, match="cannot be written: database or disk is full"):
                store.remember("ad-one", "key", "x" * 1_000_000)

    assert store.recall("ad-one", "key") == "before"


def test_a_change_that_fails_changes_nothing_and_stands_in_nobodys_way(file: Path):
    store = store_at(file)
    store.remember("ad-one", "key", 1)

    def refuse(_: object) -> object:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            store.change("ad-one", "key", refuse)
    store_at(file).remember("ad-one", "other", 2)
    assert store.change("ad-one", "key", lambda value: value + 1) == 2


def test_a_file_that_was_spoilt_meanwhile_is_an_error_with_its_reason(file: Path):
    store = store_at(file)
    store.remember("ad-one", "key", 1)
    store.close()  # while it is kept open, what was kept last is read from the log
    file.write_bytes(b"spoilt" * 1000)
    for _ in range(2):
        with pytest.raises(OSError, match="cannot be read: file is not a database"):
            store.recall("ad-one", "key")
        with pytest.raises(OSError, match="cannot be written: file is not a database"):
            store.remember("ad-one", "key", 1)


def test_what_a_process_has_begun_that_was_killed_is_rolled_back(file: Path, stays: bool):
    store = store_at(file)
    store.remember("ad-one", "key", "before")
    killed = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE memory SET value = ?", ('"' + "x" * 500_000 + '"',))
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", killed, str(file)], check=False, timeout=20)
    left = file.with_name("state.db-wal" if stays else "state.db-journal")
    assert left.stat().st_size > (400_000 if stays else 0)

    assert store_at(file).recall("ad-one", "key") == "before"
    leave()
    assert store_at(file).recall("ad-one", "key") == "before"


def test_a_file_that_another_process_filled_in_the_same_moment_keeps_its_values(file: Path):
    first, second = store_at(file), store_at(file)
    first.remember("ad-one", "key", 1)
    second._holds_something = lambda: False
    second.remember("ad-two", "key", 2)
    del second._holds_something

    assert (first.recall("ad-one", "key"), first.recall("ad-two", "key")) == (1, 2)


PROCESS = """
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from agent.state.file import StateFile
store = StateFile(Path(sys.argv[1]), stays=sys.argv[3] == "True")
for number in range(30):
    store.remember(sys.argv[2], f"key {number}", number)
    store.remember("ad-shared", "key", sys.argv[2])
store.close()
"""


@pytest.mark.parametrize("others", [False, True], ids=["others-open-for-each-use", "others-keep-open"])
def test_several_processes_share_one_file_from_the_first_moment(file: Path, stays: bool, others: bool):
    names = [f"ad-{number}" for number in range(4)]
    started = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(file), name, str(stays if each % 2 else others)])
        for each, name in enumerate(names)
    ]
    assert [each.wait(timeout=60) for each in started] == [0] * 4

    store = store_at(file)
    for name in names:
        assert [store.recall(name, f"key {number}") for number in range(30)] == list(range(30))
    assert store.recall("ad-shared", "key") in names


async def test_threads_of_one_process_share_one_file(file: Path):
    memory = [DatabaseMemory(store_at(file), f"ad-{number}", THREADS) for number in range(4)]
    await asyncio.gather(*(each.remember(f"key {number}", number) for each in memory for number in range(20)))

    for each in memory:
        assert [await each.recall(f"key {number}") for number in range(20)] == list(range(20))


async def test_the_memory_of_a_database_is_its_own(file: Path):
    store = store_at(file)
    await DatabaseMemory(store, "ad-one", THREADS).remember("key", {"a": 1})
    assert await DatabaseMemory(store, "ad-one", THREADS).recall("key") == {"a": 1}
    assert await DatabaseMemory(store, "ad-two", THREADS).recall("key") is None


async def test_an_action_that_cannot_keep_something_is_refused_with_what_to_set(file: Path):
    file.parent.mkdir()
    memory = DatabaseMemory(store_at(file), "ad-one", THREADS)
    no_database(file)
    text = (
        rf"^The state file {file} cannot be (read|written): file is not a database\. "
        r"The key `state` of dbvalet's configuration says where it is\.$"
    )
    with pytest.raises(Precondition, match=text):
        await memory.recall("key")
    with pytest.raises(Precondition, match=text):
        await memory.remember("key", 1)


def test_the_log_of_a_file_that_is_kept_open_stays_small(file: Path):
    store = StateFile(file, stays=True)
    for number in range(400):
        store.remember("ad-one", f"key {number % 20}", f"{number:04}" * 2000)
    largest = file.with_name("state.db-wal").stat().st_size
    store.close()
    assert 1_000_000 < largest < 2_500_000
