"""Keep what the demo started from outliving it. A program of its own, run as `python -I -S supervise.py …`.

`keep FOLDER` removes the folder, and `run FOLDER SIGNAL USER COMMAND…` stops the command with that signal, as soon as
their standard input ends: when the demo closes it, and just as well when the demo was killed and the kernel does.
`USER` is a numeric id for root to give up its own for, or `-`.

The supervisors hold a shared lock on the folder, the keeper waits for an exclusive one: so the folder goes when
nothing can write into it any more. A supervisor is the subreaper (prctl(2)) of its command: a backend whose
postmaster died becomes its child and is waited for like the others, whatever its user, session or title.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STOP_LIMIT_SECONDS = 10.0
POLL_SECONDS = 0.1

LIBC = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """Set one attribute of this process.

    Raises: OSError
    """
    if LIBC.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def lock_folder(folder: Path, operation: int) -> None:
    """Lock a folder for as long as this process lives.

    Raises: FileNotFoundError, BlockingIOError (with LOCK_NB)
    """
    fcntl.flock(os.open(folder, os.O_RDONLY | os.O_DIRECTORY), operation)


def keep(folder: Path) -> int:
    """Wait for the end of standard input and of every supervisor, then remove the folder."""
    sys.stdin.buffer.read()
    lock_folder(folder, fcntl.LOCK_EX)
    shutil.rmtree(folder)
    return 0


def children() -> list[int]:
    """List the processes whose parent is this one."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended between the listing and the reading
            # The second field is the title in brackets and may hold anything: the parent is the second field after it.
            if int(stat.rpartition(b")")[2].split()[1]) == os.getpid():
                found.append(int(entry.name))
    return found


class Family:
    """A command with all that descends from it."""

    def __init__(self, command: list[str], user: int | None) -> None:
        """Start the command. From then on SIGCHLD, SIGINT and SIGTERM to this process end a `pause`.

        Raises: OSError
        """
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        own_pid = os.getpid()

        def end_with_this_process() -> None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != own_pid:
                os._exit(1)  # it was killed just before

        self.exit_code: int | None = None
        self.stop_asked = False
        self._wake, write_end = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._child_ended)
        for asked in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(asked, self._ask_stop)
        self.main = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            # Only for the case that this process is killed too. It runs after the change of user, which would undo it.
            # Python code between fork and exec can hang in a program with threads, which this one has not.
            preexec_fn=end_with_this_process,  # noqa: PLW1509
        )

    def _child_ended(self, *_: object) -> None:
        """Take no notice: the wake-up that comes with a handler is what ends a `pause`."""

    def _ask_stop(self, *_: object) -> None:
        self.stop_asked = True

    def pause(self, seconds: float | None) -> None:
        """Wait for a signal, the end of standard input, or that long."""
        readable, _, _ = select.select([self._wake] if self.stop_asked else [self._wake, sys.stdin], [], [], seconds)
        if self._wake in readable:
            os.read(self._wake, 4096)
        if sys.stdin in readable and not os.read(sys.stdin.fileno(), 4096):
            self.stop_asked = True

    def reap(self) -> bool:
        """Take leave of those that ended; tell whether any are left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.main.pid:
                self.exit_code = self.main.returncode = os.waitstatus_to_exitcode(status)

    def stop(self, stop_signal: int) -> None:
        """End the command with `stop_signal`, and whatever is left after 10 s with SIGKILL."""
        self.stop_asked = True
        if self.exit_code is None:
            os.kill(self.main.pid, stop_signal)
        deadline = time.monotonic() + STOP_LIMIT_SECONDS
        while self.reap():
            if time.monotonic() > deadline or self.exit_code is not None:
                self._kill_orphans(deadline)
            self.pause(POLL_SECONDS)

    def _kill_orphans(self, deadline: float) -> None:
        for pid in children():
            # Not yet waited for, so the id cannot be another's.
            os.kill(pid, signal.SIGKILL if time.monotonic() > deadline else signal.SIGTERM)


def run(folder: Path, stop_signal: int, user: int | None, command: list[str]) -> int:
    """Run a command until it ends or standard input does; give its exit code, 128 + n for a signal."""
    lock_folder(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
    family = Family(command, user)
    while family.reap() and family.exit_code is None and not family.stop_asked:
        family.pause(None)
    family.stop(stop_signal)
    code = family.exit_code
    if code is None:
        raise RuntimeError(f"nothing is known of how {command[0]} ended")
    return code if code >= 0 else 128 - code


def main(arguments: list[str]) -> int:
    """Do what the module's docstring says."""
    mode, folder, *rest = arguments
    if mode == "keep":
        return keep(Path(folder))
    stop_signal, user, *command = rest
    return run(Path(folder), int(stop_signal), None if user == "-" else int(user), command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
