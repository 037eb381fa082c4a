"""Dump or restore in a process: `python -m tests.live.mongodb.backup_child dump|restore URL FOLDER [BYTES|WORDS]`.

Prints each step, then how many bytes its memory rose, or the error. BYTES is the most that a file may have.
It is killed in the step that WORDS name.
"""

import asyncio
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

from engines.backup import Progress
from engines.engine import Server
from engines.mongodb import ENGINE
from engines.mongodb.backup import MongoBackups
from tests.live.mongodb.conftest import connect


def memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def begin_the_peak_anew() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def backups_of(server: Server) -> MongoBackups:
    backups = ENGINE.backups_of(server)
    assert isinstance(backups, MongoBackups)
    return backups


def telling(dies_at: str) -> Progress:
    def tell(percent: float, words: str) -> None:
        print(f"{percent:.0f} {words}", flush=True)
        if words == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return tell


async def main(work: str, url: str, folder: Path, most: int | None, dies_at: str) -> None:
    server = connect(url)
    backups = backups_of(server)
    await backups.missing()
    with tempfile.TemporaryDirectory() as first:
        # What is imported for the first dump is no use of memory by a larger one.
        empty = connect(url.replace("/big?", "/nothing?"))
        await backups_of(empty).dump(Path(first), lambda _, __: None)
        await empty.close()
    if most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    before = begin_the_peak_anew()
    try:
        await getattr(backups, work)(folder, telling(dies_at))
    except OSError as full:
        print(f"OSError {full.strerror}")
    else:
        print(memory("VmHWM") - before)
    await server.close()


if __name__ == "__main__":
    given = sys.argv[4] if len(sys.argv) > 4 else ""
    most = int(given) if given.isdecimal() else None
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), most, given))
