"""`dbvalet backups` as a process, against a served dbvalet with a live server."""

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.live.servers import LiveServer
from tests.live.test_backup_routes import Valet, prepared
from tests.unit.running import TOKEN, Running, command, environment, run

# What dbvalet does around the engine's own tools does not differ between versions.
pytestmark = pytest.mark.newest_version

LIMIT = 30


def backups(running: Running, *words: str, code: int = 0) -> str:
    ended = run("backups", *words, more={"DBVALET_URL": running.url, "DBVALET_TOKEN": TOKEN})
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert TOKEN not in ended.stdout + ended.stderr
    return ended.stdout if code == 0 else ended.stderr


def answering(running: Running, words: list[str], typed: bytes) -> tuple[int, str]:
    """Run it on a terminal, where somebody answers."""
    ours, theirs = pty.openpty()
    variables = environment({"DBVALET_URL": running.url, "DBVALET_TOKEN": TOKEN, "COLUMNS": "200"})
    process = subprocess.Popen(command("backups", *words), stdin=theirs, stdout=theirs, stderr=theirs, env=variables)
    os.close(theirs)
    os.write(ours, typed)
    said = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # the end of the other side
            break
        if not block:
            break
        said += block
    os.close(ours)
    return process.wait(LIMIT), said.decode()


def test_a_person_makes_looks_downloads_restores_and_deletes(mongodb: LiveServer, tmp_path: Path) -> None:
    with prepared(mongodb, tmp_path) as (valet, content), valet.serving() as running:
        before = content.look()
        assert backups(running, "list", "ad-x") == "(none)\n"
        assert "has no backup that is done" in backups(running, "restore", "ad-x", "latest", "--yes", code=1)
        made = backups(running, "create", "ad-x").split()
        assert made[1] == "done"
        assert made[0] in backups(running, "list", "ad-x")
        shown = json.loads(backups(running, "show", "ad-x", "latest", "--json"))["database_backup"]
        assert shown["id"] == made[0]

        target = tmp_path / "archive.tar.gz"
        assert backups(running, "download", "ad-x", made[0], "--output", str(target)) == f"{target}\n"
        assert target.stat().st_size == shown["size"]
        assert "is there already" in backups(running, "download", "ad-x", made[0], "-o", str(target), code=2)

        content.spoil()
        spoilt = content.look()
        assert "--yes" in backups(running, "restore", "ad-x", made[0], code=2)
        code, said = answering(running, ["restore", "ad-x", made[0]], b"n\n")
        assert code == 1
        assert "All that this database holds now is replaced" in said
        assert "ad-x of app" in said and made[0] in said and "mongodb" in said
        assert content.look() == spoilt
        code, said = answering(running, ["restore", "ad-x", made[0]], b"y\n")
        assert code == 0, said
        assert content.look() == before

        assert backups(running, "delete", "ad-x", made[0], "--yes") == "ok\n"
        assert backups(running, "list", "ad-x") == "(none)\n"
        assert "not_found (404)" in backups(running, "show", "ad-x", made[0], code=1)


def test_ctrl_c_ends_the_waiting_and_not_the_backup(mongodb: LiveServer, tmp_path: Path) -> None:
    with prepared(mongodb, tmp_path) as (valet, _), valet.serving() as running:
        process = subprocess.Popen(
            command("backups", "create", "ad-x"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment({"DBVALET_URL": running.url, "DBVALET_TOKEN": TOKEN}),
        )
        operation = first_operation(valet)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LIMIT)
        # It may have ended before the signal came.
        assert process.returncode in (0, 130), said
        if process.returncode == 130:
            assert "it goes on" in said
        assert valet.ended(operation)["status"] == "finished"


def first_operation(valet: Valet) -> str:
    ends_at = time.monotonic() + LIMIT
    while not (found := valet.get("/api/databases/ad-x/operations", "operations")):
        assert time.monotonic() < ends_at
        time.sleep(0.005)
    return found[0]["id"]
