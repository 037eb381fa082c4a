"""Dumps and the tools that make them: what makes a dump whole, and what becomes of a program that is run."""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import orjson
import pytest

from engines import backup
from engines.backup import BLOCK, LAST_WORDS, MANIFEST, DumpedFile, find_tool, measure, read_manifest, run_tool
from engines.errors import BackupDamaged, BackupFailed
from tests.fakes.service import until

FACTS = {"engine": "fake", "flavour": None, "readable_version": "9.1", "database": "app", "tool": "dump 9.1"}


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


async def dump(folder: Path) -> Path:
    (folder / "data").write_bytes(b"rows" * BLOCK)
    (folder / "empty").write_bytes(b"")
    await backup.write_manifest(folder, **FACTS, notes=["Grants are not in it."])
    return folder


async def test_a_manifest_says_what_was_dumped_and_is_read_as_it_was_written(tmp_path: Path):
    (tmp_path / "data").write_bytes(b"rows")
    written = await backup.write_manifest(tmp_path, **FACTS, notes=["Grants are not in it."])

    assert await read_manifest(tmp_path) == written
    assert written.files == {"data": DumpedFile(size=4, sha256=sha256(b"rows").hexdigest())}
    assert (written.engine, written.flavour, written.database, written.tool) == ("fake", None, "app", "dump 9.1")
    assert list(written.notes) == ["Grants are not in it."]
    assert timedelta() <= datetime.now(UTC) - written.created_at < timedelta(minutes=1)
    assert names_in(tmp_path) == {"data", MANIFEST}


async def test_a_file_of_several_blocks_is_measured_whole(tmp_path: Path):
    folder = await dump(tmp_path)
    assert measure(folder / "data") == DumpedFile(size=4 * BLOCK, sha256=sha256(b"rows" * BLOCK).hexdigest())
    assert measure(folder / "empty") == DumpedFile(size=0, sha256=sha256().hexdigest())


async def test_a_dump_is_damaged_when_one_of_its_files_is_not_as_it_was_written(tmp_path: Path):
    folder = await dump(tmp_path)
    whole = (folder / "data").read_bytes()
    for damaged in (whole[:-1], whole + b"s", whole[:-1] + b"S"):
        (folder / "data").write_bytes(damaged)
        with pytest.raises(BackupDamaged, match="The file data of the backup is not as it was written"):
            await read_manifest(folder)
    (folder / "data").unlink()
    with pytest.raises(BackupDamaged, match="The backup lacks its file data"):
        await read_manifest(folder)
    (folder / "data").mkdir()
    with pytest.raises(BackupDamaged, match="The backup lacks its file data"):
        await read_manifest(folder)


async def test_a_manifest_leads_to_no_file_outside_its_folder(tmp_path: Path):
    folder = tmp_path / "dump"
    folder.mkdir()
    await dump(folder)
    (tmp_path / "other").write_bytes(b"")
    manifest = orjson.loads((folder / MANIFEST).read_bytes())
    for name in ("../other", str(tmp_path / "other")):
        manifest["files"][name] = {"size": 0, "sha256": sha256().hexdigest()}
        (folder / MANIFEST).write_bytes(orjson.dumps(manifest))
        with pytest.raises(BackupDamaged, match="The backup lacks its file"):
            await read_manifest(folder)
        del manifest["files"][name]
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest))
    await read_manifest(folder)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"files": {}}',
        b'{"files": []}',
        b'{"files": {"data": {"size": 1}}, "created_at": "2026-01-31T09:00:00Z"}',
        b'{"files": {}, "created_at": "2026-01-31T09:00:00Z"}',
        b'{"files": {}, "created_at": "yesterday"}',
        b'{"files": {}, "created_at": 1}',
    ],
)
async def test_a_manifest_that_cannot_be_read_makes_a_dump_a_damaged_one(tmp_path: Path, text: bytes):
    with pytest.raises(BackupDamaged, match="no readable manifest"):
        await read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_bytes(text)
    with pytest.raises(BackupDamaged, match="no readable manifest"):
        await read_manifest(tmp_path)


def test_a_tool_is_found_by_the_first_name_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_tool("mariadb-dump", "mysqldump") is None
    for name in ("mysqldump", "mariadb-dump"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert find_tool("mariadb-dump", "mysqldump") == tmp_path / name
    assert find_tool() is None


def program(text: str) -> list[str]:
    return [sys.executable, "-I", "-c", text]


async def test_a_tool_gets_its_files_and_its_environment_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PLANTED", "a secret of dbvalet's own")
    (tmp_path / "in").write_text("rows")
    text = (
        "import os, sys; sys.stdout.write(sys.stdin.read() * 2);"
        "sys.stderr.write(f\" {os.environ.get('GIVEN')} {os.environ.get('PLANTED')}\\n\")"
    )
    said = await run_tool(program(text), environment={"GIVEN": "this"}, stdin=tmp_path / "in", stdout=tmp_path / "out")
    assert said == "this None"
    assert (tmp_path / "out").read_text() == "rowsrows"
    assert await run_tool(program("import sys; assert sys.stdin.read() == ''; print('unseen')"), environment={}) == ""


async def test_a_tool_that_fails_says_how_and_its_last_words():
    text = f"import sys; sys.stderr.write('first' + '.' * {2 * BLOCK} + 'the cause'); sys.exit(3)"
    with pytest.raises(BackupFailed) as failed:
        await run_tool(program(text), environment={})
    name = Path(sys.executable).name
    assert failed.value.message == f"{name} ended with 3: {'.' * (LAST_WORDS - 9)}the cause"
    with pytest.raises(BackupFailed, match="ended with 1: it said nothing"):
        await run_tool(program("import sys; sys.exit(1)"), environment={})


async def test_progress_is_told_while_a_tool_works():
    told: list[None] = []
    await run_tool(program("import time; time.sleep(1.2)"), environment={}, watch=lambda: told.append(None))
    assert len(told) >= 2


async def test_a_tool_that_closes_its_messages_early_is_waited_for(tmp_path: Path):
    done = tmp_path / "done"
    text = f"import os, time; os.close(2); time.sleep(0.3); open({str(done)!r}, 'w').close()"
    await run_tool(program(text), environment={})
    assert done.exists()


@pytest.mark.parametrize("deaf", [False, True])
async def test_a_tool_is_ended_before_a_cancelled_task_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool):
    monkeypatch.setattr(backup, "TERMINATE_SECONDS", 0.3 if deaf else 60.0)
    pid = tmp_path / "pid"
    text = (
        "import os, signal, time;"
        f"signal.signal(signal.SIGTERM, {'signal.SIG_IGN' if deaf else 'signal.SIG_DFL'});"
        f"open({str(pid) + '.new'!r}, 'w').write(str(os.getpid())); os.rename({str(pid) + '.new'!r}, {str(pid)!r});"
        "time.sleep(60)"
    )
    task = asyncio.create_task(run_tool(program(text), environment={}))
    await until(pid.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
