"""`dbvalet backups` against the real service on the fake engine."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typer.testing import CliRunner, Result

from agent.commands import asked as module
from agent.commands import waiting
from agent.commands.root import app
from agent.operations import keeper
from engines.errors import BackupFailed
from tests.fakes.driver import Gate
from tests.fakes.service import TOKENS, Valet, listening, running, until

EDGES = {"earliest_recoverable_at": "2026-01-30T08:00:00Z", "latest_recoverable_at": "2026-01-31T08:00:00Z"}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.02)
    for name in ("DBVALET_TOKEN", "DBVALET_TOKEN_FILE", "DBVALET_URL"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Shell:
    """A shell from which the service is reached."""

    valet: Valet
    monkeypatch: pytest.MonkeyPatch

    async def run(self, *words: str, code: int = 0) -> Result:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["backups", *words])
        assert result.exit_code == code, (result.output, result.exception)
        assert not any(token in result.output for token in TOKENS.values())
        return result

    async def answer(self, *words: str, typed: str, code: int) -> Result:
        """Run it where somebody answers."""
        with self.monkeypatch.context() as patched:
            patched.setattr(module, "is_asked", lambda: True)
            result = await asyncio.to_thread(CliRunner().invoke, app, ["backups", *words], input=typed)
        assert result.exit_code == code, result.output
        return result

    async def create(self) -> str:
        return (await self.run("create", "ad-one")).stdout.split()[0]

    async def objects(self) -> list[dict[str, object]]:
        return json.loads((await self.run("list", "ad-one", "--json")).stdout)["database_backups"]


@pytest.fixture
async def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Shell]:
    async with running(state=f"sqlite:///{tmp_path}/state.db") as valet, listening(valet) as port:
        monkeypatch.setenv("DBVALET_TOKEN", TOKENS["admin"])
        monkeypatch.setenv("DBVALET_URL", f"http://127.0.0.1:{port}")
        yield Shell(valet, monkeypatch)


async def test_a_backup_is_made_with_its_steps_a_line_each(shell: Shell) -> None:
    assert (await shell.run("list", "ad-one")).output == "(none)\n"
    gate = shell.valet.server().backups.gates["dump"] = Gate()
    making = asyncio.create_task(shell.run("create", "ad-one"))
    await until(lambda: gate.waiting)
    in_progress = await shell.run("list", "ad-one")
    assert "running" in in_progress.stdout
    gate.open.set()
    made = await making
    assert made.stdout.split()[1] == "done"
    assert made.stderr.splitlines()[-1].strip() == "100 %  done"
    listed = (await shell.run("list", "ad-one")).stdout
    assert made.stdout.split()[0] in listed
    assert "in progress" not in listed
    shown = (await shell.run("show", "ad-one", "latest")).stdout
    assert "fake 1" in shown


async def test_a_backup_that_failed_ends_it_with_the_reason(shell: Shell) -> None:
    shell.valet.server().backups.problems["dump"] = BackupFailed("the tool \x1b[31msaid no")
    failed = await shell.run("create", "ad-one", code=1)
    assert "dbvalet: backup error: the tool \\x1b[31msaid no\n" in failed.stderr
    assert "has no backup that is done" in (await shell.run("show", "ad-one", "latest", code=1)).stderr


async def test_a_refusal_is_told_or_given_as_it_came(shell: Shell) -> None:
    assert "not_found (404)" in (await shell.run("list", "ad-none", code=1)).stderr
    raw = await shell.run("show", "ad-one", "none", "--json", code=1)
    assert json.loads(raw.stdout)["code"] == "not_found"
    shell.monkeypatch.setenv("DBVALET_TOKEN", TOKENS["reader"])
    assert "forbidden (403)" in (await shell.run("create", "ad-one", code=1)).stderr
    assert shell.valet.server().backups.done == []


async def test_an_archive_is_downloaded_whole_and_no_file_replaced(shell: Shell, tmp_path: Path) -> None:
    backup = await shell.create()
    target = tmp_path / "archive.tar.gz"
    assert (await shell.run("download", "ad-one", backup, "-o", str(target))).stdout == f"{target}\n"
    (found,) = await shell.objects()
    assert hashlib.sha256(target.read_bytes()).hexdigest() == found["sha256"]
    target.write_text("mine")
    refused = await shell.run("download", "ad-one", "latest", "-o", str(target), code=2)
    assert "is there already" in " ".join(refused.output.split())
    assert target.read_text() == "mine"
    await shell.run("download", "ad-one", "latest", "-o", str(target), "--force")
    assert target.stat().st_size == found["size"]
    assert not target.with_name("archive.tar.gz.part").exists()


async def test_a_restore_shows_what_is_replaced_by_what_and_asks(shell: Shell) -> None:
    backup = await shell.create()
    server = shell.valet.server()
    server.things["second"] = "red"
    refused = await shell.answer("restore", "ad-one", backup, typed="n\n", code=1)
    words = " ".join(refused.output.split())
    assert "All that this database holds now is replaced" in words
    for part in (
        "ad-one of",
        "at db.example",
        backup,
        "app on fake 1.2.0, by fake 1",
        "no colours",
        "Nothing was done",
    ):
        assert part in words
    assert server.things == {"first": "blue", "second": "red"}

    done = await shell.answer("restore", "ad-one", backup, typed="y\n", code=0)
    assert "things were replaced" in done.output
    assert done.stdout.endswith("  done\n")
    assert server.things == {"first": "blue"}


async def test_without_a_terminal_a_restore_needs_to_be_meant(shell: Shell) -> None:
    backup = await shell.create()
    server = shell.valet.server()
    server.things["second"] = "red"
    for words in (["restore", "ad-one", backup], ["delete", "ad-one", backup]):
        assert "--yes" in (await shell.run(*words, code=2)).stderr
    assert server.things == {"first": "blue", "second": "red"}
    done = await shell.run("restore", "ad-one", "latest", "--yes", "--json")
    assert json.loads(done.stdout)["backup_restoration"]["status"] == "done"
    assert server.things == {"first": "blue"}


async def test_in_a_pipe_the_question_is_not_mixed_with_the_json(shell: Shell) -> None:
    await shell.create()
    done = await shell.answer("restore", "ad-one", "latest", "--json", typed="y\n", code=0)
    typed, _, printed = done.stdout.partition("\n")  # the runner shows what is typed
    assert typed == " y"
    assert json.loads(printed)["backup_restoration"]["status"] == "done"


async def test_a_backup_is_deleted_when_it_is_meant(shell: Shell) -> None:
    backup = await shell.create()
    await shell.answer("delete", "ad-one", backup, typed="n\n", code=1)
    assert len(await shell.objects()) == 1
    assert (await shell.run("delete", "ad-one", backup, "--yes")).output == "ok\n"
    assert await shell.objects() == []


async def test_ctrl_c_leaves_the_restore_and_says_how_to_stop_it(shell: Shell) -> None:
    await shell.create()
    gate = shell.valet.server().backups.gates["restore"] = Gate()

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with shell.monkeypatch.context() as patched:
        patched.setattr(waiting.time, "sleep", interrupted)
        left = await shell.run("restore", "ad-one", "latest", "--yes", code=130)
    words = " ".join(left.stderr.split())
    await until(lambda: gate.waiting)
    begun = await shell.valet.ask("GET", "/api/databases/ad-one/operations")
    operation = begun.json()["operations"][0]
    assert operation["finished_at"] is None
    assert f"dbvalet backups cancel ad-one {operation['id']}" in words
    assert f"backup_restore {operation['id']}: " in (await shell.run("list", "ad-one")).stdout

    assert (await shell.run("cancel", "ad-one", operation["id"])).output == "ok\n"
    path = f"/api/databases/ad-one/operations/{operation['id']}"
    await until(lambda: {each["operation"] for each in shell.valet.lines("operation_ended")} >= {operation["id"]}, 30)
    assert (await shell.valet.ask("GET", path)).json()["operation"]["status"] == "cancelled"


async def test_what_is_not_waited_for_is_only_begun(shell: Shell) -> None:
    gate = shell.valet.server().backups.gates["dump"] = Gate()
    begun = await shell.run("create", "ad-one", "--no-wait", "--json")
    assert json.loads(begun.stdout)["database_backup"]["status"] in ("scheduled", "running")
    gate.open.set()


@dataclass
class Recovery:
    """Point-in-time recovery as the API has it; what is begun is an operation of the service."""

    valet: Valet
    wanted: list[dict[str, object]]

    async def window(self, _request: Request) -> Response:
        return JSONResponse({"recovery_window": EDGES})

    async def restore(self, request: Request) -> Response:
        self.wanted.append(await request.json())
        backup = await self.valet.service.backups.begin(self.valet.database(), "admin")
        operation = {"id": backup.operation_id, "status": "pending"}
        return JSONResponse({"operation_id": backup.operation_id, "operation": operation}, 201)


@pytest.fixture
def recovery(shell: Shell) -> Recovery:
    recovery = Recovery(shell.valet, [])
    path = "/api/databases/ad-one/pitr"
    routes = shell.valet.app.router.routes
    routes.insert(0, Route(f"{path}/recovery_window", recovery.window, methods=["GET"]))
    routes.insert(0, Route(f"{path}/restore", recovery.restore, methods=["POST"]))
    return recovery


async def test_a_database_goes_back_to_a_moment(shell: Shell, recovery: Recovery) -> None:
    window = await shell.run("window", "ad-one")
    assert "earliest recoverable at" in window.stdout
    assert json.loads((await shell.run("window", "ad-one", "--json")).stdout) == {"recovery_window": EDGES}

    moment = "2026-01-31T07:30:00+01:00"
    refused = await shell.answer("restore", "ad-one", "--at", moment, typed="n\n", code=1)
    words = " ".join(refused.output.split())
    assert "The whole server goes back, with every database on it and all roles" in words
    assert moment in words
    assert recovery.wanted == []
    assert "--yes" in (await shell.run("restore", "ad-one", "--at", moment, code=2)).stderr
    assert recovery.wanted == []

    done = await shell.run("restore", "ad-one", "--at", moment, "--yes")
    assert done.stdout.endswith("  finished\n")
    assert recovery.wanted == [{"restore_time": moment}]
    begun = await shell.run("restore", "ad-one", "--at", moment, "--yes", "--no-wait")
    assert begun.stdout.endswith("  pending\n")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--at", "yesterday"], "is no time"),
        (["--at", "2026-01-31 08:00:00"], "names no zone"),
        (["latest", "--at", "2026-01-31T08:00:00Z"], "not both"),
        ([], "is needed"),
    ],
)
async def test_what_could_be_meant_in_two_ways_is_refused(
    shell: Shell, recovery: Recovery, words: list[str], why: str
) -> None:
    refused = await shell.run("restore", "ad-one", *words, "--yes", code=2)
    assert why in " ".join(refused.output.split())
    assert recovery.wanted == []
    assert shell.valet.server().backups.done == []


def test_steps_are_lines_where_only_words_count(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [(0, "1 MB written"), (10, "20 MB written"), (90, "packing"), (100, "done")]
    left = iter(steps)

    def look() -> dict[str, object]:
        percent, step = next(left)
        return {"progress": percent, "step": step, "finished_at": None if percent < 100 else "now"}

    assert waiting.wait(look)["step"] == "done"
    assert capsys.readouterr().err == "  0 %  1 MB written\n 90 %  packing\n100 %  done\n"


async def test_a_backup_of_another_logical_database_is_told_from_the_others(shell: Shell) -> None:
    own = await shell.create()
    valet = shell.valet
    other = await valet.service.backups.begin(valet.database(), "admin", "other")
    await valet.service.operations.wait(other.operation_id, 60)
    listed = (await shell.run("list", "ad-one")).stdout.splitlines()
    assert "logical" in listed[0]
    assert listed[-1].split()[0] == own
    assert any(line.split()[-1] == "other" for line in listed)
    asked = await shell.answer("restore", "ad-one", other.id, typed="n\n", code=1)
    assert "All that this logical database holds now is replaced" in asked.output
    assert "other" in asked.output
    latest = await shell.answer("restore", "ad-one", "latest", typed="n\n", code=1)
    assert own in latest.output
    assert "All that this database holds now is replaced" in latest.output


async def test_backups_of_another_logical_database_take_no_place_of_the_own_ones(shell: Shell) -> None:
    own = await shell.create()
    valet = shell.valet
    for _ in range(15):
        other = await valet.service.backups.begin(valet.database(), "admin", "other")
        await valet.service.operations.wait(other.operation_id, 60)
    found = await valet.service.backups.newest("ad-one")
    assert own in [each.id for each in found]
    assert len(found) == 15
