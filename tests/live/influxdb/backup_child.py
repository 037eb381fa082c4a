"""Dump or restore in a process: `python -m tests.live.influxdb.backup_child dump|restore URL FOLDER [BYTES|WORDS]`.

Prints each step, then how many bytes its memory rose, or the error. BYTES is the most that a file may have.
It is killed in the step that WORDS name.
"""

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

from engines.backup import Progress
from engines.influxdb.backup import InfluxBackups
from tests.live.influxdb.conftest import connect


def memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def begin_the_peak_anew() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def telling(dies_at: str) -> Progress:
    def tell(percent: float, words: str) -> None:
        print(f"{percent:.0f} {words}", flush=True)
        if words == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return tell


async def main(work: str, url: str, folder: Path, most: int | None, dies_at: str) -> None:
    server = connect(url)
    backups = InfluxBackups(server)
    # What is imported first is no use of memory by the backup.
    await backups.missing()
    await backups.clean_up()
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
