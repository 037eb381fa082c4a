"""What is read from the answers of PostgreSQL and from beside it, without a server."""

import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines import deadline
from engines.errors import BackupFailed, ConnectionLost, Precondition
from engines.postgresql import ENGINE, statements
from engines.postgresql.archive import Entry
from engines.postgresql.backup import PostgresBackups
from engines.postgresql.backup_rights import ACCOUNT, missing_to_make
from engines.postgresql.driver.connection import _readable
from engines.postgresql.programs import NoPrograms
from engines.postgresql.queries import TERMINATE, BackendRef, look_for_query, terminate_query
from engines.postgresql.recovery.control import HoldFile, _without_frames
from engines.postgresql.restore import Loader
from engines.postgresql.statements import (
    COUNT_OF_DATABASE,
    COUNT_OF_SERVER,
    FIND_EXTENSION,
    RESET_STATEMENTS,
    Extension,
)
from engines.recovery import HoldFileControl


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([], []),
        ([{"state": "active", "backend_start": "a", "query_start": "b"}], ["a b"]),
        ([{"state": "idle", "backend_start": "a", "query_start": "b"}], []),
        ([{"state": "idle in transaction", "backend_start": "a", "query_start": "b"}], []),
        ([{"state": None, "backend_start": "a", "query_start": None}], None),
        ([{"state": "disabled", "backend_start": "a", "query_start": None}], None),
    ],
)
async def test_a_query_that_the_server_tracks_can_be_told_from_the_next(
    rows: list[dict[str, Any]], found: list[str] | None
) -> None:
    async def read(statement: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        assert params == {"pid": 5, "backend_start": None}
        return rows

    server: Any = SimpleNamespace(signalling=SimpleNamespace(read=read))
    assert await look_for_query(server, BackendRef(pid=5)) == found


def test_before_1_7_the_statistics_of_the_whole_server_are_reset() -> None:
    def statement(*version: int) -> str:
        return Extension(version, "public", may_read=True).statement(RESET_STATEMENTS)

    assert statement(1, 4) == statement(1, 6) == "SELECT public.pg_stat_statements_reset()"
    assert "pg_stat_statements_reset(0, oid, 0)" in statement(1, 7)


@pytest.mark.parametrize(
    ("version", "told"), [("1.6", "70 statements of the whole server"), ("1.7", "5 statements of the database app")]
)
async def test_a_preview_of_a_reset_counts_what_the_reset_forgets(version: str, told: str) -> None:
    async def read(statement: str) -> list[dict[str, Any]]:
        if statement == FIND_EXTENSION:
            return [{"version": version, "schema": "public", "preloaded": True, "may_read": True}]
        counts = {COUNT_OF_SERVER.format(schema='"public"'): 70, COUNT_OF_DATABASE.format(schema='"public"'): 5}
        return [{"calls": 1, "met": True, "schema": "public", "statements": counts.get(statement)}]

    server: Any = SimpleNamespace(read=read, engine=ENGINE, address=SimpleNamespace(database="app"))
    found = await statements.preview_reset(server)
    assert told in found.would
    assert ("the statistics of other databases" in found.keeps) is (version == "1.7")


def test_a_socket_is_readable_once_something_came() -> None:
    reader, writer = os.pipe()
    try:
        assert not _readable(reader)
        os.write(writer, b"x")
        assert _readable(reader)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", b""),
        (b"plain text that is long", b"plain text that is long"),
        (b"x\0\0\0 begins with no header", b"x\0\0\0 begins with no header"),
        (b"\1\0\0\0\0\0\0\2ok", b"ok"),
        (b"\1\0\0\0\0\0\0\2ok\2\0\0\0\0\0\0\3not", b"oknot"),
        (b"\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1x", b"x"),
        (b"\1\0\0\0\0\0\0\2ok\1\0", b"ok\1\0"),
    ],
)
def test_the_headers_of_a_stream_of_docker_are_taken_out(content: bytes, text: bytes) -> None:
    assert _without_frames(content) == text


@pytest.mark.parametrize(("problem", "runs"), [(None, True), (PermissionError, True), (ProcessLookupError, False)])
async def test_a_server_of_another_user_runs_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, problem: type[OSError] | None, runs: bool
) -> None:
    def kill(pid: int, number: int) -> None:
        assert (pid, number) == (12345, 0)
        if problem is not None:
            raise problem

    monkeypatch.setattr(os, "kill", kill)
    hold = HoldFile(HoldFileControl(path=tmp_path / "hold", data=tmp_path, log=None), 5)
    assert not await hold.is_running()
    (tmp_path / "postmaster.pid").write_text("12345\n/data\n")
    assert await hold.is_running() is runs


async def test_a_dump_without_its_programs_is_told_what_is_missing(tmp_path: Path) -> None:
    async def describe() -> Any:
        return SimpleNamespace(version=(18, 0))

    async def programs(version: int) -> Any:
        assert version == 18
        raise NoPrograms("install postgresql-client-18")

    server: Any = SimpleNamespace(describe=describe)
    backups: Any = PostgresBackups(server)
    backups._programs = programs
    with pytest.raises(Precondition, match="install postgresql-client-18"):
        await backups._dump(tmp_path, lambda *_: None)


@pytest.mark.parametrize("without", ["", "install postgresql-client-18"])
async def test_a_server_whose_dump_programs_are_not_here_is_not_ready(without: str) -> None:
    async def describe() -> Any:
        return SimpleNamespace(version=(18, 0))

    async def read(statement: str) -> list[dict[str, Any]]:
        assert statement == ACCOUNT
        return [{"superuser": True}]

    async def programs(version: int) -> Any:
        assert version == 18
        if without:
            raise NoPrograms(without)

    server: Any = SimpleNamespace(describe=describe, read=read)
    backups: Any = PostgresBackups(server)
    backups._programs = programs
    assert await backups.missing() == ([without] if without else [])


@pytest.mark.parametrize(
    ("line", "things"),
    [
        ((3466, "EVENT TRIGGER - watch me"), "event triggers"),
        ((2328, "FOREIGN DATA WRAPPER - w me"), "foreign-data wrappers"),
        ((2601, "ACCESS METHOD - m "), "access methods"),
        ((2616, "OPERATOR CLASS public c me"), "operator classes"),
        ((2753, "OPERATOR FAMILY public f me"), "operator families"),
        ((3601, "TEXT SEARCH PARSER public p "), "text search parsers"),
        ((3764, "TEXT SEARCH TEMPLATE public t "), "text search templates"),
        ((3600, "TEXT SEARCH DICTIONARY public d me"), None),
        ((1259, "TABLE public t me"), None),
    ],
)
async def test_what_only_a_superuser_can_make_is_told_to_others(line: tuple[int, str], things: str | None) -> None:
    """The numbers are those of the server's catalogues, which pg_restore lists: they are fixed."""

    async def read(statement: str, params: object = None) -> list[dict[str, Any]]:
        return [{"superuser": False, "name": "valet", "database": "app"}] if statement == ACCOUNT else []

    server: Any = SimpleNamespace(read=read)
    held: Any = SimpleNamespace(owners=[], extensions={})
    reasons = await missing_to_make(server, held, [Entry(1, line[0], 16400, line[1])])
    assert [reason.partition(". Remedy")[0] for reason in reasons] == (
        [f"Only a superuser can make {things}"] if things else []
    )


@pytest.mark.parametrize("loaded", [0, 1, 3])
def test_a_load_of_too_few_or_too_many_tables_is_no_restore(loaded: int) -> None:
    entries = [SimpleNamespace(text=f"TABLE DATA public {name}", is_data=True) for name in "ab"]
    schema_only = SimpleNamespace(text="TABLE DATA public c", is_data=False)
    other = SimpleNamespace(text="SEQUENCE SET public d", is_data=True)
    loader: Any = Loader.__new__(Loader)
    loader._plan = SimpleNamespace(entries=[*entries, schema_only, other])
    loader._tables = 2
    loader.check()
    loader._tables = loaded
    with pytest.raises(BackupFailed, match=f"Rows of {loaded} tables were loaded, not of 2"):
        loader.check()


@pytest.mark.parametrize("rows", [[], [{"hidden": False}], [{"hidden": True}]])
async def test_whether_a_session_was_ended_is_looked_up_when_the_answer_is_lost(rows: list[dict[str, Any]]) -> None:
    sent: list[str] = []

    async def write(statement: str, params: dict[str, Any]) -> Any:
        sent.append(statement)
        raise ConnectionLost("the connection was cut")

    async def read(statement: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        assert params["pid"] == 5
        if statement is TERMINATE:
            assert params["signal"] is False
            return [{"verdict": "there", "age": timedelta(hours=1)} for _ in rows]
        return rows

    server: Any = SimpleNamespace(signalling=SimpleNamespace(read=read, write=write))
    with deadline.within(5):
        if rows:
            with pytest.raises(ConnectionLost, match="was cut"):
                await terminate_query(server, BackendRef(pid=5))
        else:
            await terminate_query(server, BackendRef(pid=5))
    assert len(sent) == 1


@pytest.mark.parametrize(("version", "found"), [((1, 10), None), ((1, 11), ["a", "b"]), ((1, 12), ["a", "b"])])
async def test_since_when_statements_are_counted_is_told_from_1_11_on(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], found: list[str] | None
) -> None:
    async def find_extension(server: object) -> Extension:
        return Extension(version, "public", may_read=True)

    async def read(statement: str) -> list[dict[str, Any]]:
        assert "public.pg_stat_statements(false)" in statement
        return [{"counted": "a"}, {"counted": "b"}]

    monkeypatch.setattr(statements, "_find_extension", find_extension)
    server: Any = SimpleNamespace(read=read)
    assert await statements.look_since_when(server) == found
