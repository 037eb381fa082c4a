"""Programs of the demo end with it, however it ends, and leave no file behind."""

import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from agent.demo.processes import (
    OWN_USER,
    DemoError,
    NotReady,
    ProcessFailed,
    RunFolder,
    ServerUser,
    Supervised,
    free_port,
    server_users,
)
from agent.demo.started import LeftOut, StartedEngine, first_that_starts, new_password
from tests.leftovers import OtherProgram, all_gone, command_of, descendants, wait_until

# A server that listens to nobody: it starts a daemon that leaves its session and parent, says so, and waits.
FAMILY = """
setsid sh -c 'sleep 1000 & echo $! > daemon; wait' &
while [ ! -s daemon ]; do sleep 0.01; done
exec sleep 1000
"""

PARENT = """
import sys, time
from pathlib import Path
from agent.demo.processes import RunFolder

with RunFolder() as run:
    folder = run.server_folder("server")
    run.start(folder, ["sh", "-c", sys.argv[1]])
    while not (folder / "daemon").exists() or not (folder / "daemon").read_text():
        time.sleep(0.01)
    print(run.path, flush=True)
    time.sleep(1000)
"""


def start_family(run: RunFolder) -> tuple[Supervised, set[int]]:
    folder = run.server_folder("server")
    program = run.start(folder, ["sh", "-c", FAMILY])
    assert wait_until(lambda: (folder / "daemon").exists() and bool((folder / "daemon").read_text()))
    pids = descendants(os.getpid())
    assert int((folder / "daemon").read_text()) in pids
    return program, pids


def test_closing_ends_every_descendant_and_removes_the_folder() -> None:
    before = descendants(os.getpid())
    with RunFolder() as run:
        _, pids = start_family(run)
        assert run.path.is_dir()

    assert not run.path.exists()
    assert all_gone(pids - before)


def test_an_error_inside_ends_everything_too() -> None:
    before = descendants(os.getpid())
    run = RunFolder()
    pids = set[int]()
    with pytest.raises(ZeroDivisionError), run:
        pids |= start_family(run)[1]
        _ = 1 / 0

    assert pids > before
    assert not run.path.exists()
    assert all_gone(pids - before)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_is_left_when_the_parent_is_ended_by(how: signal.Signals) -> None:
    # Whoever started the tests may have them ignore SIGHUP (nohup) or SIGINT (a shell's &), which programs hand on.
    listening = {
        signal.SIGHUP: "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n",
        signal.SIGINT: "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n",
    }.get(how, "")
    with OtherProgram(listening + PARENT, FAMILY) as parent:
        folder = Path(parent.line())
        pids = descendants(parent.process.pid)
        assert len(pids) >= 5  # the keeper, a supervisor, its program, the daemon's shell, the daemon

        assert parent.end(how) != 0

    assert wait_until(lambda: all_gone(pids))
    assert wait_until(lambda: not folder.exists())


def test_a_killed_supervisor_takes_its_program_along() -> None:
    with RunFolder(OWN_USER) as run:
        program = run.start(run.server_folder("server"), ["sleep", "1000"])
        supervisor = program._process.pid
        assert wait_until(lambda: bool(descendants(supervisor)))
        pids = descendants(supervisor)

        os.kill(supervisor, signal.SIGKILL)

        assert wait_until(lambda: all_gone(pids))


def test_what_a_program_leaves_running_ends_with_it() -> None:
    with RunFolder() as run:
        program, pids = start_family(run)
        daemon = int((run.path / "server" / "daemon").read_text())

        def main() -> list[int]:
            return [pid for pid in pids - {daemon} if command_of(pid) == "sleep 1000"]

        # The program's shell says that the daemon runs before it becomes `sleep` itself.
        assert wait_until(lambda: bool(main()))

        os.kill(main()[0], signal.SIGKILL)

        assert program.wait(10) == 128 + signal.SIGKILL
        assert all_gone({daemon})


def test_a_program_gets_the_stop_signal_that_was_asked_for() -> None:
    with RunFolder() as run:
        folder = run.server_folder("server")
        script = "trap 'echo interrupted > said; exit 0' INT; touch ready; while :; do sleep 0.01; done"
        program = run.start(folder, ["sh", "-c", script], stop_signal=signal.SIGINT)
        assert wait_until((folder / "ready").exists)

        program.ask_stop()

        assert program.wait(10) == 0
        assert (folder / "said").read_text() == "interrupted\n"


def test_a_failed_program_is_told_by_its_code_and_last_words() -> None:
    with (
        RunFolder() as run,
        pytest.raises(ProcessFailed, match=r"sh ended with code 3: no such locale$"),
    ):
        run.run(run.server_folder("server"), ["sh", "-c", "echo first; echo no such locale; exit 3"], seconds=10)


def test_a_program_that_does_not_exist_is_told() -> None:
    with RunFolder() as run, pytest.raises(ProcessFailed, match="No such file or directory: '/nonexistent/mongod'"):
        run.run(run.server_folder("server"), ["/nonexistent/mongod"], seconds=10)


def test_a_server_that_never_answers_has_a_limit() -> None:
    with RunFolder() as run:
        program = run.start(run.server_folder("server"), ["sleep", "1000"])
        with pytest.raises(NotReady, match="sleep does not answer after 0 s"):
            program.wait_until(lambda: False, 0.2)


def test_nothing_starts_once_the_end_has_begun() -> None:
    with RunFolder() as run:
        folder = run.server_folder("server")
        run.stop_programs()
        with pytest.raises(ProcessFailed, match="the demo is ending"):
            run.start(folder, ["sleep", "1000"])


def test_a_port_that_someone_took_meanwhile_is_tried_no_more() -> None:
    tried: list[int] = []
    with RunFolder() as run, socket.socket() as other:
        folder = run.server_folder("server")

        def start(port: int) -> Supervised:
            tried.append(port)
            if len(tried) == 1:  # the other one is faster
                other.bind(("127.0.0.1", port))
                other.listen()
                return run.start(folder, ["sh", "-c", "echo address in use; exit 1"])
            return run.start(folder, ["sleep", "1000"])

        _, port = run.start_on_free_port(start, lambda port: port == tried[-1] and len(tried) == 2, seconds=10)

    assert port == tried[1] != tried[0]


def test_a_server_that_fails_for_itself_is_not_tried_again() -> None:
    tried: list[int] = []
    with RunFolder() as run:
        folder = run.server_folder("server")

        def start(port: int) -> Supervised:
            tried.append(port)
            return run.start(folder, ["sh", "-c", "exit 1"])

        with pytest.raises(ProcessFailed):
            run.start_on_free_port(start, lambda _: False, seconds=10)

    assert len(tried) == 1


def test_servers_do_not_see_the_callers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("LD_PRELOAD_OF_THE_CALLER", "x")
    with RunFolder() as run:
        folder = run.server_folder("server")
        program = run.run(folder, ["env"], environment={"LD_LIBRARY_PATH": "/l"}, seconds=10)
        seen = dict(line.split("=", 1) for line in program.log.read_text().splitlines())

    assert seen.keys() - {"PWD", "TZ"} == {"PATH", "LC_ALL", "HOME", "LD_LIBRARY_PATH", "TMPDIR"}
    assert seen["TMPDIR"] == str(folder), "the caller's may be closed to the servers' user"


@pytest.mark.parametrize("user", [user for user in server_users() if user.uid is not None], ids=str)
def test_a_temporary_folder_that_is_closed_to_the_servers_user_is_named(
    user: ServerUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(DemoError, match=f"^{tmp_path} is closed to whom servers run as: set TMPDIR"):
        RunFolder(user)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("user", server_users(), ids=lambda user: f"uid={user.uid} prefix={bool(user.prefix)}")
def test_servers_never_see_themselves_as_root_and_own_their_folder(user) -> None:
    with RunFolder(user) as run:
        folder = run.server_folder("server")
        run.write_secret(folder / "password", "secret")
        program = run.run(
            folder, ["sh", "-c", "id -u; cat password; stat -c %a . password; touch mine"], seconds=10, name="look"
        )
        lines = program.log.read_text().split()

        assert lines[0] != "0"
        assert lines[1:] == ["secret700", "600"]
        assert stat.S_IMODE(run.path.stat().st_mode) in {0o700, 0o711}


@pytest.mark.parametrize("user", server_users(), ids=lambda user: f"uid={user.uid} prefix={bool(user.prefix)}")
def test_a_program_in_a_closed_folder_is_copied_to_where_it_can_be_run(user, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/server").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "bin/server").chmod(0o700)
    (tmp_path / "bin/alias").symlink_to("server")
    (tmp_path / "unrelated").touch()
    with RunFolder(user) as run:
        tree = run.readable(tmp_path, ("bin",), Path("bin/server"))
        program = run.run(run.server_folder("server"), [tree / "bin/alias"], seconds=10)

        assert program.log.read_text() == "ran\n"
        assert (tree == tmp_path) == (user.uid is None)
        assert tree == tmp_path or not (tree / "unrelated").exists()


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


def test_no_password_is_shown_with_an_engine() -> None:
    password = new_password()
    engine = StartedEngine("mysql", "10.11", 3306, "root", password, f"mysql://root:{password}@127.0.0.1:3306/mysql")

    assert password not in repr(engine)
    assert len(password) == 32
    assert password != new_password()


def test_the_installed_server_comes_first_and_the_fetched_one_when_it_fails() -> None:
    engine = StartedEngine("mysql", "10.11", 3306, "root", "", "")
    told: list[tuple[str, str]] = []

    def confined() -> StartedEngine:
        raise ProcessFailed("mysqld ended with code 1: Permission denied")

    def unexpected() -> StartedEngine:
        pytest.fail("the first one started")

    assert first_that_starts("mysql", lambda *line: told.append(line), [lambda: engine, unexpected]) is engine
    assert told == []
    assert first_that_starts("mysql", lambda *line: told.append(line), [confined, lambda: engine]) is engine
    assert told == [("mysql", "not with the one installed: mysqld ended with code 1: Permission denied")]


def test_an_engine_that_cannot_be_had_says_why() -> None:
    def none() -> StartedEngine:
        raise LeftOut("no apt")

    with pytest.raises(LeftOut, match="no apt"):
        first_that_starts("influxdb", lambda *_: None, [none])
