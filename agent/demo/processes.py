"""Child processes of the demo in one private temporary folder, all gone when the demo ends, however it ends.

What is started runs under `supervise.py`, which stops it when the demo closes its end of a pipe or is killed.
Database servers refuse to run as root (PostgreSQL, MariaDB) or should not: started by root they get another user.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

SUPERVISE = (sys.executable, "-I", "-S", str(Path(__file__).with_name("supervise.py")))
SUPERVISOR_LIMIT_SECONDS = 20.0
POLL_SECONDS = 0.03
UNPRIVILEGED_USER = 65534
"""`nobody` on Debian and Ubuntu; a number, for the account need not exist."""


class DemoError(Exception):
    """Something the demo needs is not to be had."""


class ProcessFailed(DemoError):
    """A program ended that should not have, or with an exit code other than 0."""


class NotReady(DemoError):
    """A server does not answer within its limit."""


@dataclass(frozen=True, slots=True)
class ServerUser:
    """Who servers run as: this process's own user, or what root becomes for them."""

    uid: int | None = None
    """Another user that root gives up its own for."""
    prefix: tuple[str, ...] = ()
    """A command that runs its arguments as another user."""

    def can_read(self, path: Path) -> bool:
        """Tell whether this user reaches the file: a checkout below /root is closed to others."""
        return _succeeds([*self.prefix, "test", "-r", str(path)], self.uid)

    def can_enter(self, folder: Path) -> bool:
        """Tell whether this user may pass through a folder, and through all above it."""
        return _succeeds([*self.prefix, "test", "-x", str(folder)], self.uid)


OWN_USER = ServerUser()
UNPRIVILEGED = ServerUser(uid=UNPRIVILEGED_USER)
USER_NAMESPACE = ServerUser(
    prefix=("unshare", "--user", f"--map-user={UNPRIVILEGED_USER}", f"--map-group={UNPRIVILEGED_USER}")
)
"""The same user under another number in a user namespace of its own: root's files stay root's, its folders open."""


def server_users() -> list[ServerUser]:
    """List who servers can run as on this machine, the best first.

    Root in a default container may not make a namespace; root of a namespace with one user may not become another.
    """
    if os.geteuid() == 0:
        wanted = [UNPRIVILEGED, USER_NAMESPACE]
    elif _has_account(os.geteuid()):
        return [OWN_USER]
    else:
        wanted = [USER_NAMESPACE]  # initdb looks its user up
    return [user for user in wanted if _succeeds([*user.prefix, "true"], user.uid)]


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _succeeds(command: Sequence[str], uid: int | None) -> bool:
    try:
        done = subprocess.run(
            command, user=uid, group=uid, extra_groups=None if uid is None else [], capture_output=True, check=False
        )
    except OSError:  # EPERM without CAP_SETUID, EINVAL for a number that the namespace does not know, ENOENT
        return False
    return done.returncode == 0


def free_port() -> int:
    """Find a TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Supervised:
    """A program that runs until it ends or is stopped."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, name: str) -> None:
        """Take what `RunFolder.start` started."""
        self._process = process
        self.log = log
        self.name = name

    def exit_code(self) -> int | None:
        """Give the program's exit code (128 + n after signal n), None while it runs."""
        return self._process.poll()

    def ask_stop(self) -> None:
        """Let the program be stopped, without waiting."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self, seconds: float) -> int:
        """Wait for the program's end and give its exit code.

        Raises: ProcessFailed
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as late:
            raise ProcessFailed(f"{self.name} has not ended after {seconds:.0f} s") from late

    def last_words(self) -> str:
        """Give the last line that the program wrote, for a message of one line."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Ask again and again until the program is ready.

        Raises: ProcessFailed, NotReady
        """
        deadline = time.monotonic() + seconds
        while not ready():
            code = self.exit_code()
            if code is not None:
                raise ProcessFailed(f"{self.name} ended with code {code}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise NotReady(f"{self.name} does not answer after {seconds:.0f} s: {self.last_words()}")
            time.sleep(POLL_SECONDS)


class RunFolder:
    """A private temporary folder and the programs that run in it."""

    def __init__(self, user: ServerUser | None = None) -> None:
        """Make the folder; `user` is the first of `server_users` unless it is given.

        Raises: DemoError
        """
        if user is None:
            possible = server_users()
            if not possible:
                raise DemoError("servers must run as an ordinary user with an account, and this one may not become one")
            user = possible[0]
        self.user = user
        self._programs: list[Supervised] = []
        self._lock = threading.Lock()
        self._closed = False
        self.path = Path(tempfile.mkdtemp(prefix="dbvalet-demo-"))
        if self.user.uid is not None:
            self.path.chmod(0o711)  # the servers' user has to pass through it
        if not self.user.can_enter(self.path):
            self.path.rmdir()
            raise DemoError(
                f"{tempfile.gettempdir()} is closed to whom servers run as: set TMPDIR, to /tmp for example"
            )
        self._hold = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._hold, fcntl.LOCK_SH)
        # A session of its own: Ctrl-C at a terminal reaches the whole process group.
        self._keeper = subprocess.Popen(
            [*SUPERVISE, "keep", str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        """Give the folder itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def server_folder(self, name: str) -> Path:
        """Make a folder that belongs to the servers' user."""
        folder = self.path / name
        self.give_folder(folder)
        return folder

    def give_folder(self, folder: Path) -> None:
        """Make a folder within one of the servers' user."""
        folder.mkdir(0o700)
        self.give(folder)

    def give(self, path: Path) -> None:
        """Let a file or a folder belong to the servers' user."""
        if self.user.uid is not None:
            os.chown(path, self.user.uid, self.user.uid, follow_symlinks=False)

    def write_secret(self, path: Path, text: str) -> None:
        """Write a file that only the servers' user can read."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        self.give(path)

    def readable(self, tree: Path, parts: Sequence[str], file: Path) -> Path:
        """Give a tree, or a copy of the named parts of it if the servers' user cannot reach that file of it."""
        if self.user.can_read(tree / file):
            return tree
        copy = self.path / f"copy-for-{file.name}"
        for part in parts:
            shutil.copytree(tree / part, copy / part, symlinks=True)
        for folder, _, files in os.walk(copy):
            for path in (Path(folder), *(Path(folder, name) for name in files)):
                self.give(path)
        return copy

    def start(
        self,
        folder: Path,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        as_server: bool = True,
        name: str | None = None,
    ) -> Supervised:
        """Start a program in a folder; what it writes goes to `NAME.log` there.

        Its environment is `environment` alone with a plain PATH and locale: no PGPORT or LD_PRELOAD of the caller,
        whose TMPDIR may be closed to the servers' user.
        `as_server=False` leaves it this process's own user and environment.

        Raises: ProcessFailed
        """
        name = name or Path(command[0]).name
        user = self.user if as_server else OWN_USER
        inherited = {**plain_environment(), "TMPDIR": str(folder)} if as_server else dict(os.environ)
        log = folder / f"{name}.log"
        with self._lock, log.open("ab") as output:
            if self._closed:
                raise ProcessFailed(f"{name} is not started: the demo is ending")
            process = subprocess.Popen(
                [
                    *SUPERVISE,
                    "run",
                    str(self.path),
                    str(int(stop_signal)),
                    "-" if user.uid is None else str(user.uid),
                    *user.prefix,
                    *map(str, command),
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**inherited, **(environment or {})},
                start_new_session=True,
            )
            program = Supervised(process, log, name)
            self._programs.append(program)
        return program

    def run(
        self,
        folder: Path,
        command: Sequence[str | Path],
        *,
        seconds: float,
        environment: Mapping[str, str] | None = None,
        as_server: bool = True,
        name: str | None = None,
    ) -> Supervised:
        """Run a program to its end.

        Raises: ProcessFailed
        """
        program = self.start(folder, command, environment=environment, as_server=as_server, name=name)
        try:
            code = program.wait(seconds)
        finally:
            program.ask_stop()
        if code != 0:
            raise ProcessFailed(f"{program.name} ended with code {code}: {program.last_words()}")
        return program

    def output(self, *command: str) -> str:
        """Give what a short command of the machine's prints."""
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=plain_environment(),
            timeout=30,
        )
        return done.stdout + done.stderr

    def start_on_free_port(
        self, start: Callable[[int], Supervised], ready: Callable[[int], bool], *, seconds: float
    ) -> tuple[Supervised, int]:
        """Start a server on a port of its own, on another one if someone takes it first.

        Raises: ProcessFailed, NotReady
        """
        attempts_left = 4
        while True:
            port = free_port()
            program = start(port)
            attempts_left -= 1
            try:
                program.wait_until(lambda port=port: ready(port), seconds)
            except ProcessFailed:
                if attempts_left == 0 or port_is_free(port):
                    raise
            else:
                return program, port

    def stop_programs(self) -> None:
        """Stop what runs, all at once, and start nothing more.

        Raises: ProcessFailed
        """
        with self._lock:
            self._closed = True
        for program in self._programs:
            program.ask_stop()
        for program in self._programs:
            program.wait(SUPERVISOR_LIMIT_SECONDS)

    def close(self) -> None:
        """Stop what runs and remove the folder.

        Raises: ProcessFailed
        """
        if self._keeper.returncode is not None:
            return
        try:
            self.stop_programs()
        finally:
            os.close(self._hold)
            if self._keeper.stdin is not None:
                self._keeper.stdin.close()
            self._keeper.wait(SUPERVISOR_LIMIT_SECONDS)


def plain_environment() -> dict[str, str]:
    """Give servers a path, a locale that is always there, and the caller's time zone."""
    zone = {"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", **zone}
