"""The wrapper entrypoint of deploy/pitr and the control that speaks to it by files, with a stand-in for the server."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.errors import RecoveryFailed
from engines.postgresql.recovery.control import HoldFile
from engines.recovery import HoldFileControl

WRAPPER = Path(__file__).parents[3] / "deploy" / "pitr" / "postgres-or-hold"
# As PostgreSQL does, it takes SIGINT although a shell starts what is in the background without.
SERVER = """
import os, pathlib, signal, sys
pid_file = pathlib.Path(os.environ["DATA"], "postmaster.pid")
def stop(*_):
    pid_file.unlink()
    sys.exit()
signal.signal(signal.SIGINT, stop)
beside = pid_file.with_suffix(".new")
beside.write_text(f"{os.getpid()}\\n")
beside.rename(pid_file)
while True:
    signal.pause()
"""


@dataclass
class Held:
    folder: Path
    process: "subprocess.Popen[bytes]"

    @property
    def control(self) -> HoldFile:
        return HoldFile(HoldFileControl(path=self.folder / "hold", data=self.folder), 5)

    def pid(self) -> int:
        return int((self.folder / "postmaster.pid").read_text())


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    environment = {**os.environ, "HOLD": str(tmp_path / "hold"), "DATA": str(tmp_path)}
    process = subprocess.Popen([str(WRAPPER), sys.executable, "-c", SERVER], env=environment)
    yield Held(tmp_path, process)
    process.terminate()
    process.wait(10)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a process has no event
            await asyncio.sleep(0.02)


async def test_a_server_that_was_stopped_stays_down_until_it_is_started(held: Held) -> None:
    await until((held.folder / "postmaster.pid").exists)
    before = held.pid()
    await held.control.stop()
    assert not await held.control.is_running()
    assert (held.folder / "hold.held").exists()
    await asyncio.sleep(1.5)  # longer than the wrapper waits before it starts a server again
    assert not await held.control.is_running()
    await held.control.stop()
    await held.control.start()
    assert await held.control.is_running()
    assert held.pid() != before
    assert not (held.folder / "hold.held").exists()
    await held.control.start()
    assert held.process.poll() is None


async def test_a_server_that_ends_by_itself_is_started_again_unless_it_is_held(held: Held) -> None:
    await until((held.folder / "postmaster.pid").exists)
    before = held.pid()
    os.kill(before, signal.SIGKILL)
    await until(lambda: held.pid() != before)
    os.kill(held.pid(), signal.SIGKILL)
    await held.control.stop()  # whether the wrapper is about to start one or not
    assert (held.folder / "hold.held").exists()
    await asyncio.sleep(1.5)
    assert not await held.control.is_running()


async def test_the_wrapper_ends_with_its_server_when_it_is_told_to(held: Held) -> None:
    await until((held.folder / "postmaster.pid").exists)
    held.process.terminate()
    assert held.process.wait(10) == 0
    assert not (held.folder / "postmaster.pid").exists()


async def test_without_a_wrapper_nothing_is_believed_to_be_stopped(tmp_path: Path) -> None:
    control = HoldFile(HoldFileControl(path=tmp_path / "hold", data=tmp_path), 0.3)
    with pytest.raises(RecoveryFailed, match="did not stop"):
        await control.stop()
