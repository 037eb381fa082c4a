"""A mutant is tried: the tests that run its line, on a copy of the tree, against servers that stay up."""

import importlib
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.live.images import find_image
from tests.live.servers import spawn
from tests.mutants.suites import QUIETLY, Recording, Suite

Outcome = Literal["killed", "timeout", "survived", "no test"]

# What a child of `fork_pytest` need not import.
for name in ("fastapi", "httpx", "hypothesis", "pytest_asyncio.plugin", "pytest_cov.plugin", "xdist.plugin"):
    importlib.import_module(name)

ONE_TEST_SECONDS = 60
STARTING_SECONDS = 60.0


@dataclass(frozen=True)
class Ran:
    """How some tests ended."""

    passed: bool
    failed: tuple[str, ...] = ()
    timed_out: bool = False


class Servers:
    """The servers of a suite; they are started anew when a mutant has spoilt one."""

    def __init__(self, suite: Suite) -> None:
        self._suite, self._stack = suite, ExitStack()
        self.running = "{}"

    def __enter__(self) -> "Servers":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        self._stack.close()
        running: dict[str, dict[str, object]] = {}
        for key in self._suite.images:
            image = find_image(*key.split(":", 1))
            live = self._stack.enter_context(spawn(image.flavour, image.version))
            container_id = live.container.get_wrapped_container().id
            running[key] = {"host": live.host, "port": live.port, "container_id": container_id}
        self.running = json.dumps(running)


class Trials:
    """Tries changes of one package on a copy of the tree."""

    def __init__(self, suite: Suite, tree: Path, recording: Recording, servers: Servers) -> None:
        self._suite, self._tree, self._recording, self._servers = suite, tree, recording, servers
        self._time = int(time.time()) - 10**6

    def of(self, module: str, lines: range, code: str, also: list[str], most_seconds: float) -> tuple[Outcome, str]:
        """Tell what became of a change, and which test noticed it."""
        tests = [*also, *self._recording.tests_of(module, lines, most_seconds)]
        if not tests:
            return "no test", ""
        while tests:
            ran = self._with(module, code, tests)
            if ran.passed:
                return "survived", ""
            failed = list(ran.failed) or tests[:1]
            noticed: Outcome = "timeout" if ran.timed_out else "killed"
            if all(test.startswith("tests/unit") for test in failed) or self.run(failed).passed:
                return noticed, ", ".join(ran.failed)
            # It fails without the change too: by itself, or because of what a mutant, this one perhaps, has left there.
            self._servers.start()
            if not self.run(failed).passed:
                tests = [test for test in tests if test not in failed]
            elif not self._with(module, code, failed).passed:
                self._servers.start()
                return noticed, ", ".join(ran.failed)
        return "no test", ""

    def _with(self, module: str, code: str, tests: list[str]) -> Ran:
        file = self._tree / module
        before = file.read_text()
        self._write(file, code)
        try:
            return self.run(tests)
        finally:
            self._write(file, before)

    def _write(self, file: Path, code: str) -> None:
        """Write a module with a time of its own: Python takes two of the same second and size for one."""
        file.write_text(code)
        self._time += 1
        os.utime(file, (self._time, self._time))

    def run(self, tests: list[str]) -> Ran:
        """Run tests until one fails."""
        versions = ["--versions", ",".join(self._suite.images)] if self._suite.images else []
        seconds = STARTING_SECONDS + 3 * sum(self._recording.seconds.get(test, 5) for test in tests)
        with tempfile.TemporaryDirectory() as folder:
            outcome, said = Path(folder, "outcome.json"), Path(folder, "said")
            child = fork_pytest(
                [f"--timeout={ONE_TEST_SECONDS}", "-x", "--no-header", *versions, *tests],
                self._tree,
                {"TEST_SERVERS": self._servers.running, "MUTANTS_OUTCOME": str(outcome)},
                said,
            )
            code = code_of(child, seconds)
            failed = tuple(json.loads(outcome.read_text())["failed"]) if outcome.exists() else ()
            return Ran(passed=code == 0, failed=failed, timed_out=code is None or "Timeout (>" in said.read_text())


def fork_pytest(arguments: list[str], tree: Path, more: dict[str, str], said: Path) -> int:
    """Run pytest in a child that has every package imported but those of the tree; give its process id.

    To import them anew for each mutant would take longer than most tests.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        os.chdir(tree)
        os.environ.update(more)
        output = os.open(said, os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(output, stream)
        for name in list(sys.modules):
            if name.partition(".")[0] in ("agent", "engines", "tests"):
                del sys.modules[name]
        sys.path.insert(0, str(tree))
        code = int(pytest.main([*QUIETLY, *arguments]))
    finally:
        os._exit(code)


def code_of(child: int, seconds: float) -> int | None:
    """Wait for a child and end what it has begun; None when its time was up."""
    ends_at = time.monotonic() + seconds
    code: int | None = None
    while time.monotonic() < ends_at:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if code is None:
        os.waitpid(child, 0)
    return code
