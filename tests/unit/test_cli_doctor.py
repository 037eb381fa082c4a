"""`dbvalet doctor` against the fake engine: what it says of servers in every state."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agent.choices import AllChoices, DatabaseChange
from agent.commands import doctor as module
from agent.commands.root import app
from agent.state.state import State
from engines.action import Effect
from engines.address import Address
from engines.engine import Description, Memory
from engines.errors import EngineUnavailable
from tests.fakes import ENGINE
from tests.fakes.driver import FakeServer, Gate
from tests.fakes.service import PITR

Prepare = Callable[[FakeServer], None]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Prepare]:
    """What to do to the server of a logical database before it is examined."""
    prepared: dict[str, Prepare] = {}

    class Prepared(FakeServer):
        def __init__(self, address: Address, memory: Memory) -> None:
            super().__init__(address, memory)
            prepared.get(address.database, lambda _: None)(self)

    monkeypatch.setattr("tests.fakes.driver.FakeServer", Prepared)
    monkeypatch.setattr("agent.app.installed_engines", lambda: {"fake": ENGINE})
    return prepared


def configuration(folder: Path, *databases: dict[str, Any], **more: Any) -> str:
    file = folder / "dbvalet.yaml"
    token = {"name": "tests", "token": "a-token-of-the-tests", "role": "admin", "databases": ["*"]}
    given = {"state": f"sqlite:///{folder}/state.db", "tokens": [token], "databases": databases, **more}
    file.write_text(json.dumps(given))
    return str(file)


def declared(database: str, **more: Any) -> dict[str, Any]:
    return {"id": f"ad-{database}", "url": f"fake://valet:the-secret@db.example/{database}", **more}


def doctor(
    folder: Path, *words: str, databases: tuple[dict[str, Any], ...] = (declared("app"),), **more: Any
) -> Result:
    config = configuration(folder, *databases, **more)
    return CliRunner().invoke(app, ["doctor", "--config", config, *words], env={"COLUMNS": "100"})


def actions_of(result: Result, number: int = 0) -> dict[str, dict[str, Any]]:
    return {each["action"]: each for each in json.loads(result.stdout)["databases"][number]["actions"]}


def give_all(server: FakeServer) -> None:
    """Let the server be of the version that every action of the fake engine needs."""
    assert isinstance(server.description, Description)
    server.description = replace(server.description, version=(9, 1))


def test_a_server_that_suffices_ends_it_with_0(servers: dict[str, Prepare], tmp_path: Path) -> None:
    servers["app"] = give_all
    result = doctor(tmp_path)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "ad-app: Fake 1.2.0 at fake://valet@db.example:4321/app"
    assert lines[-1] == "Nothing is missing."
    assert {line.split()[0]: line.split()[2] for line in lines[3:-2]} == dict.fromkeys(ENGINE.actions, "yes")


def test_what_is_missing_is_named_with_its_remedy(servers: dict[str, Prepare], tmp_path: Path) -> None:
    def lack(server: FakeServer) -> None:
        server.unmet = {"superpower", "preload"}

    servers["app"] = lack
    result = doctor(tmp_path)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    (power,) = [line for line in lines if line.startswith("use-power ")]
    assert power.split(maxsplit=3)[2:] == ["no", "superpower, preload"]
    (novelty,) = [line for line in lines if line.startswith("use-novelty ")]
    assert novelty.split(maxsplit=3)[2:] == ["no", "Fake 9.1"]
    # Both requirements have the same remedy: it is said once.
    helps = lines[lines.index("What helps, run or set by an account that may:") + 1 : -2]
    assert helps == ["  Upgrade to 9.1 or later.", "  GRANT it TO valet"]
    assert lines[-1] == "Actions that lack something: 2."


def test_json_has_the_same_for_programs(servers: dict[str, Prepare], tmp_path: Path) -> None:
    def lack(server: FakeServer) -> None:
        give_all(server)
        server.unmet = {"preload"}

    servers["app"] = lack
    result = doctor(tmp_path, "--json")
    assert (result.exit_code, json.loads(result.stdout)["ok"]) == (1, False)
    assert actions_of(result)["use-power"] == {
        "action": "use-power",
        "effect": "write",
        "ready": "no",
        "missing": [{"name": "preload", "remedy": "GRANT it TO valet"}],
    }
    assert actions_of(result)["list-things"]["ready"] == "yes"


def test_what_a_route_lacks_is_told_and_is_no_fault(servers: dict[str, Prepare], tmp_path: Path) -> None:
    def lack(server: FakeServer) -> None:
        give_all(server)
        server.unmet = {"logright", "userright"}

    servers["app"] = lack
    result = doctor(tmp_path)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    at = lines.index("Routes that show or do less, or nothing; no fault where nobody asks them:")
    assert lines[at + 1 :] == [
        *("  logs: logright", "  users: userright", "  GRANT logright", "  GRANT userright"),
        *("", "Nothing is missing."),
    ]
    (database,) = json.loads(doctor(tmp_path, "--json").stdout)["databases"]
    assert database["routes"] == [
        {"route": "instances_status", "ready": "yes", "missing": []},
        {"route": "logs", "ready": "no", "missing": [{"name": "logright", "remedy": "GRANT logright"}]},
        {"route": "metrics", "ready": "yes", "missing": []},
        {"route": "users", "ready": "no", "missing": [{"name": "userright", "remedy": "GRANT userright"}]},
    ]


BACKUP = {"name": "backup", "remedy": "Install pg_dump."}
DESTRUCTIVE = {name for name, each in ENGINE.actions.items() if each.effect is Effect.DESTRUCTIVE}


def lack_backups(server: FakeServer) -> None:
    give_all(server)
    server.backups.missing = ["Install pg_dump."]


def refused(result: Result) -> set[str]:
    """Name the actions that lack a backup, and make sure that nothing else lacks anything."""
    found = {name: each for name, each in actions_of(result).items() if each["missing"]}
    assert [each["missing"] for each in found.values()] == [[BACKUP]] * len(found)
    assert all(each["ready"] == "no" for each in found.values())
    return set(found)


def test_what_needs_a_backup_first_is_not_ready_where_none_can_be_made(
    servers: dict[str, Prepare], tmp_path: Path
) -> None:
    servers["app"] = lack_backups
    safe = declared("app", backup_before_destroy=True, disabled_actions=["create-backup"])
    result = doctor(tmp_path, "--json", databases=(safe,))
    assert result.exit_code == 1
    assert refused(result) == {*DESTRUCTIVE, "restore-backup"}
    assert actions_of(result)["create-backup"]["ready"] == "off"
    lines = doctor(tmp_path, databases=(safe,)).output.splitlines()
    assert lines[-1] == f"Actions that lack something: {len(DESTRUCTIVE) + 1}."
    assert lines.count("  Install pg_dump.") == 1


def test_it_is_no_fault_where_nobody_asks_for_one(servers: dict[str, Prepare], tmp_path: Path) -> None:
    servers["app"] = lack_backups
    result = doctor(tmp_path)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    at = lines.index("No backup can be made or restored; no fault where nobody asks for one:")
    assert lines[at + 1 :] == ["  Install pg_dump.", "", "Nothing is missing."]
    (database,) = json.loads(doctor(tmp_path, "--json").stdout)["databases"]
    assert database["backups"] == [BACKUP]


@pytest.mark.parametrize(
    ("role", "sees", "asks"), [("admin", "app", True), ("operator", "app", False), ("admin", "other", False)]
)
def test_a_token_that_asks_for_backups_first_makes_it_a_fault_where_it_destroys(
    servers: dict[str, Prepare], tmp_path: Path, role: str, sees: str, asks: bool
) -> None:
    servers["app"] = servers["other"] = lack_backups
    databases = (declared("app"), declared("other"))
    config = configuration(tmp_path, *databases)
    words = ["token", "create", "careful", "--role", role, "--database", f"ad-{sees}", "--backup-before-destroy"]
    assert CliRunner().invoke(app, [*words, "--config", config]).exit_code == 0
    result = doctor(tmp_path, "--json", databases=databases)
    assert refused(result) == ({*DESTRUCTIVE, "create-backup", "restore-backup"} if asks else set())


def test_backups_at_chosen_hours_are_not_ready_where_none_can_be_made(
    servers: dict[str, Prepare], tmp_path: Path
) -> None:
    servers["app"] = lack_backups
    state = State(f"sqlite:///{tmp_path}/state.db")
    asyncio.run(AllChoices(state).change("ad-app", DatabaseChange(periodic_backups_enabled=True)))
    state.close()
    result = doctor(tmp_path, "--json")
    assert result.exit_code == 1
    assert refused(result) == {"create-backup", "restore-backup"}


SAFE = (declared("app", backup_before_destroy=True),)


@pytest.mark.parametrize("place", ["storage", "spool"])
def test_a_place_where_no_backup_can_be_written_is_missing(
    servers: dict[str, Prepare], tmp_path: Path, place: str
) -> None:
    servers["app"] = give_all
    taken = tmp_path / "taken"
    taken.touch()
    backups = {"storage": f"file://{tmp_path}/new", "spool": f"{tmp_path}/new", place: f"{taken}/below"}
    lack = {"name": place, "remedy": f"`backups.{place}` cannot be written to: Not a directory ({taken})."}
    result = doctor(tmp_path, "--json", databases=SAFE, backups=backups)
    assert result.exit_code == 1
    concerned = {name: each["missing"] for name, each in actions_of(result).items() if each["ready"] == "no"}
    assert concerned == {name: [lack] for name in (*DESTRUCTIVE, "create-backup", "restore-backup")}
    lines = doctor(tmp_path, databases=SAFE, backups=backups).output.splitlines()
    assert lines[lines.index("What helps, run or set by an account that may:") + 1] == f"  {lack['remedy']}"
    unasked = doctor(tmp_path, backups=backups)
    said = [f"  {lack['remedy']}", "", "Nothing is missing."]
    assert (unasked.exit_code, unasked.output.splitlines()[-3:]) == (0, said)
    assert not (tmp_path / "new").exists()


def test_a_bucket_is_tried_and_what_it_says_is_told_in_one_line(
    servers: dict[str, Prepare], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    servers["app"] = give_all
    asked: dict[str, Any] = {"databases": SAFE, "backups": {"storage": "memory://doctor"}}
    assert doctor(tmp_path, **asked).exit_code == 0
    assert MemoryFileSystem().find("/doctor") == []

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("403\nfrom \x1b[2J the bucket")

    monkeypatch.setattr(MemoryFileSystem, "open", refuse)
    result = doctor(tmp_path, **asked)
    assert result.exit_code == 1
    said = "  `backups.storage` cannot be written to: RuntimeError: 403 from \\x1b[2J the bucket."
    assert said in result.output.splitlines()


def test_a_storage_that_does_not_answer_is_missing_and_holds_nobody(
    servers: dict[str, Prepare], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers["app"] = give_all
    ended, gave_up = threading.Event(), threading.Event()

    def silent(*_: Any) -> None:
        if not ended.wait(60):
            gave_up.set()

    monkeypatch.setattr("agent.backups.storage.Storage.try_to_write", silent)
    monkeypatch.setattr("agent.backups.trial.TRY_SECONDS", 0.3)
    result = doctor(tmp_path, databases=SAFE)
    assert not gave_up.is_set(), "the command waited for the storage"
    ended.set()
    assert result.exit_code == 1
    assert "  `backups.storage` cannot be written to: it does not answer within 0.3 s." in result.output.splitlines()


def test_an_action_that_is_switched_off_lacks_nothing(servers: dict[str, Prepare], tmp_path: Path) -> None:
    def lack(server: FakeServer) -> None:
        give_all(server)
        server.unmet = {"preload"}

    servers["app"] = lack
    result = doctor(tmp_path, "--json", databases=(declared("app", disabled_actions=["use-power"]),))
    assert result.exit_code == 0
    assert actions_of(result)["use-power"] == {
        "action": "use-power",
        "effect": "write",
        "ready": "off",
        "missing": [],
    }


def test_a_server_that_cannot_be_reached_does_not_hide_the_others(servers: dict[str, Prepare], tmp_path: Path) -> None:
    def fail(server: FakeServer) -> None:
        server.description = EngineUnavailable("It refuses the account.")

    servers |= {"down": fail, "app": give_all}
    result = doctor(tmp_path, databases=(declared("down"), declared("app")))
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[:2] == [
        "ad-down: Fake at fake://valet@db.example:4321/down",
        "  cannot be examined: It refuses the account.",
    ]
    assert "ad-app: Fake 1.2.0 at fake://valet@db.example:4321/app" in lines
    assert lines[-1] == "Databases that cannot be examined: ad-down."


def test_a_requirement_that_cannot_be_asked_is_a_problem_of_the_database(
    servers: dict[str, Prepare], tmp_path: Path
) -> None:
    def fail(server: FakeServer) -> None:
        server.check_problem = EngineUnavailable("It went away.")

    servers["app"] = fail
    result = doctor(tmp_path, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["databases"][0]["problem"] == "It went away."


def test_servers_that_hang_are_given_up_all_at_the_same_time(
    servers: dict[str, Prepare], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(server: FakeServer) -> None:
        server.describe_gate = Gate(open=asyncio.Event())
        server.close_gate = Gate(open=asyncio.Event())

    monkeypatch.setattr(module, "EXAMINE_SECONDS", 1)
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.1)
    names = ("a", "b", "c", "d")
    servers |= dict.fromkeys(names, hang)
    began = time.monotonic()
    result = doctor(tmp_path, "--json", databases=tuple(declared(name) for name in names))
    assert time.monotonic() - began < 4
    assert result.exit_code == 1
    problems = [each["problem"] for each in json.loads(result.stdout)["databases"]]
    assert problems == ["The server did not answer everything within 1 s."] * 4
    assert "a connection to ad-a could not be closed in order" in result.stderr


def test_each_requirement_is_asked_once_and_the_connections_are_closed(
    servers: dict[str, Prepare], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[FakeServer] = []
    asked: list[str] = []
    servers["app"] = made.append
    # Two actions that need the same.
    monkeypatch.setitem(
        ENGINE.actions, "list-things", replace(ENGINE.actions["list-things"], privileges=("superpower",))
    )

    async def check(_: FakeServer, requirement: str) -> bool:
        asked.append(requirement)
        return True

    monkeypatch.setattr(FakeServer, "check", check)
    doctor(tmp_path)
    assert sorted(asked) == ["logright", "preload", "superpower", "userright"]
    assert made[0].closed
    assert made[0].performed == []
    assert made[0].put_back == []


def test_only_the_named_databases_are_examined(servers: dict[str, Prepare], tmp_path: Path) -> None:
    made: list[str] = []
    servers |= {"a": lambda server: give_all(server), "b": lambda server: setattr(server, "describe", made.append)}
    result = doctor(tmp_path, "ad-a", "--json", databases=(declared("a"), declared("b")))
    assert result.exit_code == 0
    assert [each["id"] for each in json.loads(result.stdout)["databases"]] == ["ad-a"]


def test_a_database_that_is_not_declared_is_exit_code_2(servers: dict[str, Prepare], tmp_path: Path) -> None:
    result = doctor(tmp_path, "ad-none")
    assert result.exit_code == 2
    assert "There is no ad-none. There are: ad-app." in result.output


def test_no_secret_is_printed_and_nothing_is_written(servers: dict[str, Prepare], tmp_path: Path) -> None:
    servers["app"] = give_all
    for words in ((), ("--json",)):
        result = doctor(tmp_path, *words)
        assert "the-secret" not in result.output
        assert "a-token" not in result.output
    assert [each.name for each in tmp_path.iterdir()] == ["dbvalet.yaml"]


def test_going_back_to_an_instant_is_examined_where_it_is_set_up(tmp_path: Path, servers: dict[str, Prepare]) -> None:
    def lacks_an_archive(server: FakeServer) -> None:
        server.recovery.missing = ["archive_mode is off: set it."]

    servers["app"] = lacks_an_archive
    result = doctor(tmp_path, "--json", databases=(declared("app", pitr=PITR), declared("other")))
    assert result.exit_code == 1
    assert actions_of(result)["restore-to-instant"] == {
        "action": "restore-to-instant",
        "effect": "destructive",
        "ready": "no",
        "missing": [{"name": "pitr", "remedy": "archive_mode is off: set it."}],
    }
    assert "restore-to-instant" not in actions_of(result, 1)
    switched_off = declared("app", pitr=PITR, disabled_actions=["restore-to-instant"])
    assert actions_of(doctor(tmp_path, "--json", databases=(switched_off,)))["restore-to-instant"]["ready"] == "off"
