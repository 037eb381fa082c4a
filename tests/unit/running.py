"""Run `dbvalet` as a process of its own, with the package of `tests/unit/installed` beside it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.live.admins import refuse_admins

INSTALLED = Path(__file__).parent / "installed"
TREE = Path(__file__).parents[2]
TOKEN = "a-token-of-the-tests"
READY_SECONDS = 20


@dataclass
class Running:
    """A dbvalet that listens."""

    process: "subprocess.Popen[bytes]"
    url: str
    lines: list[dict[str, Any]]
    """What it logged until it listened."""


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Leave out the variables of dbvalet that this shell happens to have."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DBVALET_")}
    for value in (more or {}).values():
        refuse_admins(value)
    # The tree that these tests stand in comes before the one that was installed, which may be another.
    return {**kept, "PYTHONPATH": f"{INSTALLED}{os.pathsep}{TREE}", **(more or {})}


def command(*arguments: str) -> list[str]:
    """The console script is what an installed `dbvalet` is."""
    return [str(Path(sys.executable).with_name("dbvalet")), *arguments]


def run(*arguments: str, more: Mapping[str, str] | None = None, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments), env=environment(more), input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def configuration(folder: Path, *databases: Mapping[str, Any], listen: str = "127.0.0.1:0", **more: Any) -> Path:
    """Write a configuration, as JSON, which is YAML too."""
    for database in databases:
        refuse_admins(str(database.get("url", "")))
    file = folder / "dbvalet.yaml"
    token = {"name": "tests", "token": TOKEN, "role": "admin", "databases": ["*"]}
    state = f"sqlite:///{folder}/state.db"
    file.write_text(json.dumps({"listen": listen, "state": state, "tokens": [token], "databases": databases, **more}))
    return file


ACME = {"id": "ad-acme", "url": "acme://valet:acme-password@127.0.0.1/app"}


@contextmanager
def serving(
    config: Path, *arguments: str, more: Mapping[str, str] | None = None, program: Sequence[str] | None = None
) -> Iterator[Running]:
    """Start a dbvalet, wait until it says that it listens, and end it if the test did not."""
    process = subprocess.Popen(
        [*(program or command()), "serve", "--config", str(config), *arguments],
        env=environment(more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        lines = list(_until_listening(process))
        yield Running(process, f"http://{lines[-1]['address']}", lines)
    finally:
        process.kill()
        process.communicate()


def _until_listening(process: "subprocess.Popen[bytes]") -> Iterator[dict[str, Any]]:
    ends_at = time.monotonic() + READY_SECONDS
    assert process.stdout is not None
    while time.monotonic() < ends_at:
        line = process.stdout.readline()
        assert line, f"it ended: {process.stderr.read() if process.stderr else b''!r}"
        logged = json.loads(line)
        yield logged
        if logged["event"] == "listening":
            return
    raise AssertionError(f"no line says that it listens after {READY_SECONDS} s")
