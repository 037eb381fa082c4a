"""A dbvalet of the demo's own: `dbvalet serve` as a process, its configuration and state in the demo's folder."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from agent.demo.accounts import Deployment
from agent.demo.processes import RunFolder, Supervised
from agent.healthcheck import is_ready

READY_SECONDS = 30.0

CONSOLE_SCRIPT = "from agent.cli import main; main()"
"""What the command `dbvalet` runs; where that command lies depends on how it was installed."""


@dataclass(frozen=True, slots=True)
class Service:
    """A dbvalet that answers."""

    url: str
    token_file: Path
    token: str = field(repr=False)
    program: Supervised


def start_service(run: RunFolder, deployments: Sequence[Deployment], tools: Sequence[Path] = ()) -> Service:
    """Start a dbvalet for these deployments on a free port of 127.0.0.1, with one new token for all of them.

    `tools` are folders of programs that come before those on PATH.

    Raises: DemoError, OSError
    """
    folder = run.path / "dbvalet"
    folder.mkdir(0o700)
    token = secrets.token_hex(32)
    token_file = _write(folder / "token", f"{token}\n")
    for each in deployments:
        _write(folder / f"{each.id}.url", f"{each.url}\n")
    config = folder / "dbvalet.yaml"

    def start(port: int) -> Supervised:
        config.unlink(missing_ok=True)
        _write(config, _configuration(port, folder, deployments))
        command = [sys.executable, "-P", "-c", CONSOLE_SCRIPT, "serve", "--config", str(config)]
        path = os.pathsep.join([*map(str, tools), os.environ.get("PATH", os.defpath)])
        return run.start(
            folder, [*_without_variables(), *command], environment={"PATH": path}, as_server=False, name="dbvalet"
        )

    def ready(port: int) -> bool:
        try:
            return is_ready(("127.0.0.1", port))
        except OSError:
            return False  # it does not listen yet

    program, port = run.start_on_free_port(start, ready, seconds=READY_SECONDS)
    return Service(url=f"http://127.0.0.1:{port}", token_file=token_file, token=token, program=program)


def _configuration(port: int, folder: Path, deployments: Sequence[Deployment]) -> str:
    tree = {
        "listen": f"127.0.0.1:{port}",
        "state": f"sqlite:///{folder / 'state.db'}",
        "tokens": [{"name": "demo", "token_file": str(folder / "token"), "role": "admin", "databases": ["*"]}],
        "databases": [
            {"id": each.id, "app_name": "demo", "url_file": str(folder / f"{each.id}.url")} for each in deployments
        ],
    }
    # Of a path, only this sign means something to dbvalet: it would look for a variable.
    return yaml.safe_dump(tree, sort_keys=False).replace("${", "$${")


def _without_variables() -> list[str]:
    """Keep the caller's variables for a dbvalet of their own away from this one: they win over the file."""
    names = [name for name in os.environ if name.upper().startswith("DBVALET_")]
    return ["env", *(f"--unset={name}" for name in names)]


def _write(path: Path, text: str) -> Path:
    """Write a file that nobody else can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return path
