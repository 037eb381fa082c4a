"""Which tests belong to an engine package, which of them run a line of it, and how long each takes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coverage import CoverageData

SETTINGS = Path(__file__).parent / "coverage.ini"

# What a server may be asked in a test that is chosen for a mutant; those that take longer are left out.
MOST_SECONDS_A_TEST = 20.0


@dataclass(frozen=True)
class Suite:
    """The tests of a package, and the servers that they ask for."""

    package: str
    paths: tuple[str, ...]
    images: tuple[str, ...] = ()

    @property
    def modules(self) -> Path:
        return Path("engines") if self.package == "engines" else Path("engines", self.package)

    def sources(self, tree: Path) -> dict[str, str]:
        """Give every module of the package by its path; `engines` itself is without the engines."""
        pattern = "*.py" if self.package == "engines" else "**/*.py"
        found = sorted((tree / self.modules).glob(pattern))
        return {str(each.relative_to(tree)): each.read_text() for each in found}

    def options(self) -> list[str]:
        if not self.images:
            return [*self.paths]
        return [*self.paths, "--engine", self.package, "--versions", ",".join(self.images)]


OF_ALL = ("tests/live/test_health.py", "tests/live/test_users.py")

SUITES = {
    suite.package: suite
    for suite in (
        Suite(
            "postgresql",
            (
                "tests/unit/postgresql",
                "tests/unit/test_pitr.py",
                "tests/live/postgresql",
                "tests/live/recovery",
                *OF_ALL,
            ),
            ("postgresql:18",),
        ),
        Suite("mysql", ("tests/unit/mysql", "tests/live/mysql", *OF_ALL), ("mysql:9.7", "mariadb:10.5")),
        Suite("mongodb", ("tests/unit/mongodb", "tests/live/mongodb", *OF_ALL), ("mongodb:6.0",)),
        Suite("influxdb", ("tests/unit/influxdb", "tests/live/influxdb", *OF_ALL), ("influxdb:1.6",)),
        Suite("engines", ("tests/unit", "tests/contract")),
    )
}


QUIETLY = ("-q", "-p", "no:cacheprovider", "-p", "tests.mutants.recorder")


def record(suite: Suite, tree: Path, folder: Path) -> None:
    """Run the tests of a package once, and keep which lines each of them runs."""
    covered, outcome = folder / f"{suite.package}.coverage", folder / f"{suite.package}.json"
    if covered.exists() and outcome.exists():
        return
    coverage = ["--cov=engines", f"--cov-config={SETTINGS}", "--cov-context=test", "--cov-report="]
    subprocess.run(
        [sys.executable, "-m", "pytest", *QUIETLY, *suite.options(), *coverage],
        cwd=tree,
        env={**os.environ, "MUTANTS_OUTCOME": str(outcome), "COVERAGE_FILE": str(covered)},
        stdout=(folder / f"{suite.package}.log").open("w"),
        stderr=subprocess.STDOUT,
        check=False,
    )


class Recording:
    """What `record` has kept."""

    def __init__(self, suite: Suite, folder: Path) -> None:
        self._data = CoverageData(str(folder / f"{suite.package}.coverage"))
        self._data.read()
        self._files = {f"engines/{file.rpartition('/engines/')[2]}": file for file in self._data.measured_files()}
        self.seconds: dict[str, float] = json.loads((folder / f"{suite.package}.json").read_text())["passed"]

    def tests_of(self, module: str, lines: Iterable[int], most_seconds: float) -> list[str]:
        """Give the tests that run one of the lines, the quickest first, until their time is up.

        What runs when the module is imported is of no test in particular, so it is of all that run any of its lines.
        """
        if module not in self._files:
            return []
        contexts = self._data.contexts_by_lineno(self._files[module])
        if any("" in contexts.get(line, ()) for line in lines):
            lines = contexts
        found = self._passed(contexts, lines) or self._of_importers(module)
        chosen: list[str] = []
        for test in sorted(found, key=lambda each: (self.seconds[each], each)):
            most_seconds -= self.seconds[test]
            if self.seconds[test] > MOST_SECONDS_A_TEST or (chosen and most_seconds < 0):
                break
            chosen.append(test)
        return chosen

    def _passed(self, contexts: Mapping[int, Sequence[str]], lines: Iterable[int]) -> set[str]:
        return {context.rpartition("|")[0] for line in lines for context in contexts.get(line, ())} & {*self.seconds}

    def _of_importers(self, module: str) -> set[str]:
        """Give the tests of the modules that import one which has declarations alone, so that no test runs it."""
        name = module.removesuffix(".py").replace("/", ".")
        found: set[str] = set()
        for file in self._files.values():
            if re.search(rf"^from {re.escape(name)} import", Path(file).read_text(), re.MULTILINE):
                contexts = self._data.contexts_by_lineno(file)
                found |= self._passed(contexts, contexts)
        return found
