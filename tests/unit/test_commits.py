"""What a change costs the state: how often a disk is waited for, and what is there after a crash and a power cut."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from agent.audit.journal import pages
from agent.audit.line import Check
from agent.state.file import ROOM
from tests.fakes.driver import Gate
from tests.fakes.service import Valet, running, until

ROOT = Path(__file__).parents[2]
ONE = "/api/databases/ad-one"
SECOND = {"name": "second", "colour": "red"}


async def act(valet: Valet, name: str, params: Any, key: str | None = "key-1") -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"action_name": name, "params": params}
    return await valet.ask("POST", f"{ONE}/action", json=body, headers=headers)


SYNCED = """
import asyncio, os, sys
from tests.unit.test_commits import act
from tests.fakes.service import running

async def main(folder):
    async def marked(name, wait):
        with open(f"{folder}/mark-{name}", "w") as file:
            os.fsync(file.fileno())
        answer = await wait
        assert answer.status_code in (200, 201), answer.text

    async with running(state=f"sqlite:///{folder}/state.db") as valet:
        async def add(name, key=None):
            return await act(valet, "add-thing", {"name": name}, key)

        async def drop(name, key=None):
            return await act(valet, "drop-thing", {"name": name}, key)

        await marked("warm-up", add("a"))
        for round in "12":
            await marked(f"write-{round}", add(f"b{round}"))
            await marked(f"keyed-write-{round}", add(f"c{round}", f"add-{round}"))
            await marked(f"destroyed-{round}", drop(f"b{round}"))
            await marked(f"keyed-destroyed-{round}", drop(f"c{round}", f"drop-{round}"))
            await marked(f"replay-{round}", add(f"c{round}", f"add-{round}"))
        await marked("end", valet.ask("GET", "/api/audit"))

asyncio.run(main(sys.argv[1]))
"""


def synced(folder: Path) -> dict[str, Counter[str]]:
    """Count the syncs of each part of `SYNCED` by file, as the kernel was asked for them."""
    traced = folder / "traced"
    command = ["strace", "-f", "-y", "-o", str(traced), "-e", "trace=fsync,fdatasync,sync_file_range,msync"]
    done = subprocess.run(
        [*command, sys.executable, "-c", SYNCED, str(folder)], cwd=ROOT, capture_output=True, check=False, timeout=120
    )
    if b"ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    found: dict[str, Counter[str]] = {}
    part = Counter[str]()
    for line in traced.read_text().splitlines():
        _, opens, rest = line.partition("<")
        if not opens or "sync" not in line:
            continue
        name = Path(rest.partition(">")[0]).name
        if name.startswith("mark-"):
            part = found.setdefault(name.removeprefix("mark-"), Counter())
        else:
            part[name] += 1
    return found


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace shows what the kernel is asked to sync")
def test_a_write_waits_for_the_disk_once_with_a_key_too_and_what_destroys_twice(tmp_path: Path):
    found = synced(tmp_path)
    log = "state.db-wal"
    for number in "12":
        assert found[f"write-{number}"] == {log: 1}
        assert found[f"keyed-write-{number}"] == {log: 1}
        assert found[f"destroyed-{number}"] == {log: 2}
        assert found[f"keyed-destroyed-{number}"] == {log: 2}
        assert found[f"replay-{number}"] == {log: 1}


async def test_only_the_answer_of_a_write_with_a_key_is_left_to_the_next_sync():
    async with running() as valet:
        told = watched(valet)
        for name, params, key, commits in (
            ("add-thing", SECOND, None, ["NORMAL", "EXTRA"]),
            ("add-thing", {"name": "third"}, "key-1", ["EXTRA", "NORMAL"]),
            ("add-thing", {"name": "first"}, "key-2", ["EXTRA", "NORMAL"]),  # which is there already
            ("add-thing", {"name": "third"}, "key-1", ["EXTRA"]),  # replayed
            ("drop-thing", {"name": "second"}, None, ["EXTRA", "EXTRA"]),
            ("drop-thing", {"name": "third"}, "key-3", ["EXTRA", "EXTRA"]),
        ):
            told.clear()
            await act(valet, name, params, key)
            assert commits_that_wrote(told) == commits, (name, key)
        told.clear()
        valet.server().problem = OSError("a bug")
        assert (await act(valet, "add-thing", {"name": "fourth"}, "key-4")).status_code == 500
        assert commits_that_wrote(told) == ["EXTRA", "EXTRA"]


async def test_where_the_file_cannot_be_in_wal_mode_every_commit_is_durable(tmp_path: Path):
    (tmp_path / "state.db-shm").symlink_to("nowhere")
    async with running(state=f"sqlite:///{tmp_path}/state.db") as valet:
        told = watched(valet)
        assert (await act(valet, "add-thing", SECOND)).status_code == 200
        assert commits_that_wrote(told) == ["EXTRA", "EXTRA"]
        assert (await act(valet, "add-thing", SECOND)).headers["Idempotent-Replayed"] == "true"


WITHOUT_ROOM = """
import asyncio, resource, signal, sys
from tests.unit.test_commits import SECOND, act
from tests.fakes.service import running

async def main(state):
    async with running(state=state) as valet:
        assert (await act(valet, "add-thing", SECOND, None)).status_code == 200
        before = list(valet.server().performed)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
        for name, params in (("add-thing", {"name": "third"}), ("drop-thing", {"name": "second"})):
            for key in (None, f"key-{name}"):
                refused = await act(valet, name, params, key)
                assert refused.status_code == 503, refused.text
                assert refused.json()["error"].startswith("Nothing was done, since it cannot be written down.")
        assert valet.server().performed == before
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert (await act(valet, "add-thing", {"name": "third"}, None)).status_code == 200

asyncio.run(main(sys.argv[1]))
"""


def test_where_nothing_can_be_written_nothing_is_begun(tmp_path: Path):
    # No byte of a file may be written: as on a disk that is full, also for what is taken back before it is committed.
    subprocess.run([sys.executable, "-c", WITHOUT_ROOM, f"sqlite:///{tmp_path}/state.db"], cwd=ROOT, check=True)


async def test_where_little_can_be_written_nothing_is_begun(monkeypatch: pytest.MonkeyPatch):
    async with running() as valet:
        with monkeypatch.context() as full:
            full.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=ROOM // 4096 - 1, f_frsize=4096))
            refused = await act(valet, "add-thing", SECOND, None)
        assert (refused.status_code, refused.json()["code"]) == (503, "state_unavailable")
        assert "No space left on device" in refused.json()["error"]
        assert valet.server().performed == []
        assert (await act(valet, "add-thing", SECOND, None)).status_code == 200


def watched(valet: Valet) -> list[str]:
    """List what SQLite is told from now on."""
    told: list[str] = []
    engine = valet.service.state._opened()

    def tell(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        told.append(statement)

    event.listen(engine, "before_cursor_execute", tell)
    event.listen(engine, "commit", lambda _: told.append("COMMIT"))
    return told


def commits_that_wrote(told: list[str]) -> list[str]:
    """Give the `synchronous` of each transaction that changes something and is committed."""
    found: list[str] = []
    level, wrote, had_written = "", False, False
    for each in told:
        if each.startswith("PRAGMA synchronous = "):
            level, wrote = each.rpartition(" ")[2], False
        elif each.startswith("SAVEPOINT"):
            had_written = wrote
        elif each.startswith("ROLLBACK TO"):
            wrote = had_written  # the line was only tried
        elif each.startswith(("INSERT", "UPDATE")):
            wrote = True
        elif each == "COMMIT" and wrote:
            found.append(level)
    return found


KILLED = """
import asyncio, os, signal, sys
from tests.unit.test_commits import SECOND, act
from tests.fakes.service import running

async def main(state):
    async with running(state=state) as valet:
        assert (await act(valet, "add-thing", SECOND)).status_code == 200
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(sys.argv[1]))
"""


def run_and_be_killed(state: str) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, state], cwd=ROOT, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL


async def test_a_process_that_is_killed_right_after_its_answer_has_kept_it_with_its_line(tmp_path: Path):
    state = f"sqlite:///{tmp_path}/state.db"
    run_and_be_killed(state)

    async with running(state=state) as valet:
        again = await act(valet, "add-thing", SECOND)
        assert (again.status_code, again.json()["result"]) == (200, SECOND)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert valet.server().performed == []
        assert await audit_of(valet) == [("ok", False), ("ok", True)]


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
async def test_after_a_power_cut_that_takes_the_answer_the_engine_tells_what_is_true(tmp_path: Path, done: bool):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    file, log = before / "state.db", before / "state.db-wal"
    async with running(state=f"sqlite:///{file}") as valet:
        assert (await act(valet, "add-thing", {"name": "earlier"}, None)).status_code == 200
        gate = valet.server().gate = Gate()
        owner = valet.service.operations.owner
        begun = asyncio.create_task(act(valet, "add-thing", SECOND))
        await until(lambda: gate.waiting)
        synced = log.stat().st_size  # by the commit of the row, which is durable
        gate.open.set()
        assert (await begun).status_code == 200
        assert log.stat().st_size > synced
        shutil.copy(file, after)
        (after / log.name).write_bytes(log.read_bytes()[:synced])
        (after / f"state.db-{owner}.lock").touch()

    async with running(state=f"sqlite:///{after}/state.db") as valet:
        if done:
            valet.server().things["second"] = "red"
        again = await act(valet, "add-thing", SECOND)
        assert (again.status_code, again.json()["result"]) == (200, SECOND)
        assert "Idempotent-Replayed" not in again.headers
        assert valet.server().performed == ([] if done else ["add-thing second"])
        assert (await act(valet, "add-thing", SECOND)).headers["Idempotent-Replayed"] == "true"
        # The line is gone with the answer, and those that come after it follow the one before it.
        assert await audit_of(valet) == [("ok", False), ("ok", False), ("ok", True)]


async def audit_of(valet: Valet) -> list[tuple[str, bool]]:
    """Check the chain of the audit and give what its lines say."""
    check, found = Check(), []
    async for page in pages(valet.service.state, None, 100):
        check.follow_page(page)
        found += [(line["code"], line["replayed"]) for line in (row.shown() for row in page.rows)]
    return found
