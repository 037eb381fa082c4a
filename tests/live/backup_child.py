"""What `tests.live.mongodb.backup_child` and the one of InfluxDB do: dump or restore in a process of its own."""

import os
import resource
import signal
import sys
from pathlib import Path

from engines.backup import Backups, Progress


def arguments() -> tuple[str, str, Path, str]:
    """Give what is to be done, with which URL and folder, and BYTES or WORDS."""
    work, url, folder, *more = sys.argv[1:]
    return work, url, Path(folder), more[0] if more else ""


async def work_on(backups: Backups, work: str, folder: Path, given: str) -> None:
    """Dump or restore; print each step, then how many bytes the memory of this process rose, or the error.

    given: the most bytes that a file may have, or the words of the step in which the process is killed, or nothing.
    """
    if given.isdecimal():
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(given), int(given)))
    before = _begin_the_peak_anew()
    try:
        await getattr(backups, work)(folder, _telling(given))
    except OSError as full:
        print(f"OSError {full.strerror}")
    else:
        print(_memory("VmHWM") - before)


def _telling(dies_at: str) -> Progress:
    def tell(percent: float, words: str) -> None:
        print(f"{percent:.0f} {words}", flush=True)
        if words == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return tell


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _begin_the_peak_anew() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")
