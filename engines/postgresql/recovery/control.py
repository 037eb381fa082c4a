"""Who stops and starts the server: Docker, the user's own commands, pg_ctl, or a hold file on Kubernetes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engines.errors import RecoveryFailed
from engines.postgresql.recovery.programs import Said, ask, run
from engines.recovery import (
    CommandsControl,
    Control,
    DockerControl,
    HoldFileControl,
    PgCtlControl,
)
from engines.threads import in_own_thread

START_SECONDS = 120.0
"""How long an entrypoint may take to notice that it may go on."""

ANSWER_SECONDS = 10.0

STOPPED_ALREADY, KILLED = 304, 137
"""What Docker answers to stopping a stopped container; the exit code of one that ended by SIGKILL."""

LOG_BYTES = 20_000

LOG_LINES = 60


class ServerControl(Protocol):
    """Stops and starts one server. Each method raises RecoveryFailed when it cannot."""

    async def is_running(self) -> bool:
        """Tell whether its process runs."""
        ...

    async def run_id(self) -> str | None:
        """Tell this run of it from the next one, where others may start it again too; None while it does not run."""
        ...

    async def stop(self) -> None:
        """Stop it cleanly; it is stopped when this returns, and stays so. Does nothing to a stopped one."""
        ...

    async def start(self) -> None:
        """Start it; its process runs when this returns, and it may recover for long. Does nothing to one that runs."""
        ...

    async def failure_log(self) -> str:
        """Give the last lines of its log, or nothing when there is none to read."""
        ...


def control_of(chosen: Control, stop_seconds: float) -> ServerControl:
    """Make the control that the configuration names. A stop takes a checkpoint's time: cut short it ends in SIGKILL."""
    match chosen:
        case DockerControl():
            return Docker(chosen, stop_seconds)
        case CommandsControl():
            return Commands(chosen, stop_seconds)
        case PgCtlControl():
            return Commands(pg_ctl(chosen, stop_seconds), stop_seconds)
        case HoldFileControl():
            return HoldFile(chosen, stop_seconds)


def pg_ctl(chosen: PgCtlControl, stop_seconds: float) -> CommandsControl:
    """Give the commands that pg_ctl takes."""
    account = ["runuser", "-u", chosen.run_as, "--"] if chosen.run_as else []
    begin = [*account, str(chosen.program), "-D", str(chosen.data)]
    options = ["-o", " ".join(chosen.options)] if chosen.options else []
    return CommandsControl(
        stop=[*begin, "stop", "-m", "fast", "-w", "-t", f"{stop_seconds:.0f}"],
        # Without -l the server keeps our files open; with -w pg_ctl gives up on a long recovery.
        start=[*begin, "start", "-W", "-l", str(chosen.log), *options],
        status=[*begin, "status"],
        log=chosen.log,
    )


async def _succeeded(argv: Sequence[str], what: str) -> Said:
    try:
        said = await run(argv)
    except OSError as problem:
        raise RecoveryFailed(f"The server cannot be {what}: {argv[0]} cannot be run: {problem.strerror}.") from problem
    if said.code != 0:
        raise RecoveryFailed(f"The server was not {what}: {argv[0]} ended with {said.code}: {said.words}")
    return said


async def _ended(is_running: Callable[[], Awaitable[bool]], seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    while await is_running():
        if time.monotonic() > ends_at:
            raise RecoveryFailed(f"The server did not stop within {seconds:g} s. Nothing was restored.")
        await asyncio.sleep(0.1)


def _end_of(log: Path | None) -> str:
    if log is None:
        return ""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


class Commands:
    """The user's own commands, as lists of arguments: no shell reads them. `status` ends with 0 while it runs."""

    def __init__(self, chosen: CommandsControl, stop_seconds: float) -> None:
        self._chosen, self._stop_seconds = chosen, stop_seconds

    async def is_running(self) -> bool:
        """Ask the status command."""
        try:
            return (await ask(self._chosen.status)).code == 0
        except OSError as problem:
            raise RecoveryFailed(f"{self._chosen.status[0]} cannot be run: {problem.strerror}.") from problem

    async def run_id(self) -> str | None:
        """Ask the status command: one run is not told from another."""
        return "runs" if await self.is_running() else None

    async def stop(self) -> None:
        """Run the stop command and make sure."""
        if await self.is_running():
            await _succeeded(self._chosen.stop, "stopped")
            await _ended(self.is_running, self._stop_seconds)

    async def start(self) -> None:
        """Run the start command."""
        if not await self.is_running():
            await _succeeded(self._chosen.start, "started")

    async def failure_log(self) -> str:
        """Read the end of the log file."""
        return await in_own_thread(_end_of, self._chosen.log)


class HoldFile:
    """A wrapper entrypoint that starts no server while a file is there; the server is asked to stop by its pid file.

    While the wrapper holds, a second file is there, of the same name and `.held`: without it the wrapper may have
    looked for the first one just before that was made, and be about to start a server.

    For Kubernetes, where the containers of a pod share processes and volumes, and nobody can stop one of them for long.
    """

    def __init__(self, chosen: HoldFileControl, stop_seconds: float) -> None:
        self._hold, self._log, self._stop_seconds = chosen.path, chosen.log, stop_seconds
        self._held = chosen.path.with_name(f"{chosen.path.name}.held")
        self._pid_file = chosen.data / "postmaster.pid"

    async def is_running(self) -> bool:
        """Tell whether the process in the pid file lives: the pods' processes are visible here."""
        pid = self._pid()
        if pid is None:
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    async def run_id(self) -> str | None:
        """Give its process id: the entrypoint starts a server that has ended again."""
        return str(self._pid()) if await self.is_running() else None

    async def stop(self) -> None:
        """Hold the next start back, then ask for a fast shutdown (SIGINT).

        Raises: RecoveryFailed
        """
        try:
            await in_own_thread(self._hold.touch)
            pid = self._pid()
            if pid is not None:
                os.kill(pid, signal.SIGINT)
        except ProcessLookupError:
            pass  # it has ended by itself
        except OSError as problem:
            raise RecoveryFailed(f"The server cannot be stopped: {problem.strerror}.") from problem
        await _ended(self._runs_or_may_start, self._stop_seconds)

    async def _runs_or_may_start(self) -> bool:
        return not await in_own_thread(self._held.exists) or await self.is_running()

    async def start(self) -> None:
        """Let the entrypoint go on.

        Raises: RecoveryFailed
        """
        try:
            await in_own_thread(self._hold.unlink, missing_ok=True)
        except OSError as problem:
            raise RecoveryFailed(f"The server cannot be started: {problem.strerror}.") from problem
        ends_at = time.monotonic() + START_SECONDS
        while not await self.is_running():
            if time.monotonic() > ends_at:
                raise RecoveryFailed("The server was not started by its entrypoint.")
            await asyncio.sleep(0.2)

    async def failure_log(self) -> str:
        """Read the end of the log file, where the server writes one."""
        return await in_own_thread(_end_of, self._log)

    def _pid(self) -> int | None:
        try:
            first = self._pid_file.read_text(encoding="ascii").split("\n", 1)[0]
            return int(first)
        except (OSError, ValueError):
            return None


@dataclass(frozen=True, kw_only=True)
class ContainerState:
    """What Docker says of a container."""

    running: bool
    started_at: str
    exit_code: int


class Docker:
    """One container, through the Docker Engine API on a socket or behind a proxy that lets these four calls through."""

    def __init__(self, chosen: DockerControl, stop_seconds: float) -> None:
        self._container, self._socket, self._stop_seconds = chosen.container, chosen.socket, stop_seconds

    async def is_running(self) -> bool:
        """Inspect the container."""
        return await self.run_id() is not None

    async def run_id(self) -> str | None:
        """Inspect the container: its restart policy starts a server that has ended again, and again."""
        state = await self._state()
        return state.started_at if state.running else None

    async def _state(self) -> ContainerState:
        answer = await self._ask("GET", "json")
        try:
            found = answer.json()["State"]
            return ContainerState(
                # While it waits to be started again, Docker says that it runs.
                running=bool(found["Running"]) and not found.get("Restarting"),
                started_at=str(found["StartedAt"]),
                exit_code=int(found["ExitCode"]),
            )
        except (ValueError, KeyError, TypeError) as problem:
            raise RecoveryFailed(
                f"What answers at {self._socket} is no Docker engine: {answer.text[:300]}"
            ) from problem

    async def stop(self) -> None:
        """Stop the container with time for a checkpoint: official images stop by SIGINT, a fast shutdown.

        Raises: RecoveryFailed, also when Docker killed it in the end: its last log is then not in the archive
        """
        said = await self._ask("POST", f"stop?t={self._stop_seconds:.0f}", self._stop_seconds + ANSWER_SECONDS)
        await _ended(self.is_running, self._stop_seconds)
        if said.status_code != STOPPED_ALREADY and (await self._state()).exit_code == KILLED:
            raise RecoveryFailed(f"The server did not stop within {self._stop_seconds:g} s, and Docker killed it.")

    async def start(self) -> None:
        """Start the container."""
        await self._ask("POST", "start")

    async def failure_log(self) -> str:
        """Read the container's last lines."""
        answer = await self._ask("GET", f"logs?stdout=1&stderr=1&tail={LOG_LINES}")
        return _without_frames(answer.content).decode(errors="replace")

    async def _ask(self, method: str, path: str, seconds: float = ANSWER_SECONDS) -> Any:
        import httpx

        scheme, _, place = self._socket.partition("://")
        transport = httpx.AsyncHTTPTransport(uds=place) if scheme == "unix" else httpx.AsyncHTTPTransport()
        base = "http://docker" if scheme == "unix" else self._socket
        try:
            async with httpx.AsyncClient(transport=transport, timeout=seconds, trust_env=False) as client:
                answer = await client.request(method, f"{base}/containers/{self._container}/{path}")
        # An address that cannot be is in httpx's own words, or in those of what lies below it.
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ExceptionGroup) as problem:
            raise RecoveryFailed(f"Docker does not answer at {self._socket}: {problem}.") from problem
        if answer.status_code >= 400:
            raise RecoveryFailed(f"Docker refuses {path.partition('?')[0]} of {self._container}: {answer.text[:300]}")
        return answer


def _without_frames(content: bytes) -> bytes:
    """Take the headers out of a multiplexed stream: eight bytes, of which the last four are a length."""
    text, at = b"", 0
    while at + 8 <= len(content) and content[at] in (0, 1, 2) and content[at + 1 : at + 4] == b"\0\0\0":
        length = int.from_bytes(content[at + 4 : at + 8])
        text += content[at + 8 : at + 8 + length]
        at += 8 + length
    return text + content[at:]
