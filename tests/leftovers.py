"""What processes leave behind, as the kernel tells it."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.live.admins import refuse_admins


def parent_of(pid: int) -> int | None:
    """Give the parent of a process that runs, None for one that ended (a zombie has)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = stat.rpartition(b")")[2].split()[:2]
    return None if state == b"Z" else int(parent)


def command_of(pid: int) -> str:
    """Give a process's command line with spaces, or the title it gave itself; empty for one that ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descendants(pid: int) -> set[int]:
    """List the processes that descend from one."""
    parents = {int(entry.name): parent_of(int(entry.name)) for entry in Path("/proc").glob("[0-9]*")}
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Ask again and again until it is true; tell whether it came to be."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def all_gone(pids: set[int]) -> bool:
    return all(parent_of(pid) is None for pid in pids)


class OtherProgram:
    """A Python program that prints lines and then waits for its end: at the latest that of the `with` block."""

    def __init__(self, source: str, *arguments: str) -> None:
        refuse_admins(" ".join(arguments))
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def line(self) -> str:
        assert self.process.stdout is not None
        text = self.process.stdout.readline().strip()
        assert text, "the program ended instead of printing a line"
        return text

    def end(self, signal_number: int) -> int:
        self.process.send_signal(signal_number)
        return self.process.wait(30)
