"""Every engine that this machine can run, started side by side for the demo."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import agent
from agent.demo.apt_packages import AptPackages
from agent.demo.influxdb import start_influxdb
from agent.demo.mongodb import start_mongodb
from agent.demo.mysql import start_mysql
from agent.demo.postgresql import start_postgresql
from agent.demo.processes import DemoError, RunFolder
from agent.demo.started import Progress, StartedEngine

FETCH_LIMIT_SECONDS = 600.0


def demo_folder() -> Path:
    """Say where the demo keeps what it fetches: `.demo` in the checkout, or in the current folder without one."""
    checkout = Path(agent.__file__).parents[1]
    return (checkout if (checkout / "pyproject.toml").exists() else Path.cwd()) / ".demo"


class EmbeddedEngines:
    """Engines of the demo's own, stopped and removed on leaving.

    `started` holds those that run, by engine; `left_out` says in one line why the others do not.
    PostgreSQL is always there.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        """Keep what is fetched in `folder`."""
        self.folder = folder.absolute()
        self.started: dict[str, StartedEngine] = {}
        self.left_out: dict[str, str] = {}
        self._progress = progress

    def __enter__(self) -> Self:
        """Start every engine.

        Raises: DemoError
        """
        self.run = RunFolder()
        try:
            self._start_all()
        except BaseException:
            self.run.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the engines and remove their data."""
        self.run.close()

    def _start_all(self) -> None:
        cache = self.folder / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        packages = AptPackages(cache, self._fetch, self.run.path)
        launchers: dict[str, Callable[[], StartedEngine]] = {
            "postgresql": lambda: start_postgresql(self.run, self._progress),
            "mysql": lambda: start_mysql(self.run, self._progress, packages),
            "mongodb": lambda: start_mongodb(self.run, self._progress, packages, self._fetch),
            "influxdb": lambda: start_influxdb(self.run, self._progress, packages),
        }
        pool = ThreadPoolExecutor(len(launchers))
        try:
            begun = {engine: pool.submit(self._launch, engine, launch) for engine, launch in launchers.items()}
            for engine, future in begun.items():
                self._record(engine, future)
        except BaseException:
            self.run.stop_programs()  # what the other threads wait for ends, and so do they
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            packages.close()

    def _launch(self, engine: str, launch: Callable[[], StartedEngine]) -> StartedEngine:
        begin = time.monotonic()
        try:
            started = launch()
        except (DemoError, OSError) as failure:
            if engine != "postgresql":
                self._progress(engine, f"left out: {failure}")
            raise
        seconds = time.monotonic() - begin
        self._progress(engine, f"{started.version} ready on {started.host}:{started.port} after {seconds:.1f} s")
        return started

    def _record(self, engine: str, future: Future[StartedEngine]) -> None:
        try:
            self.started[engine] = future.result()
        except (DemoError, OSError) as failure:
            if engine == "postgresql":
                raise
            self.left_out[engine] = str(failure)

    def _fetch(self, command: Sequence[str]) -> None:
        """Run apt, dpkg or pip, ended with the demo like the engines.

        Raises: ProcessFailed
        """
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=self.run.path) as folder:
            self.run.run(Path(folder), command, seconds=FETCH_LIMIT_SECONDS, as_server=False)
