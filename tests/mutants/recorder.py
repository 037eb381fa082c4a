"""A plugin of pytest: writes which tests passed, in how many seconds, and which failed, to $MUTANTS_OUTCOME."""

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

_seconds: dict[str, float] = defaultdict(float)
_failed: set[str] = set()
_skipped: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] += report.duration
    if report.failed:
        _failed.add(report.nodeid)
    elif report.skipped:
        _skipped.add(report.nodeid)


def pytest_sessionfinish() -> None:
    passed = {test: round(seconds, 3) for test, seconds in _seconds.items() if test not in _failed | _skipped}
    Path(os.environ["MUTANTS_OUTCOME"]).write_text(json.dumps({"passed": passed, "failed": sorted(_failed)}))
