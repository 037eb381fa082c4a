"""A mutant is tried: the tests that run its line, on a copy of the tree, against servers that stay up."""

import json
import os
import signal
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.live.images import find_image
from tests.live.servers import spawn
from tests.mutants.suites import Recording, Suite, pytest, variables

Outcome = Literal["killed", "timeout", "survived", "no test"]

MOST_SECONDS = 60.0
"""What the tests that are chosen for a mutant may take by themselves."""
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

    def of(self, module: str, lines: range, code: str, also: list[str]) -> tuple[Outcome, str]:
        """Tell what became of a change, and which test noticed it."""
        tests = [*also, *self._recording.tests_of(module, lines, MOST_SECONDS)]
        if not tests:
            return "no test", ""
        for _ in range(3):
            ran = self._with(module, code, tests)
            if ran.passed:
                return "survived", ""
            # Does it fail because of the change, or because of what an earlier one has left on the server?
            if not self._suite.images or self.run(list(ran.failed) or tests[:1]).passed:
                return ("timeout" if ran.timed_out else "killed"), ", ".join(ran.failed)
            self._servers.start()
        return "survived", "a test fails without the change too"

    def _with(self, module: str, code: str, tests: list[str]) -> Ran:
        file = self._tree / module
        before = file.read_text()
        file.write_text(code)
        try:
            return self.run(tests)
        finally:
            file.write_text(before)

    def run(self, tests: list[str]) -> Ran:
        """Run tests until one fails."""
        versions = ["--versions", ",".join(self._suite.images)] if self._suite.images else []
        seconds = STARTING_SECONDS + 3 * sum(self._recording.seconds.get(test, 5) for test in tests)
        with tempfile.TemporaryDirectory() as folder:
            outcome = Path(folder, "outcome.json")
            process = subprocess.Popen(
                pytest("-x", f"--timeout={ONE_TEST_SECONDS}", "--no-header", *versions, *tests),
                cwd=self._tree,
                env=variables(outcome, TEST_SERVERS=self._servers.running),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            try:
                said, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                return Ran(passed=False, timed_out=True)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()
            failed = tuple(json.loads(outcome.read_text())["failed"]) if outcome.exists() else ()
            return Ran(passed=process.returncode == 0, failed=failed, timed_out="Timeout (>" in said)
