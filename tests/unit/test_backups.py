"""Backups over HTTP, on the fake engine: made, downloaded, restored, thinned out, and what happens when that fails."""

import asyncio
import errno
import hashlib
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from agent import links
from agent.backups import kinds
from agent.backups.keep import too_many
from agent.backups.record import Backup, BackupStatus, Method
from agent.operations import keeper, runner
from agent.settings_backups import KeepSettings
from agent.state.state import State
from agent.state.tables import backups as rows
from engines.errors import BackupFailed, EngineUnavailable
from tests.contract.decoders import go_failure
from tests.fakes import recovery
from tests.fakes.driver import Gate
from tests.fakes.service import Valet, configuration, listening, running, until

ONE = "/api/databases/ad-one"
NOW = datetime(2026, 1, 31, tzinfo=UTC)
BACKED_UP_WHOLE = "A backup of the whole server was made too, for going back to an instant."


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(runner, "CLEAN_UP_SECONDS", 0.1)


@pytest.fixture
def state(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state.db"


@pytest.fixture
async def valet(state: str) -> AsyncIterator[Valet]:
    async with running(state=state) as valet:
        yield valet


async def until_told(ask: Callable[[], Any], condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    async with asyncio.timeout(120):
        while not condition(found := await ask()):  # noqa: ASYNC110 - what is asked for has no event
            await asyncio.sleep(0.01)
    return found


async def begin(valet: Valet, database: str = "ad-one", token: str = "operator") -> dict[str, Any]:
    answer = await valet.ask("POST", f"/api/databases/{database}/backups", token, json={})
    assert answer.status_code == 201, answer.text
    return answer.json()["database_backup"]


async def shown(valet: Valet, backup: dict[str, Any]) -> dict[str, Any]:
    return (await valet.ask("GET", f"/api/backups/{backup['id']}", "reader")).json()["database_backup"]


async def ended(valet: Valet, backup: dict[str, Any]) -> dict[str, Any]:
    """Wait as the command-line client does, and for the operation, which ends last."""
    await until_told(
        lambda: operation_of(valet, backup),
        lambda found: found["finished_at"],
    )
    return await shown(valet, backup)


async def operation_of(valet: Valet, backup: dict[str, Any]) -> dict[str, Any]:
    path = f"/api/databases/{backup['database_id']}/operations/{backup['operation_id']}"
    return (await valet.ask("GET", path)).json()["operation"]


async def make(valet: Valet, token: str = "operator") -> dict[str, Any]:
    done = await ended(valet, await begin(valet, token=token))
    assert done["status"] == "done", done
    return done


async def listed(valet: Valet) -> list[dict[str, Any]]:
    return (await valet.ask("GET", f"{ONE}/backups", "reader")).json()["database_backups"]


async def link(valet: Valet, backup: dict[str, Any]) -> str:
    return (await valet.ask("GET", f"{ONE}/backups/{backup['id']}/archive")).json()["download_url"]


async def restore(valet: Valet, backup: dict[str, Any]) -> dict[str, Any]:
    begun = await valet.ask("POST", f"{ONE}/backups/{backup['id']}/restore", json={})
    assert begun.status_code == 201, begun.text
    return begun.json()


async def restored(valet: Valet, restoration: dict[str, Any]) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        return (await valet.ask("GET", f"{ONE}/backup_restorations/{restoration['id']}", "reader")).json()[
            "backup_restoration"
        ]

    return await until_told(ask, lambda found: found["finished_at"])


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def archives(tmp_path: Path) -> list[str]:
    return [name for name in files(tmp_path) if not name.startswith("state.db")]


# Made, shown, downloaded.


async def test_a_backup_is_done_once_its_archive_is_written_and_read_back(valet: Valet, tmp_path: Path):
    gate = valet.server().backups.gates["dump"] = Gate()
    begun = await begin(valet)
    assert begun["status"] in ("scheduled", "running")
    assert (begun["size"], begun["sha256"], begun["finished_at"], begun["contents"]) == (None, None, None, None)
    running_one = await until_told(lambda: operation_of(valet, begun), lambda found: found["progress"] == 35)
    assert running_one["step"] == "dumping things"
    assert (await shown(valet, begun))["status"] == "running"
    gate.open.set()

    done = await ended(valet, begun)
    assert (done["status"], done["type"], done["method"], done["error"]) == ("done", "manual", "manual", None)
    assert done["name"].endswith("_ad-one")
    assert done["contents"] == {
        "engine": "fake",
        "flavour": None,
        "readable_version": "1.2.0",
        "database": "app",
        "tool": "fake 1",
        "notes": ["no colours"],
    }
    assert archives(tmp_path) == [f"dbvalet-backups/ad-one/{done['id']}.tar.gz"]
    content = _read(tmp_path / "dbvalet-backups" / "ad-one" / f"{done['id']}.tar.gz")
    assert (len(content), hashlib.sha256(content).hexdigest()) == (done["size"], done["sha256"])
    assert (await operation_of(valet, done))["notes"] == ["no colours", BACKED_UP_WHOLE]
    assert await listed(valet) == [done]
    nested = await valet.ask("GET", f"{ONE}/backups/{done['id']}")
    assert nested.json()["database_backup"] == done


def _read(path: Path) -> bytes:
    return path.read_bytes()


async def test_the_list_has_the_newest_first_and_only_those_of_the_database(valet: Valet):
    made = [await make(valet) for _ in range(3)]
    await ended(valet, await begin(valet, "ad-two"))
    assert [each["id"] for each in await listed(valet)] == [each["id"] for each in reversed(made)]


async def test_what_is_downloaded_is_the_archive_and_takes_no_header(valet: Valet):
    done = await make(valet)
    url = await link(valet, done)
    assert url.startswith(f"http://dbvalet/api/backups/{done['id']}/download?")
    answer = await valet.client.get(url)

    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == done["sha256"]
    assert answer.headers["Content-Length"] == str(done["size"])
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{done["name"]}.tar.gz"'
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        assert archive.getnames() == ["manifest.json", "noise", "things.json"]
        things = archive.extractfile("things.json")
        assert things is not None
        assert json.load(things) == {"first": "blue"}


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("0-0", 0, 0),
        ("0-9", 0, 9),
        ("5-", 5, None),
        ("-7", -7, None),
        ("3-999999999", 3, None),
        ("-999999999", 0, None),
    ],
)
async def test_a_range_is_answered_with_those_bytes(valet: Valet, asked: str, first: int, last: int | None):
    url = await link(valet, await make(valet))
    whole = (await valet.client.get(url)).content
    part = await valet.client.get(url, headers={"Range": f"bytes={asked}"})
    begin = first if first >= 0 else len(whole) + first
    end = len(whole) - 1 if last is None else last

    assert part.status_code == 206
    assert part.content == whole[begin : end + 1]
    assert part.headers["Content-Range"] == f"bytes {begin}-{end}/{len(whole)}"
    assert part.headers["Content-Length"] == str(end - begin + 1)


@pytest.mark.parametrize("asked", ["bytes=2-1", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", ""])
async def test_a_range_that_says_nothing_is_answered_with_all(valet: Valet, asked: str):
    done = await make(valet)
    answer = await valet.client.get(await link(valet, done), headers={"Range": asked})
    assert (answer.status_code, len(answer.content)) == (200, done["size"])


async def test_a_range_behind_the_end_is_refused_with_the_size(valet: Valet):
    done = await make(valet)
    for asked in (f"{done['size']}-", "999999999-", "-0"):
        answer = await valet.client.get(await link(valet, done), headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
        assert answer.headers["Content-Range"] == f"bytes */{done['size']}"


async def test_a_download_goes_on_only_with_the_same_archive(valet: Valet):
    done = await make(valet)
    url = await link(valet, done)
    etag = (await valet.client.head(url)).headers["ETag"]
    for condition, status in ((etag, 206), ('"another"', 200)):
        answer = await valet.client.get(url, headers={"Range": "bytes=1-", "If-Range": condition})
        assert answer.status_code == status


async def test_head_of_a_link_reads_nothing(valet: Valet):
    done = await make(valet)
    answer = await valet.client.head(await link(valet, done))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Length"] == str(done["size"])


async def test_a_link_cannot_be_changed_and_soon_expires(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    done, other = await make(valet), await make(valet)
    url = await link(valet, done)
    _, expires, signature = (part.rpartition("=")[2] for part in url.replace("?", "&").split("&"))
    for changed in (
        url.replace(done["id"], other["id"]),
        url.replace(f"expires={expires}", f"expires={int(expires) + 1}"),
        url.replace(signature, signature[::-1]),
        url.replace(signature, "ä"),
        url.replace(expires, "٣"),
        url.partition("?")[0],
    ):
        answer = await valet.client.get(changed)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), changed
    monkeypatch.setattr(links, "LINK_SECONDS", -1)
    assert (await valet.client.get(await link(valet, done))).status_code == 403


async def test_a_link_is_good_at_every_dbvalet_of_a_state_and_after_a_restart(state: str):
    async with running(state=state) as first:
        done = await make(first)
        url = await link(first, done)
        async with running(state=state) as second:
            assert (await second.client.get(url)).status_code == 200
    async with running(state=state, public_url="https://valet.example") as third:
        assert (await third.client.get(url)).status_code == 200
        assert (await link(third, done)).startswith("https://valet.example/api/backups/")


async def test_a_reader_sees_backups_and_downloads_none(valet: Valet):
    done = await make(valet)
    answer = await valet.ask("GET", f"{ONE}/backups/{done['id']}/archive", "reader")
    assert (answer.status_code, answer.json()["error"]) == (
        403,
        "download-backup needs the role operator; this token is reader.",
    )


# Restored.


async def test_a_restore_brings_back_what_was_there(valet: Valet):
    server = valet.server()
    done = await make(valet)
    server.things = {"second": "red"}
    begun = await restore(valet, done)
    assert (begun["source_backup_id"], begun["id"]) == (done["id"], begun["operation_id"])
    found = await restored(valet, begun)

    assert (found["status"], found["error"], found["notes"]) == ("done", None, ["things were replaced"])
    assert server.things == {"first": "blue"}
    assert server.backups.done[-4:] == ["verify", "clean_up", "restore", "swap"]


async def test_a_restore_takes_an_admin(valet: Valet):
    done = await make(valet)
    for method, path in (("POST", f"{ONE}/backups/{done['id']}/restore"), ("DELETE", f"{ONE}/backups/{done['id']}")):
        assert (await valet.ask(method, path, "operator")).status_code == 403
        assert (await valet.ask(method, path, "picky")).status_code == 403
    assert await listed(valet) == [done]


@pytest.mark.parametrize("step", ["verify", "restore", "swap"])
async def test_a_restore_that_fails_leaves_the_data_of_before(valet: Valet, tmp_path: Path, step: str):
    server = valet.server()
    done = await make(valet)
    server.things = {"second": "red"}
    server.backups.problems[step] = BackupFailed("out of luck")
    found = await restored(valet, await restore(valet, done))

    assert (found["status"], found["error"]) == ("error", "out of luck")
    assert server.things == {"second": "red"}
    assert not server.backups.half_done
    assert archives(tmp_path) == [f"dbvalet-backups/ad-one/{done['id']}.tar.gz"]


async def test_a_restore_that_is_cancelled_is_undone(valet: Valet):
    server = valet.server()
    done = await make(valet)
    gate = server.backups.gates["swap"] = Gate()
    begun = await restore(valet, done)
    await until(lambda: gate.waiting)
    await valet.ask("POST", f"{ONE}/operations/{begun['id']}/cancel")

    assert (await restored(valet, begun))["status"] == "cancelled"
    assert not server.backups.half_done


async def test_how_a_restore_ended_is_in_the_audit_too(valet: Valet):
    server = valet.server()
    done = await make(valet)

    async def lines() -> list[dict[str, Any]]:
        found = (await valet.ask("GET", "/api/audit?limit=1000")).json()["audit"]
        return [each for each in found if each["action"] == "restore-backup"]

    begun = await restore(valet, done)
    await restored(valet, begun)
    first, last = await lines()
    assert (first["method"], first["status"], first["code"]) == ("POST", 201, "ok")
    assert (last["method"], last["status"], last["code"]) == ("OPERATION", None, "ok")
    assert (last["who"], last["request_id"], last["effect"]) == ("admin", begun["id"], "destructive")
    assert last["path"] == f"{ONE}/operations/{begun['id']}"
    assert last["params"]["backup_id"] == done["id"]
    assert valet.lines("audited")[-1]["line"] == f"{last['sequence']}:{last['digest']}"
    server.backups.problems["restore"] = BackupFailed("out of luck")
    await restored(valet, await restore(valet, done))
    assert [(each["status"], each["code"]) for each in (await lines())[2:]] == [(201, "ok"), (None, "error")]


async def test_what_cannot_be_undone_at_once_is_undone_when_the_engine_is_back(valet: Valet):
    server = valet.server()
    done = await make(valet)
    gate = server.backups.gates["swap"] = Gate()
    begun = await restore(valet, done)
    await until(lambda: gate.waiting)
    server.backups.problems |= {"swap": BackupFailed("cut"), "clean_up": EngineUnavailable()}
    gate.open.set()
    found = await restored(valet, begun)

    assert found["status"] == "error"
    assert "is tried again, after pauses that grow, whenever the engine can be reached" in found["error"]
    assert server.backups.half_done
    del server.backups.problems["clean_up"]
    await until(lambda: not server.backups.half_done)
    await until(lambda: [each for each in valet.lines("operation_ended") if each["outcome"] == "finished"][1:])
    lines = (await valet.ask("GET", "/api/audit?limit=1000")).json()["audit"]
    asked, failed, cleaned = [each for each in lines if each["action"] == "restore-backup"]
    assert (asked["code"], failed["code"], cleaned["code"]) == ("ok", "error", "cleaned_up")
    assert (cleaned["who"], cleaned["method"], cleaned["status"]) == ("dbvalet", "OPERATION", None)
    assert (cleaned["path"], cleaned["params"]) == (failed["path"], failed["params"])
    assert cleaned["request_id"] != failed["request_id"] == begun["id"]


@pytest.mark.parametrize("spoil", ["cut", "changed", "replaced", "gone"])
async def test_an_archive_that_was_spoilt_is_not_restored(valet: Valet, tmp_path: Path, spoil: str):
    server = valet.server()
    done = await make(valet)
    server.things = {"second": "red"}
    _spoil(tmp_path / "dbvalet-backups" / "ad-one" / f"{done['id']}.tar.gz", spoil)
    if spoil == "gone":
        answer = await valet.ask("POST", f"{ONE}/backups/{done['id']}/restore")
        assert go_failure(answer) == "The archive was not found"
    else:
        found = await restored(valet, await restore(valet, done))
        assert found["status"] == "error"
        assert found["error"].startswith("The archive ")
    assert server.things == {"second": "red"}
    assert "restore" not in server.backups.done


def _spoil(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[:-20])
    elif how == "changed":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        other = io.BytesIO()
        with tarfile.open(fileobj=other, mode="w:gz") as archive:
            member = tarfile.TarInfo("../outside")
            archive.addfile(member, io.BytesIO())
        file.write_bytes(other.getvalue())


# Refused, failed, cancelled.


async def test_what_is_missing_is_told_at_once(valet: Valet):
    valet.server().backups.missing = ["pg_dump is not installed.", "Install it."]
    answer = await valet.ask("POST", f"{ONE}/backups")
    assert (answer.status_code, answer.json()["error"]) == (409, "pg_dump is not installed. Install it.")
    assert await listed(valet) == []


async def test_one_operation_at_a_time(valet: Valet):
    done = await make(valet)
    gate = valet.server().backups.gates["dump"] = Gate()
    begun = await begin(valet)
    for method, path in (("POST", f"{ONE}/backups"), ("POST", f"{ONE}/backups/{done['id']}/restore")):
        answer = await valet.ask(method, path)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    in_use = await valet.ask("DELETE", f"{ONE}/backups/{begun['id']}")
    assert in_use.json()["error"] == f"This backup is in use: backup {begun['operation_id']}."
    unfinished = await valet.ask("GET", f"{ONE}/backups/{begun['id']}/archive")
    assert (unfinished.status_code, unfinished.json()["code"]) == (409, "conflict")
    gate.open.set()
    assert (await ended(valet, begun))["status"] == "done"
    assert len(await listed(valet)) == 2


async def test_a_backup_that_fails_keeps_nothing_and_touches_no_older_one(valet: Valet, tmp_path: Path):
    done = await make(valet)
    valet.server().backups.problems["dump"] = BackupFailed("pg_dump ended with 1: out of luck")
    failed = await ended(valet, await begin(valet))

    assert (failed["status"], failed["error"]) == ("error", "pg_dump ended with 1: out of luck")
    assert (failed["size"], failed["sha256"]) == (None, None)
    assert archives(tmp_path) == [f"dbvalet-backups/ad-one/{done['id']}.tar.gz"]
    assert [each["status"] for each in await listed(valet)] == ["error", "done"]


async def test_a_backup_that_is_cancelled_keeps_nothing(valet: Valet, tmp_path: Path):
    gate = valet.server().backups.gates["dump"] = Gate()
    begun = await begin(valet)
    await until(lambda: gate.waiting)
    await valet.ask("POST", f"{ONE}/operations/{begun['operation_id']}/cancel")

    assert (await ended(valet, begun))["status"] == "cancelled"
    assert archives(tmp_path) == []


async def test_a_storage_that_cannot_be_written_is_told(state: str, tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    async with running(state=state, backups={"storage": f"file://{tmp_path}/taken"}) as valet:
        failed = await ended(valet, await begin(valet))
        assert failed["status"] == "error"
        assert "Not a directory" in failed["error"] or "File exists" in failed["error"]
    assert archives(tmp_path) == ["taken"]


async def test_a_disk_that_is_full_is_told_and_older_backups_stay(
    valet: Valet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done = await make(valet)
    real = os.fsync

    def full(file: int) -> None:
        if str(Path(f"/proc/self/fd/{file}").readlink()).endswith(".part"):
            raise OSError(28, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", full)
    failed = await ended(valet, await begin(valet))

    assert (failed["status"], failed["error"]) == ("error", "No space left on device.")
    assert archives(tmp_path) == [f"dbvalet-backups/ad-one/{done['id']}.tar.gz"]


async def test_a_storage_that_loses_bytes_is_noticed(valet: Valet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.fsync

    def lossy(file: int) -> None:
        real(file)
        if str(Path(f"/proc/self/fd/{file}").readlink()).endswith(".part"):
            os.ftruncate(file, 10)

    monkeypatch.setattr(os, "fsync", lossy)
    failed = await ended(valet, await begin(valet))

    assert failed["error"] == "What was read back from the storage is not what was written to it."
    assert archives(tmp_path) == []


# Deleted, thinned out.


async def test_a_deleted_backup_is_gone_with_its_archive(valet: Valet, tmp_path: Path):
    done, other = await make(valet), await make(valet)
    answer = await valet.ask("DELETE", f"{ONE}/backups/{done['id']}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert archives(tmp_path) == [f"dbvalet-backups/ad-one/{other['id']}.tar.gz"]
    assert await listed(valet) == [other]
    assert (await valet.ask("DELETE", f"{ONE}/backups/{done['id']}")).status_code == 404


async def test_a_backup_of_another_database_is_not_found(valet: Valet):
    done = await make(valet)
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/archive"), ("POST", "/restore")):
        answer = await valet.ask(method, f"/api/databases/ad-two/backups/{done['id']}{rest}")
        assert go_failure(answer) == "The backup was not found"
    assert (await valet.ask("GET", f"/api/backups/{done['id']}", "of-two")).status_code == 404


async def test_no_more_than_so_many_are_kept(state: str, tmp_path: Path):
    async with running(state=state, backups={"keep": {"count": 2}}) as valet:
        made = [await make(valet) for _ in range(4)]
        assert [each["id"] for each in await listed(valet)] == [made[3]["id"], made[2]["id"]]
    assert len(archives(tmp_path)) == 2


async def removals(valet: Valet) -> list[dict[str, Any]]:
    found = (await valet.ask("GET", "/api/audit?limit=1000")).json()["audit"]
    return [each for each in found if each["action"] == "delete-backup"]


async def test_what_is_no_longer_kept_has_its_lines_in_the_audit(state: str):
    async with running(state=state, backups={"keep": {"count": 1}}) as valet:
        first = await make(valet)
        last = await make(valet)
        begun, done = await removals(valet)
        assert (begun["code"], done["code"], done["status"]) == ("begun", "ok", None)
        assert (done["who"], done["method"], done["effect"]) == ("operator", "KEEP", "destructive")
        assert (done["request_id"], done["database"]) == (last["operation_id"], "ad-one")
        assert done["path"] == f"{ONE}/backups/{first['id']}"
        assert done["params"] == {"backup_id": first["id"], "name": first["name"]}
        assert valet.lines("audited")[-1]["line"] == f"{done['sequence']}:{done['digest']}"


async def test_what_cannot_be_removed_has_its_lines_too_and_stays(state: str, monkeypatch: pytest.MonkeyPatch):
    async with running(state=state, backups={"keep": {"count": 1}}) as valet:
        await make(valet)

        def fail(*_: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(valet.service.backups.storage, "remove", fail)
        last = await make(valet)
        assert len(await listed(valet)) == 2
        assert [each["code"] for each in await removals(valet)] == ["begun", "error"]
        notes = (await operation_of(valet, last))["notes"]
        assert any(each.endswith("could not be removed: Read-only file system.") for each in notes)


async def test_what_cannot_be_written_down_is_not_removed(state: str, tmp_path: Path):
    async with running(state=state, backups={"keep": {"count": 1}}) as valet:
        first = await make(valet)
        await valet.service.state.run(
            lambda connection: connection.exec_driver_sql(
                "INSERT INTO audit SELECT sequence + 1, 'ad-one', '{}', 'x' FROM audit_head"
            )
        )
        begun = await valet.service.backups.begin(valet.database(), "schedule", method="manual")
        await valet.service.operations.wait(begun.operation_id, 10)
        again = await valet.service.backups.begin(valet.database(), "schedule", method="manual")
        await valet.service.operations.wait(again.operation_id, 10)
        ended = await valet.service.operations.find("ad-one", again.operation_id)
        assert ended.status == "finished"
        assert (
            f"The older backup {begun.name} was to be removed. Nothing was done, since it cannot be written down. "
            "The audit has a line 2 that is not dbvalet's: `dbvalet audit verify` tells more."
        ) in ended.notes
        assert [each["id"] for each in await listed(valet)] == [again.id, begun.id, first["id"]]
    assert len(archives(tmp_path)) == 3


async def test_without_an_audit_backups_are_removed_all_the_same(state: str, tmp_path: Path):
    async with running(state=state, audit="none", backups={"keep": {"count": 1}}) as valet:
        made = [await make(valet) for _ in range(2)]
        assert [each["id"] for each in await listed(valet)] == [made[1]["id"]]
    assert len(archives(tmp_path)) == 1


async def grow_old(valet: Valet, backup: dict[str, Any], days: int) -> None:
    then = datetime.now(UTC) - timedelta(days=days)
    await valet.service.state.run(
        lambda connection: connection.execute(update(rows).where(rows.c.id == backup["id"]).values(created_at=then))
    )


async def test_the_old_ones_are_removed_but_never_the_last_good_one(state: str):
    async with running(state=state, backups={"keep": {"days": 7}}) as valet:
        made = [await make(valet) for _ in range(3)]
        await grow_old(valet, made[0], 30)
        await grow_old(valet, made[1], 6)
        await grow_old(valet, made[2], 5)
        last = await make(valet)
        assert [each["id"] for each in await listed(valet)] == [last["id"], made[2]["id"], made[1]["id"]]
        for each in (made[1], made[2], last):
            await grow_old(valet, each, 30)
        valet.server().backups.problems["dump"] = BackupFailed("out of luck")
        await ended(valet, await begin(valet))
        assert len(await listed(valet)) == 4  # a failure removes nothing


def backup_of(
    number: int, status: BackupStatus = BackupStatus.DONE, method: Method = "manual", by: str | None = "ops"
) -> Backup:
    return Backup(
        id=str(number),
        database_id="ad-one",
        operation_id=str(number),
        name=str(number),
        method=method,
        started_by=by,
        logical_database=None,
        status=status,
        error=None,
        created_at=NOW - timedelta(days=100 + number),
        finished_at=None,
        size=None,
        sha256=None,
        manifest=None,
    )


def test_the_last_good_one_is_kept_however_old_and_failed_ones_are_counted_apart():
    done, error = BackupStatus.DONE, BackupStatus.ERROR
    newest_first = [backup_of(number, status) for number, status in enumerate([error, done, error, error, done, done])]
    expired = too_many(newest_first, KeepSettings(count=2, days=7), NOW)

    assert sorted(each.id for each in expired) == ["3", "4", "5"]


def test_backups_push_out_those_of_their_own_kind_and_token_only():
    others = [
        backup_of(10, method="periodic", by="schedule"),
        backup_of(11, method="safety", by="ops"),
        backup_of(12, by="another"),
        backup_of(13, by=None),
    ]
    asked_for = [backup_of(number) for number in range(5)]
    expired = too_many([*asked_for, *others], KeepSettings(count=2), NOW)

    assert [each.id for each in expired] == ["2", "3", "4"]
    by_age = too_many(others, KeepSettings(count=2, days=7), NOW)
    assert [each.id for each in by_age] == ["11", "12", "13"]


def periodic(name: str, at: datetime) -> Backup:
    return replace(backup_of(0, method="periodic", by="schedule"), id=name, created_at=at)


def kept_of(made: list[Backup], count: int) -> list[Backup]:
    """Make them one after the other, and thin out after each."""
    kept: list[Backup] = []
    for each in made:
        kept = [each, *kept]
        expired = too_many(kept, KeepSettings(count=count), each.created_at)
        kept = [other for other in kept if other not in expired]
    return kept


def test_more_hours_take_no_day_away():
    midnight = datetime(2026, 1, 20, 0, 1, tzinfo=UTC)
    nightly = [periodic(f"night {day}", midnight + timedelta(days=day)) for day in range(7)]
    hourly = [periodic(f"hour {hour}", nightly[-1].created_at + timedelta(hours=hour)) for hour in range(1, 24)]
    kept = [each.id for each in kept_of([*nightly, *hourly], 7)]

    assert kept[:7] == [f"hour {hour}" for hour in range(23, 16, -1)]
    assert kept[7:] == [f"night {day}" for day in range(6, -1, -1)]
    next_night = periodic("night 7", midnight + timedelta(days=7))
    assert [each.id for each in kept_of([*nightly, *hourly, next_night], 7)][-1] == "night 1"


def test_days_without_a_backup_are_not_counted():
    far_apart = [
        periodic(str(day), datetime(2026, 1, 20, 3, tzinfo=UTC) + timedelta(days=30 * day)) for day in range(9)
    ]
    assert [each.id for each in kept_of(far_apart, 3)] == ["8", "7", "6"]


@pytest.mark.parametrize("hours", [[0], [3, 15], list(range(24))])
def test_however_many_hours_no_more_than_twice_so_many_are_kept(hours: list[int]):
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    made = [
        periodic(f"{day} {hour}", midnight + timedelta(days=day, hours=hour)) for day in range(40) for hour in hours
    ]
    kept = kept_of(made, 14)

    assert kept[:14] == made[:-15:-1]
    assert len({each.created_at.date() for each in kept}) == 14
    assert len(kept) == {1: 14, 2: 21, 24: 28}[len(hours)]


async def test_an_operator_pushes_out_no_backup_of_others(state: str):
    safe = [{**each, "backup_before_destroy": True} for each in configuration()["databases"]]
    async with running(state=state, databases=safe, backups={"keep": {"count": 1}}) as valet:
        of_admin = await make(valet, "admin")
        valet.server().things["second"] = "red"
        before = (await valet.act("drop-thing", {"name": "second"})).json()["backup"]
        last = [await make(valet) for _ in range(3)][-1]
        kept = await listed(valet)
        assert [each["id"] for each in kept] == [last["id"], before["id"], of_admin["id"]]
        assert {each["method"] for each in kept} == {"manual"}
        again = await make(valet, "admin")
        assert [each["id"] for each in await listed(valet)] == [again["id"], last["id"], before["id"]]


@pytest.mark.parametrize(
    ("method", "newest", "made"),
    [
        ("manual", (23, True), False),
        ("manual", (25, True), True),
        ("manual", (23, False), True),
        ("safety", (1, True), False),
        ("periodic", (1, True), True),
    ],
)
async def test_a_backup_of_a_token_backs_the_whole_server_up_once_a_day(
    state: str, monkeypatch: pytest.MonkeyPatch, method: Method, newest: tuple[int, bool], made: bool
):
    hours, usable = newest
    monkeypatch.setattr(recovery, "USABLE", usable)
    monkeypatch.setattr(recovery, "MADE", datetime.now(UTC) - timedelta(hours=hours))
    async with running(state=state) as valet:
        begun = await valet.service.backups.begin(valet.database(), "somebody", method=method)
        await valet.service.operations.wait(begun.operation_id, 10)
        found = await valet.service.operations.find("ad-one", begun.operation_id)
        assert (BACKED_UP_WHOLE in found.notes) is made
        assert any(note.startswith("No backup of the whole server was made") for note in found.notes) is not made


async def test_the_schedule_backs_the_whole_server_up_once_a_day_however_many_its_hours(
    state: str, monkeypatch: pytest.MonkeyPatch
):
    clock = datetime(2026, 1, 30, 23, 0, 5, tzinfo=UTC)
    monkeypatch.setattr(State, "now", lambda *_: clock)
    async with running(state=state) as valet:

        async def made_whole() -> bool:
            begun = await valet.service.backups.begin(valet.database(), "schedule", method="periodic")
            await valet.service.operations.wait(begun.operation_id, 10)
            return BACKED_UP_WHOLE in (await valet.service.operations.find("ad-one", begun.operation_id)).notes

        monkeypatch.setattr(recovery, "MADE", clock - timedelta(hours=23))
        assert await made_whole()
        # It took until after midnight, and that of the next day has its turn all the same.
        monkeypatch.setattr(recovery, "MADE", clock + timedelta(hours=2))
        clock += timedelta(hours=24)
        assert await made_whole()
        clock = datetime(2026, 2, 1, 0, 0, 5, tzinfo=UTC)
        assert await made_whole()  # the fake one has failed
        clock += timedelta(hours=1)
        assert await made_whole()
        monkeypatch.setattr(recovery, "MADE", datetime(2026, 2, 1, 0, 0, 5, tzinfo=UTC))
        clock += timedelta(hours=1)
        assert not await made_whole()
        valet.server().recovery.timeline = 2  # of which there is none yet
        assert await made_whole()


# Cut off.


@pytest.mark.parametrize("step", ["dump"])
async def test_a_backup_that_was_cut_off_is_ended_with_its_reason_by_the_next_start(
    state: str, tmp_path: Path, step: str
):
    async with running(state=state) as valet:
        gate = valet.server().backups.gates[step] = Gate()
        begun = await begin(valet)
        await until(lambda: gate.waiting)
    (tmp_path / "dbvalet-backups" / "ad-one").mkdir(parents=True)
    (tmp_path / "dbvalet-backups" / "ad-one" / f".{begun['id']}.tar.gz.part").write_text("half")
    (tmp_path / "dbvalet-backups" / "ad-one" / f"{begun['id']}.tar.gz").write_text("renamed, but not written down")
    async with running(state=state) as valet:
        found = await ended(valet, begun)
        assert found["status"] == "error"
        assert found["error"].startswith("dbvalet ended in the middle of this backup: nothing of it is kept.")
        assert archives(tmp_path) == []
        await make(valet)


async def test_a_restore_that_was_cut_off_is_undone_by_the_next_start(state: str):
    async with running(state=state) as valet:
        done = await make(valet)
        gate = valet.server().backups.gates["swap"] = Gate()
        begun = await restore(valet, done)
        await until(lambda: gate.waiting)
    async with running(state=state) as valet:
        valet.server().backups.half_done = True
        found = await restored(valet, begun)
        assert found["status"] == "error"
        assert found["error"].startswith("dbvalet ended in the middle of this restore")
        assert not valet.server().backups.half_done
        assert (await restored(valet, await restore(valet, done)))["status"] == "done"


async def test_a_restore_that_was_cut_off_ends_though_the_engine_hangs(state: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kinds, "CLEAN_UP_SECONDS", 0.2)
    async with running(state=state) as valet:
        done = await make(valet)
        gate = valet.server().backups.gates["swap"] = Gate()
        begun = await restore(valet, done)
        await until(lambda: gate.waiting)
    async with running(state=state) as valet:
        hang = valet.server().backups.gates["clean_up"] = Gate()
        found = await restored(valet, begun)
        assert found["status"] == "error"
        assert "the engine does not answer" in found["error"]
        hang.open.set()
        await until(lambda: "clean_up" in valet.server().backups.done)


async def test_what_takes_long_to_clean_up_is_cleaned_up(state: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kinds, "CLEAN_UP_SECONDS", 0.1)
    async with running(state=state) as valet:
        controls = valet.server().backups
        done = await make(valet)
        controls.problems["swap"] = BackupFailed("cut off")
        controls.gates["swap"] = gate = Gate()
        begun = await restore(valet, done)
        await until(lambda: gate.waiting)
        controls.clean_up_seconds = 0.5
        gate.open.set()
        found = await restored(valet, begun)
        assert "that is tried again, after pauses that grow, whenever the engine can be reached" in found["error"]
        assert controls.half_done
        await until(lambda: not controls.half_done)


async def test_a_bug_in_the_cleaning_up_does_not_let_it_be_forgotten(valet: Valet):
    controls = valet.server().backups
    done = await make(valet)
    controls.problems["swap"] = BackupFailed("cut off")
    controls.gates["swap"] = gate = Gate()
    begun = await restore(valet, done)
    await until(lambda: gate.waiting)
    controls.problems["clean_up"] = AttributeError("planted-bug")
    gate.open.set()
    assert (
        "that is tried again, after pauses that grow, whenever the engine can be reached"
        in (await restored(valet, begun))["error"]
    )
    assert "planted-bug" in valet.lines("bug")[0]["exception"]
    del controls.problems["clean_up"]
    await until(lambda: not controls.half_done)


async def test_a_storage_that_fails_in_its_own_words_is_no_bug(valet: Valet, monkeypatch: pytest.MonkeyPatch):
    done = await make(valet)

    def refuse(*_: object) -> None:
        raise RuntimeError("EndpointConnectionError")

    for path, method in (("archive", "GET"), ("restore", "POST")):
        with monkeypatch.context() as broken:
            broken.setattr(valet.service.backups.storage, "_at", refuse)
            answer = await valet.ask(method, f"{ONE}/backups/{done['id']}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (409, "precondition"), path
        assert "EndpointConnectionError" in answer.json()["error"]
    monkeypatch.setattr(valet.service.backups.storage, "_at", refuse)
    answer = await valet.ask("DELETE", f"{ONE}/backups/{done['id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "precondition")
    failed = await ended(valet, await begin(valet))
    assert (failed["status"], "EndpointConnectionError" in failed["error"]) == ("error", True)
    assert valet.lines("bug") == []


async def test_large_backups_are_never_whole_in_memory(valet: Valet):
    valet.server().backups.padding = 100_000_000
    before = _memory()
    done = await make(valet)
    url = await link(valet, done)
    size = 0
    # Over a socket: the client without one keeps a whole answer.
    async with (
        listening(valet) as port,
        httpx.AsyncClient() as client,
        client.stream("GET", url.replace("http://dbvalet", f"http://127.0.0.1:{port}")) as answer,
    ):
        assert answer.status_code == 200
        async for block in answer.aiter_raw():
            size += len(block)
    assert size == done["size"] > 100_000_000
    assert (await restored(valet, await restore(valet, done)))["status"] == "done"
    assert _memory() - before < 64


def _memory() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 / 1024
