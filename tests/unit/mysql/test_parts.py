"""Parts that a live server seldom or never brings into the state that matters, on stand-ins of our own session."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pymysql
import pytest

from engines import errors
from engines.mysql import driver, program_objects, swap
from engines.mysql.contents import scan
from engines.mysql.driver import Session
from engines.mysql.users import SESSIONS, Account, MySQLUsers


class AnyServer:
    """A server with one account; what is run on it is noted down."""

    def __init__(self, *held: str) -> None:
        self.held = set(held)
        self.executed: list[str] = []
        self.address = SimpleNamespace(user="valet", database="app")
        self.facts = SimpleNamespace(flavour="mysql", version=(9, 7), account="'valet'@'%'")

    async def log_in(self) -> Any:
        return self.facts

    async def fetch(self, statement: str, *_: object) -> list[tuple[Any, ...]]:
        return [("ann", "%", "caching_sha2_password")] if "plugin" in statement.lower() else []

    async def privileges(self) -> set[str]:
        return self.held

    async def write(self, job: Any) -> None:
        job(SimpleNamespace(execute=self.executed.append, prepare_to_write=lambda: None))


@pytest.mark.parametrize("held", [(), ("PROCESS",), ("CONNECTION_ADMIN",), ("SUPER",)])
async def test_a_user_whose_sessions_could_not_be_ended_is_not_deleted(held: tuple[str, ...]) -> None:
    server: Any = AnyServer(*held)
    with pytest.raises(errors.PrivilegeMissing):
        await MySQLUsers(server).delete("ann")
    assert server.executed == []


@pytest.mark.parametrize(
    "held",
    [("PROCESS", "CONNECTION_ADMIN"), ("PROCESS", "CONNECTION ADMIN"), ("PROCESS", "SUPER"), ("ALL PRIVILEGES",)],
)
async def test_a_user_whose_sessions_can_be_ended_is_deleted(held: tuple[str, ...]) -> None:
    server: Any = AnyServer(*held)
    await MySQLUsers(server).delete("ann")
    assert server.executed == [f"DROP USER {Account('ann', '%', '').quoted}"]


async def test_a_user_that_is_gone_while_its_sessions_may_not_be_ended_is_not_told_as_a_refusal() -> None:
    server: Any = AnyServer("PROCESS", "CONNECTION_ADMIN")

    async def fetch(statement: str, *_: object) -> list[tuple[Any, ...]]:
        return [(7,)] if statement == SESSIONS else await AnyServer.fetch(server, statement)

    async def write(job: Any) -> None:
        await AnyServer.write(server, job)
        if "KILL 7" in server.executed:
            raise errors.PrivilegeMissing

    server.fetch, server.write = fetch, write
    with pytest.raises(errors.Conflict, match="The user is gone, and its sessions could not be ended"):
        await MySQLUsers(server).delete("ann")


@pytest.mark.parametrize(
    ("refusal", "told"),
    [(errors.PrivilegeMissing("no"), errors.PrivilegeMissing), (errors.Conflict("no"), errors.BackupFailed)],
)
def test_why_an_object_cannot_be_made_is_told_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch, refusal: errors.EngineError, told: type[errors.EngineError]
) -> None:
    def refuse(*_: object) -> None:
        raise refusal

    monkeypatch.setattr(program_objects, "_make", refuse)
    monkeypatch.setattr(program_objects, "character_set_of", lambda *_: ("utf8mb4", "utf8mb4_bin"))
    session: Any = SimpleNamespace(execute=lambda *_: [])
    view: Any = SimpleNamespace(broken=False, collation=None, key=("VIEW", "seen"))
    with pytest.raises(errors.EngineError, match="cannot be made: no") as problem:
        program_objects.make(session, "app", [view])
    assert type(problem.value) is told


@pytest.mark.parametrize("is_open", [True, False])
def test_a_login_that_is_cut_off_in_its_first_statement_leaves_no_connection(
    monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    closed: list[bool] = []

    def ask(*_: object) -> None:
        raise pymysql.OperationalError(1227, "Access denied")

    wire = SimpleNamespace(
        open=is_open, server_version="9.7.0", limit=lambda *_: None, ask=ask, close=lambda: closed.append(True)
    )
    monkeypatch.setattr(driver, "_open", lambda *_: wire)
    monkeypatch.setattr(driver, "why_not", lambda *_: "it was cut off")
    login: Any = SimpleNamespace()
    session = Session(login, lambda _: None)
    session.begin(time.monotonic() + 10)
    with pytest.raises(errors.EngineUnavailable, match="it was cut off"):
        session.log_in()
    assert closed == [True] * is_open


def test_a_restore_that_is_undone_gives_the_character_set_of_before_back(monkeypatch: pytest.MonkeyPatch) -> None:
    set_back: list[tuple[object, ...]] = []
    monkeypatch.setattr(swap, "have_character_set", lambda *args: set_back.append(args[1:]))
    monkeypatch.setattr(swap.journal, "old_of", lambda _: "the old")
    monkeypatch.setattr(swap.journal, "drop", lambda *_: None)
    monkeypatch.setattr(swap.program, "read", lambda _: [])
    monkeypatch.setattr(swap.program_objects, "names_of", lambda *_: [])
    session: Any = SimpleNamespace(execute=lambda *_: [])
    places: Any = SimpleNamespace(database="app", fresh="app_fresh", before="app_before")
    swap.undo(session, places, {"undo": b"", "old": b"", "in_the_way": b""})
    assert set_back == [("app", "the old")]
    swap.undo(session, places, {"undo": b"", "old": b"", "in_the_way": b"", swap.IN_PLACE: b""})
    assert len(set_back) == 1, "what the application has made of it since is left alone"


@pytest.mark.parametrize(
    ("written", "tables", "longest"),
    [
        (b"12345;\n", [], 5),
        (b"1;\n12345;\n", [], 7),
        (b"-- x\n-- Table structure for table `a``b`\n1;\n", ["a`b"], 42),
        (b"", [], 0),
    ],
)
def test_the_tables_and_the_longest_statement_of_a_dump(
    tmp_path: Path, written: bytes, tables: list[str], longest: int
) -> None:
    path = tmp_path / "dump.sql"
    path.write_bytes(written)
    assert scan(path) == (tables, longest)
