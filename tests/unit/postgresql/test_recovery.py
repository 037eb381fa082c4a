"""Recovery without a server: the choice of set and timeline, what pgBackRest says, who stops and starts."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from errno import ENOSPC
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import (
    BackupDamaged,
    BackupFailed,
    Conflict,
    EngineUnavailable,
    OutsideWindow,
    RecoveryFailed,
    RecoveryRefused,
)
from engines.postgresql.recovery import pgbackrest, programs, promotion
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
from engines.postgresql.recovery.control import Commands, control_of, pg_ctl
from engines.postgresql.recovery.pgbackrest import Archive, PgBackRest, Stanza, read_history, read_info
from engines.postgresql.recovery.programs import Said
from engines.postgresql.recovery.promotion import fatal
from engines.postgresql.recovery.server import COMMIT, COMMITTED, STANDING, PostgresRecovery
from engines.postgresql.server import PostgresServer
from engines.recovery import (
    BackupSet,
    CommandsControl,
    DockerControl,
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


INFO: list[dict[str, Any]] = [
    {
        "status": {"code": 0},
        "db": [{"id": 1, "repo-key": 1, "system-id": 7001, "version": "15"}],
        "backup": [
            {
                "database": {"id": 1, "repo-key": 1},
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
    (found,) = read_info(json.dumps(INFO)).sets
    assert found == BackupSet(
        label="20260131-120000F",
        kind="full",
        stopped_at=NOON,
        timeline=2,
        stop_lsn="0/4000148",
        size=4096,
        usable=True,
    )
    assert (
        read_info(json.dumps([{"status": {"code": 1}}]))
        == read_info("[]")
        == Stanza(is_of_another=False, sets=[], archives=[])
    )


def test_after_an_upgrade_nothing_of_the_old_cluster_is_taken() -> None:
    dbs = [
        {"id": 1, "repo-key": 1, "system-id": 7001, "version": "15"},
        {"id": 2, "repo-key": 1, "system-id": 7002, "version": "16"},
    ]
    sets = [told("old", database={"id": 1, "repo-key": 1}), told("new", database={"id": 2, "repo-key": 1})]
    text = json.dumps([{"status": {"code": 0}, "db": dbs, "backup": sets}])
    for system, label, archive in (("7001", "old", "15-1"), ("7002", "new", "16-2"), (None, "new", "16-2")):
        found = read_info(text, system)
        assert ([each.label for each in found.sets], found.archives) == ([label], [Archive(id=archive, options=())])
        assert not found.is_of_another
    assert read_info(text, "7003") == Stanza(is_of_another=True, sets=[], archives=[])


def test_of_several_repositories_each_has_numbers_of_its_own() -> None:
    dbs = [
        {"id": 1, "repo-key": 1, "system-id": 7001, "version": "15"},
        {"id": 2, "repo-key": 1, "system-id": 7002, "version": "16"},
        {"id": 1, "repo-key": 2, "system-id": 7002, "version": "16"},
    ]
    sets = [
        told(f"{key}-{number}", database={"id": number, "repo-key": key}) for key, number in ((1, 1), (1, 2), (2, 1))
    ]
    found = read_info(json.dumps([{"status": {"code": 0}, "db": dbs, "backup": sets}]), "7002")
    assert [each.label for each in found.sets] == ["1-2", "2-1"]
    assert found.archives == [Archive(id="16-2", options=("--repo=1",)), Archive(id="16-1", options=("--repo=2",))]


def told(label: str = "20260131-120000F", **changes: Any) -> dict[str, Any]:
    return {**INFO[0]["backup"][0], "label": label, **changes}


@pytest.mark.parametrize(
    "odd",
    [
        {"archive": {"start": None, "stop": None}, "lsn": {}},  # as an offline backup is told
        {"archive": {"start": None, "stop": None}, "lsn": None},
        {"archive": None},
        {"archive": {"stop": "odd"}},
        {"lsn": {"stop": None}},
        {"lsn": {"stop": "odd"}},
        {"lsn": {"stop": "-1/0"}},
        {"lsn": {"stop": "0/100000000"}},
        {"timestamp": {"stop": 1e300}},
        {"timestamp": {"stop": -(10**18)}},
        {"timestamp": {"stop": 253402300799}},  # the last second of the calendar
        {"timestamp": {"stop": None}},
    ],
)
def test_a_backup_that_has_no_place_in_the_log_is_not_used_and_stands_in_nobodys_way(odd: dict[str, Any]) -> None:
    info = [{**INFO[0], "backup": [told("odd", **odd), told("good")]}]
    sets = read_info(json.dumps(info)).sets
    assert [(each.label, each.usable) for each in sets] == [("odd", False), ("good", True)]
    assert newest(2, sets, {}) == newest(3, sets, {3: Fork(parent=2, lsn=2**40)}) == "good"
    assert earliest(sets, [timeline(2, -60)]) == at(0) + timedelta(seconds=1)


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
    old, own = (f"archive/main/{each}/{segment[:16]}" for each in ("15-1", "16-2"))
    clusters = [
        {"id": 1, "repo-key": 1, "system-id": 7001, "version": "15"},
        {"id": 2, "repo-key": 1, "system-id": 7002, "version": "16"},
    ]
    info = json.dumps([{"status": {"code": 0}, "db": clusters, "backup": []}])
    answers = {"info": info, old: f"{segment}-0123abcd.lz4", own: listed.format(segment)}
    repository = PgBackRest(program(tmp_path, f"print({answers}[sys.argv[-1]])"))
    assert await repository.holds("7002", segment) is held


async def test_failures_are_told_in_the_programs_words(tmp_path: Path) -> None:
    full = PgBackRest(program(tmp_path, "print('disk', file=sys.stderr)\nsys.exit(82)"))
    with pytest.raises(RecoveryFailed, match="ended with 82: disk"):
        await full.restore(Undo(label="x", timeline=1))
    with pytest.raises(Conflict, match="holds the lock"):
        await PgBackRest(program(tmp_path, "sys.exit(50)")).back_up("full")
    with pytest.raises(BackupDamaged, match="cannot be read"):
        await PgBackRest(program(tmp_path, "print('no json')")).look(None)
    nowhere = RecoverySettings(stanza="main", control=None, program=(str(tmp_path / "nowhere"),))
    assert await PgBackRest(nowhere).version() is None
    with pytest.raises(BackupFailed, match="cannot be run"):
        await PgBackRest(nowhere).look(None)


@pytest.mark.parametrize(
    ("timeline", "following", "made_before_a_restart", "marked"),
    [(2, 42, False, False), (3, 42, False, True), (2, 43, False, True), (2, 42, True, True)],
)
async def test_a_marker_is_committed_wherever_somebody_has_written(
    timeline: int, following: int, made_before_a_restart: bool, marked: bool
) -> None:
    now = {"segment": "000000020000000000000009", "lsn": "0/9FFFF00", "next": 41}
    written: list[str] = []

    async def read(statement: str) -> list[dict[str, Any]]:
        if statement == STANDING:
            return [{"system_identifier": "7", "segment": now["segment"]}]
        assert statement == COMMITTED
        return [{"at": NOON, "lsn": now["lsn"], "next": now["next"]}]

    async def write(statement: str) -> list[dict[str, Any]]:
        written.append(statement)
        now["lsn"] = "0/9FFFF38"
        return [{"xid": now["next"]}]

    server: Any = SimpleNamespace(read=read, write=write)
    recovery = PostgresRecovery(server, RecoverySettings(stanza="main", control=None))
    last = await recovery.commit(None)
    assert last == Marker(committed_at=NOON, timeline=2, lsn="0/9FFFF38", archived=False)
    # The server itself writes into the log.
    now |= {"segment": f"{timeline:08X}0000000000000009", "lsn": "0/9FFFF70", "next": following}
    if made_before_a_restart:
        recovery = PostgresRecovery(server, RecoverySettings(stanza="main", control=None))
    found = await recovery.commit(last)
    assert written == [COMMIT] * (2 if marked else 1)
    assert (found is not None) == marked


async def test_a_disk_that_is_full_between_two_questions_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def full(argv: Sequence[str]) -> Said:
        asked.append(argv[-1])
        if len(asked) > 1:
            raise OSError(ENOSPC, "No space left on device")
        return Said(code=0, out=json.dumps(INFO), err="")

    monkeypatch.setattr(pgbackrest, "ask", full)
    with pytest.raises(BackupFailed, match="No space left on device"):
        await PgBackRest(program(tmp_path, "")).forks("7001", 2)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """Something that answers whatever it is asked."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("answer", [b"<a/>", b"[]", b"null", b'{"State": {}}', b'{"State": {"Running": true}}'])
async def test_what_is_no_docker_engine_is_told(answer: bytes) -> None:
    async with answering(answer) as socket:
        with pytest.raises(RecoveryFailed, match="is no Docker engine"):
            await control_of(DockerControl(container="pg", socket=socket), 1).is_running()


async def test_a_container_that_waits_to_be_started_again_does_not_run() -> None:
    state = {"Running": True, "Restarting": True, "StartedAt": "2026-01-31T12:00:00Z", "ExitCode": 1}
    for restarting, running in ((True, False), (False, True)):
        async with answering(json.dumps({"State": {**state, "Restarting": restarting}}).encode()) as socket:
            assert await control_of(DockerControl(container="pg", socket=socket), 1).is_running() is running


class Restarted(Commands):
    """A server that was started again by somebody between two looks."""

    def __init__(self) -> None:
        super().__init__(CommandsControl(stop=["false"], start=["false"], status=["true"]), 1)
        self.runs = ["one", "one", "two"]

    async def run_id(self) -> str | None:
        return self.runs.pop(0)

    async def failure_log(self) -> str:
        return "FATAL:  of the first run"


class Recovering:
    """A server in recovery: what it tells at each look, None while it refuses; each takes half a second."""

    def __init__(self, *places: str | None, then: bool = True) -> None:
        self.places = list(places)
        self.recovering = then
        self.asked = 0
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    async def read(self, statement: str, *_: Any) -> list[dict[str, Any]]:
        if "pg_control_system" in statement:
            return [{"system_identifier": "7001", "segment": "000000020000000000000003"}]
        self.asked += 1
        self.now += 0.5
        place = self.places[min(self.asked, len(self.places)) - 1]
        if self.asked > len(self.places) and not self.recovering:
            return [{"recovering": False, "replayed": place}]
        if place is None:
            raise EngineUnavailable("the database system is starting up")
        return [{"recovering": True, "replayed": place}]


def recovering(server: Recovering, control: Commands) -> PostgresRecovery:
    recovery = PostgresRecovery(cast("PostgresServer", server), RecoverySettings(stanza="main", control=None))
    recovery._control = control
    return recovery


class Running(Commands):
    """A server that runs, with a log that goes on at each look."""

    def __init__(self, *segments: int) -> None:
        super().__init__(CommandsControl(stop=["false"], start=["false"], status=["true"]), 1)
        self.segments = list(segments)

    async def run_id(self) -> str | None:
        return "runs"

    async def failure_log(self) -> str:
        if len(self.segments) > 1:
            self.segments.pop(0)
        # Those who knock meanwhile stand there too: that is no progress.
        return f"Log »{self.segments[0]:024X}« wiederhergestellt\n" + "FATAL:  the database system is starting up\n"


@pytest.mark.parametrize("places", [[f"0/{number}" for number in range(12)], [None] * 12])
async def test_a_recovery_may_take_as_long_as_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, places: list[str | None]
) -> None:
    monkeypatch.setattr(promotion, "STILL_SECONDS", 1.0)
    server = Recovering(*places, then=False)
    monkeypatch.setattr(promotion, "time", server)
    monkeypatch.setattr(promotion, "LOOK_SECONDS", 0.0)
    said: list[str] = []
    standing = await recovering(server, Running(*range(1, 20))).wait_promoted(
        lambda _percent, words: said.append(words)
    )
    assert standing.timeline == 2
    assert any("at 0/5" in words or f"at {5:024X} (the database" in words for words in said)


@pytest.mark.parametrize("place", ["0/3000148", None])
async def test_a_recovery_that_does_not_go_on_is_told_with_its_place(
    monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    monkeypatch.setattr(promotion, "STILL_SECONDS", 2.0)
    server = Recovering(place)
    monkeypatch.setattr(promotion, "time", server)
    monkeypatch.setattr(promotion, "LOOK_SECONDS", 0.0)
    with pytest.raises(RecoveryFailed, match=rf"still recovers, .* it is at {place or '0{23}7'}\."):
        await recovering(server, Running(7)).wait_promoted(lambda _percent, _words: None)


async def test_a_server_that_was_started_again_while_it_recovered_has_failed() -> None:
    recovery = recovering(Recovering("0/1"), Restarted())
    with pytest.raises(RecoveryFailed, match="ended while it recovered: FATAL:  of the first run"):
        await recovery.wait_promoted(lambda _percent, _words: None)


@pytest.mark.parametrize("socket", ["http://127.0.0.1:99999999", "http://x:port", "http://[::1"])
async def test_an_address_that_cannot_be_is_told(socket: str) -> None:
    with pytest.raises(RecoveryFailed, match="Docker does not answer at"):
        await control_of(DockerControl(container="pg", socket=socket), 1).is_running()


async def test_a_program_that_does_not_end_keeps_no_request_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "ASK_SECONDS", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    at_work = f"open({str(tmp_path / 'began')!r}, 'w').close(); time.sleep(60)"
    repository = PgBackRest(program(tmp_path, f"{deaf}; {at_work}"))
    control = control_of(CommandsControl(stop=["true"], start=["true"], status=[str(tmp_path / "pgbackrest")]), 5)
    for question in (repository.look, lambda _: repository.version(), lambda _: control.is_running()):
        asked = asyncio.ensure_future(question(None))
        async with asyncio.timeout(20):
            while not (tmp_path / "began").exists():  # noqa: ASYNC110 - a process has no event
                await asyncio.sleep(0.01)
        asked.cancel()
        done, _ = await asyncio.wait({asked}, timeout=25)
        assert done
        assert asked.cancelled()
        (tmp_path / "began").unlink()


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
