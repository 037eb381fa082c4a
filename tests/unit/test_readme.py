"""What the README says to type works as it is pasted, on a machine that takes its time too."""

import os
import re
import socket
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tests.unit.running import ACME, TOKEN, TREE, command, environment

README = (TREE / "README.md").read_text()


def last_step() -> str:
    """Give the commands that serve and use it."""
    (block,) = re.findall(r"^5\. .*?```sh\n(.*?)\n   ```", README, flags=re.MULTILINE | re.DOTALL)
    return dedent(block)


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Give a folder for PATH with a dbvalet whose `serve` takes two seconds to begin."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "dbvalet"
    program.write_text(f'#!/bin/sh\n[ "$1" != serve ] || sleep 2\nexec {command()[0]} "$@"\n')
    program.chmod(0o755)
    return programs


def pasted(slow: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    """Paste it into a shell, with an engine that needs no server, and end what it has begun."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    (slow.parent / "token").write_text(TOKEN)
    step = last_step().replace("8000", str(port))
    step = step.replace("call ad-local pg-list-queries", "call ad-local acme-wait seconds=0")
    step = step.replace('"pg-list-queries"', '"acme-wait", "params": {"seconds": 0}')
    return subprocess.run(
        ["bash", "-c", f"{step}\nkill $!; wait"],
        cwd=slow.parent,
        env=environment(
            {
                "PATH": f"{slow}{os.pathsep}{os.environ['PATH']}",
                "DBVALET_DATABASE_URL": ACME["url"],
                "DBVALET_TOKEN_FILE": "token",
                "DBVALET_STATE": f"sqlite:///{slow.parent}/state.db",
                "DBVALET_LISTEN": f"127.0.0.1:{port}",
                "DBVALET_URL": f"http://127.0.0.1:{port}",
                **more,
            }
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_serves_in_the_background_is_waited_for(slow: Path) -> None:
    ended = pasted(slow)
    assert "\nwaited\n" in ended.stdout
    assert '{"ok":1,"result":"waited"}' in ended.stdout
    assert "connect" not in ended.stderr.lower()


def test_what_cannot_serve_is_not_waited_for(slow: Path) -> None:
    ended = pasted(slow, DBVALET_DATABASE_URL="postgresql://valet@127.0.0.1:port/app")
    assert "DBVALET_DATABASE_URL" in ended.stderr
    assert "no dbvalet answers at" in ended.stderr
