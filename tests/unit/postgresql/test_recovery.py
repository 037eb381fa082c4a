"""Recovery without a server: the choice of set and timeline, what pgBackRest says, who stops and starts."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import BackupDamaged, BackupFailed, Conflict, OutsideWindow, RecoveryFailed, RecoveryRefused
from engines.postgresql.recovery.choose import (
    Fork,
    choose,
    earliest,
    leading_to,
    limits_of,
    newest,
    read_lsn,
    write_lsn,
)
from engines.postgresql.recovery.control import control_of, pg_ctl
from engines.postgresql.recovery.pgbackrest import PgBackRest, read_history, read_info
from engines.postgresql.recovery.server import COMMIT, COMMITTED, STANDING, PostgresRecovery, fatal
from engines.recovery import (
    BackupSet,
    CommandsControl,
    Marker,
    PgCtlControl,
    RecoverySettings,
    Target,
    Timeline,
    Undo,
    Window,
)

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def backup(label: str, minutes: float, timeline: int = 1, lsn: str = "0/1000", usable: bool = True) -> BackupSet:
    return BackupSet(
        label=label, kind="full", stopped_at=at(minutes), timeline=timeline, stop_lsn=lsn, size=1, usable=usable
    )


def timeline(number: int, began: float, ended: float | None = None) -> Timeline:
    return Timeline(
        number=number,
        parent=None,
        forked_at_lsn=None,
        began_at=at(began),
        ended_at=None if ended is None else at(ended),
    )


# 1 was left for 2 at minute 30, and that for 3, which forked from 1 before the backup "late" of 1 ended.
TIMELINES = [timeline(1, -60, 30), timeline(2, 31, 60), timeline(3, 61)]
FORKS = {2: Fork(parent=1, lsn=0x3000), 3: Fork(parent=1, lsn=0x2000)}
SETS = [
    backup("early", 0, 1, "0/1000"),
    backup("late", 20, 1, "0/2800"),
    backup("of-2", 40, 2, "0/4000"),
    backup("of-3", 70, 3, "0/2900"),
    backup("damaged", 75, 3, "0/2A00", usable=False),
]
WINDOW = Window(earliest=earliest(SETS, TIMELINES), latest=at(90))


@pytest.mark.parametrize(
    ("minutes", "label", "number"),
    [
        (10, "early", 1),
        (25, "late", 1),
        (35, "late", 2),  # before 2 had a backup of its own
        (50, "of-2", 2),
        (65, "early", 3),  # "late" ended after 3 had left 1
        (80, "of-3", 3),
    ],
)
def test_the_newest_backup_that_leads_there_is_chosen(minutes: float, label: str, number: int) -> None:
    assert choose(at(minutes), WINDOW, TIMELINES, SETS, FORKS) == Target(at=at(minutes), label=label, timeline=number)


@pytest.mark.parametrize("minutes", [-30, 0, 0.01, 30.5, 60.5, 91])
def test_what_cannot_be_recovered_is_refused_with_the_window(minutes: float) -> None:
    with pytest.raises(OutsideWindow, match="2026-01-31T12:00:01") as refused:
        choose(at(minutes), WINDOW, TIMELINES, SETS, FORKS)
    assert list(refused.value.errors) == ["restore_time"]


def test_without_a_backup_there_is_no_window() -> None:
    assert earliest([], TIMELINES) is None
    assert earliest([backup("damaged", 0, usable=False)], TIMELINES) is None
    with pytest.raises(OutsideWindow, match="no backup yet"):
        choose(NOON, Window(earliest=None, latest=None), TIMELINES, [], FORKS)


def test_nothing_is_promised_of_the_time_before_the_first_known_timeline() -> None:
    assert earliest(SETS, [timeline(3, 61)]) == at(61)


def test_no_set_of_another_branch_is_ever_taken() -> None:
    assert newest(3, SETS[:3], FORKS) == "early"
    assert leading_to(3, SETS, FORKS) == ["of-3", "early"]
    assert newest(4, SETS, {}) is None


@given(st.dictionaries(st.integers(1, 9), st.builds(Fork, parent=st.integers(1, 9), lsn=st.integers(0, 9))))
def test_the_way_back_ends_whatever_the_histories_say(forks: dict[int, Fork]) -> None:
    limits = limits_of(9, forks)
    assert limits[9] is None
    assert all(each in forks.values() for each in [Fork(parent=p, lsn=x) for p, x in limits.items() if x is not None])


@given(st.integers(0, 2**64 - 1))
def test_places_in_the_log_are_read_as_they_are_written(lsn: int) -> None:
    assert read_lsn(write_lsn(lsn)) == lsn


INFO = [
    {
        "status": {"code": 0},
        "backup": [
            {
                "label": "20260131-120000F",
                "type": "full",
                "timestamp": {"start": 1, "stop": int(NOON.timestamp())},
                "archive": {"start": "000000020000000000000003", "stop": "000000020000000000000004"},
                "lsn": {"stop": "0/4000148"},
                "info": {"repository": {"delta": 4096}},
                "error": False,
            }
        ],
    }
]


def test_the_repository_is_read() -> None:
    (found,) = read_info(json.dumps(INFO))
    assert found == BackupSet(
        label="20260131-120000F",
        kind="full",
        stopped_at=NOON,
        timeline=2,
        stop_lsn="0/4000148",
        size=4096,
        usable=True,
    )
    assert read_info(json.dumps([{"status": {"code": 1}}])) == read_info("[]") == []


def test_a_history_is_read() -> None:
    text = "1\t0/3000148\tbefore 2026\n\n# a comment\n3\t0/5000000\tno recovery target specified\n"
    assert read_history(4, text) == {3: Fork(parent=1, lsn=0x3000148), 4: Fork(parent=3, lsn=0x5000000)}
    with pytest.raises(BackupDamaged):
        read_history(4, "not a history\n")
    with pytest.raises(BackupDamaged, match="is empty"):
        read_history(4, "# nothing\n")


def program(folder: Path, text: str) -> RecoverySettings:
    """A program in the place of pgBackRest that writes down what it is asked."""
    script = folder / "pgbackrest"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nopen({str(folder / 'asked')!r}, 'a').write(repr(sys.argv[1:]))\n{text}\n"
    )
    script.chmod(0o755)
    return RecoverySettings(stanza="main", control=None, program=(str(script),), config=Path("/a/config"))


async def test_set_timeline_and_instant_are_named_in_full(tmp_path: Path) -> None:
    repository = PgBackRest(program(tmp_path, ""))
    await repository.restore(Target(at=NOON + timedelta(microseconds=7), label="20260131-120000F", timeline=3))
    asked = (tmp_path / "asked").read_text()
    for argument in (
        "--config=/a/config",
        "--stanza=main",
        "--delta",
        "--set=20260131-120000F",
        "--target-timeline=3",
        "--type=time",
        "--target=2026-01-31 12:00:00.000007+00",
        "--target-action=promote",
    ):
        assert repr(argument) in asked
    await repository.restore(Undo(label="20260131-120000F", timeline=2))
    assert "'--target-timeline=2', '--type=default', 'restore'" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(("code", "problem"), [(29, RecoveryRefused), (38, RecoveryRefused), (75, RecoveryRefused)])
async def test_a_restore_that_changed_nothing_says_so(tmp_path: Path, code: int, problem: type[Exception]) -> None:
    repository = PgBackRest(program(tmp_path, f"print('why', file=sys.stderr); sys.exit({code})"))
    with pytest.raises(problem, match=rf"ended with {code} \(.*why"):
        await repository.restore(Undo(label="x", timeline=1))


@pytest.mark.parametrize("code", [29, 55])
async def test_a_restore_that_a_worker_ended_may_have_changed_something(tmp_path: Path, code: int) -> None:
    words = f"ERROR: [0{code}]: raised from local-2 protocol: of this file"
    repository = PgBackRest(program(tmp_path, f"print({words!r}, file=sys.stderr); sys.exit({code})"))
    with pytest.raises(RecoveryFailed, match=rf"ended with {code}: ERROR.* of this file") as failed:
        await repository.restore(Undo(label="x", timeline=1))
    assert not isinstance(failed.value, RecoveryRefused)


@pytest.mark.parametrize(
    ("listed", "held"), [("{0}-0123abcd.lz4", True), ("{0}.partial-0123abcd.lz4", False), ("", False)]
)
async def test_a_segment_is_looked_for_in_the_archive(tmp_path: Path, listed: str, held: bool) -> None:
    segment = "000000020000000A00000003"
    place = f"archive/main/15-1/{segment[:16]}"
    answers = {"archive/main": "15-1\narchive.info", place: listed.format(segment)}
    repository = PgBackRest(program(tmp_path, f"print({answers}[sys.argv[-1]])"))
    assert await repository.holds(segment) is held


async def test_failures_are_told_in_the_programs_words(tmp_path: Path) -> None:
    full = PgBackRest(program(tmp_path, "print('disk', file=sys.stderr)\nsys.exit(82)"))
    with pytest.raises(RecoveryFailed, match="ended with 82: disk"):
        await full.restore(Undo(label="x", timeline=1))
    with pytest.raises(Conflict, match="holds the lock"):
        await PgBackRest(program(tmp_path, "sys.exit(50)")).back_up("full")
    with pytest.raises(BackupDamaged, match="cannot be read"):
        await PgBackRest(program(tmp_path, "print('no json')")).sets()
    nowhere = RecoverySettings(stanza="main", control=None, program=(str(tmp_path / "nowhere"),))
    assert await PgBackRest(nowhere).version() is None
    with pytest.raises(BackupFailed, match="cannot be run"):
        await PgBackRest(nowhere).sets()


@pytest.mark.parametrize(
    ("timeline", "lsn", "marked"),
    [
        (2, "0/9FFFF00", False),
        (1, "0/9FFFF00", True),
        (2, "0/9FFFF38", True),
        (2, "0/10000028", True),  # later, though as a text it is the smaller one
        (2, "1/60", True),
    ],
)
async def test_a_marker_is_committed_wherever_the_log_has_gone_on(timeline: int, lsn: str, marked: bool) -> None:
    written: list[str] = []

    async def read(statement: str) -> list[dict[str, Any]]:
        if statement == STANDING:
            return [{"system_identifier": "7", "segment": "000000020000000000000009"}]
        assert statement == COMMITTED
        return [{"at": NOON, "lsn": f"{lsn}+" if written else lsn}]

    async def write(statement: str) -> None:
        written.append(statement)

    server: Any = SimpleNamespace(read=read, write=write)
    recovery = PostgresRecovery(server, RecoverySettings(stanza="main", control=None))
    last = Marker(committed_at=at(-5), timeline=timeline, lsn="0/9FFFF00", archived=True)
    found = await recovery.commit(last)
    assert written == ([COMMIT] if marked else [])
    assert found == (Marker(committed_at=NOON, timeline=2, lsn=f"{lsn}+", archived=False) if marked else None)


def test_why_a_server_ended_is_found_in_its_log() -> None:
    log = "LOG: starting\nFATAL:  recovery ended before configured recovery target was reached\nLOG: shut down\n"
    assert fatal(log) == "FATAL:  recovery ended before configured recovery target was reached"
    assert fatal("") == "its log does not say why"


async def test_commands_stop_and_start_and_are_asked_whether_they_did(tmp_path: Path) -> None:
    up = tmp_path / "up"
    up.touch()
    chosen = CommandsControl(
        stop=["rm", str(up)], start=["touch", str(up)], status=["test", "-e", str(up)], log=tmp_path / "log"
    )
    control = control_of(chosen, stop_seconds=5)
    assert await control.is_running()
    await control.stop()
    assert not up.exists()
    assert not await control.is_running()
    await control.stop()  # nothing to do: it is not told as a failure
    await control.start()
    assert await control.is_running()
    await control.start()
    refusing = control_of(CommandsControl(stop=["rm", str(tmp_path / "none")], start=["true"], status=["true"]), 5)
    with pytest.raises(RecoveryFailed, match=r"rm ended with 1: .*No such file"):
        await refusing.stop()
    assert await control.failure_log() == ""
    (tmp_path / "log").write_text("FATAL: here\n")
    assert await control.failure_log() == "FATAL: here\n"


async def test_a_stop_command_that_stops_nothing_is_not_believed(tmp_path: Path) -> None:
    control = control_of(CommandsControl(stop=["true"], start=["true"], status=["true"]), stop_seconds=0.3)
    with pytest.raises(RecoveryFailed, match="did not stop within"):
        await control.stop()
    missing = control_of(CommandsControl(stop=["true"], start=["true"], status=[str(tmp_path / "none")]), 1)
    with pytest.raises(RecoveryFailed, match="cannot be run"):
        await missing.is_running()


def test_pg_ctl_is_asked_as_the_owner_of_the_data() -> None:
    chosen = PgCtlControl(
        program=Path("/bin/pg_ctl"), data=Path("/data"), log=Path("/log"), run_as="postgres", options=["-p 5"]
    )
    commands = pg_ctl(chosen, 60)
    owner = ["runuser", "-u", "postgres", "--", "/bin/pg_ctl", "-D", "/data"]
    assert commands.stop == [*owner, "stop", "-m", "fast", "-w", "-t", "60"]
    assert commands.start == [*owner, "start", "-W", "-l", "/log", "-o", "-p 5"]
    assert commands.status == [*owner, "status"]
