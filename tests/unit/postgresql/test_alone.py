"""Two restores never write at the same time, whoever began the first one and whatever became of its client."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engines.errors import RecoveryFailed, RecoveryRefused
from engines.postgresql.recovery import alone
from engines.postgresql.recovery.pgbackrest import PgBackRest
from engines.postgresql.recovery.programs import run
from engines.recovery import RecoverySettings, Undo

# Like `docker exec`: what it has begun goes on when it is ended itself.
WAY = """#!/bin/sh
setsid "$@" &
wait $!
"""

# In the place of pgBackRest: its restore writes for as long as `going` is there, and has a child.
RESTORE = f"""#!{sys.executable}
import os, pathlib, signal, sys, time
place = pathlib.Path({{place!r}})
if sys.argv[-1] != "restore":
    sys.exit()
if (place / "deaf").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
with (place / "wrote").open("a", buffering=1) as wrote:
    while True:
        wrote.write(sys.argv[3] + "\\n")
        if not (place / "going").exists():
            break
        time.sleep(0.01)
"""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a process has no event
            await asyncio.sleep(0.01)


class Place:
    """A folder with a stand-in for pgBackRest, and a way to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.going, self.wrote = folder / "going", folder / "wrote"
        for name, text in (("way", WAY), ("pgbackrest", RESTORE.format(place=str(folder)))):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.going.touch()
        program = (str(folder / "way"), str(folder / "pgbackrest"))
        self.repository = PgBackRest(RecoverySettings(stanza="main", control=None, program=program))

    async def leave_one(self) -> None:
        """Begin a restore and be cancelled: it goes on."""
        first = asyncio.create_task(self.repository.restore(Undo(label="first", timeline=1)))
        await until(self.wrote.exists)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

    async def writes(self) -> bool:
        """Tell whether something is still being written."""
        before = self.wrote.stat().st_size
        await asyncio.sleep(0.3)
        return self.wrote.stat().st_size != before


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.going.unlink(missing_ok=True)  # what still runs ends


@pytest.mark.parametrize("deaf", [False, True])
async def test_a_restore_that_goes_on_after_its_client_is_ended_before_another(
    place: Place, deaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "KILL_SECONDS", 1.0)
    if deaf:
        (place.folder / "deaf").touch()
    await place.leave_one()
    assert await place.writes()
    missing = await place.repository.missing()
    assert missing is not None
    assert "earlier restore" in missing
    second = asyncio.create_task(place.repository.restore(Undo(label="second", timeline=1)))
    await until(lambda: "second" in place.wrote.read_text())
    place.going.unlink()
    await second
    labels = [line.partition("=")[2] for line in place.wrote.read_text().splitlines()]
    assert labels == sorted(labels)  # nothing of the first once the second had begun
    async with asyncio.timeout(10):
        while await place.repository.missing():  # noqa: ASYNC110 - until the child has ended too
            await asyncio.sleep(0.05)


async def test_none_writes_any_more_when_the_server_is_started(place: Place) -> None:
    await place.leave_one()
    await place.repository.make_sure_that_none_is_restoring()
    assert not await place.writes()
    await place.repository.make_sure_that_none_is_restoring()


async def test_one_that_does_not_end_is_told_and_no_other_begins(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "END_SECONDS", 0.5)
    (place.folder / "deaf").touch()
    await place.leave_one()
    with pytest.raises(RecoveryFailed, match="did not end within"):
        await place.repository.restore(Undo(label="second", timeline=1))
    with pytest.raises(RecoveryFailed, match="did not end within"):
        await place.repository.make_sure_that_none_is_restoring()
    assert "second" not in place.wrote.read_text()
    place.going.unlink()


async def test_where_nothing_can_be_locked_nothing_is_restored(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    for name in ("sh", "setsid", "tr"):  # all but flock
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    missing = await place.repository.missing()
    assert missing is not None
    assert "flock" in missing
    with pytest.raises(RecoveryRefused, match="cannot be kept apart"):
        await place.repository.restore(Undo(label="x", timeline=1))
    assert not place.wrote.exists()


@pytest.mark.parametrize(
    ("program", "at"),
    [
        (["pgbackrest"], 0),
        (["pgbackrest", "--cmd=/pgbackrest/pgbackrest"], 0),
        (["docker", "exec", "-u", "postgres", "pgbackrest", "pgbackrest"], 5),
        (["docker", "exec", "pg", "/pgbackrest/pgbackrest", "--config=/a"], 3),
        (["sudo", "/opt/of-mine", "--config=/a"], 1),
    ],
)
def test_the_lock_is_taken_where_the_program_runs(program: list[str], at: int) -> None:
    assert alone._place_of_name(program) == at


async def test_another_process_with_the_number_of_an_old_restore_is_left_alone(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(f"{os.getpid()}\n")
    assert (await run(["sh", "-c", alone._END, str(lock), "--stanza=main", "KILL"])).code == 0
