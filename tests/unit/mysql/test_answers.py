"""What is told apart by number, version and host, without a server."""

from types import SimpleNamespace
from typing import Any

import pymysql
import pytest

from engines import errors
from engines.aftermath import Goal, Verdict, judge
from engines.engine import ForgetfulMemory, GrantsFor
from engines.mysql import sql_mode
from engines.mysql.causes import FileLeftBehind
from engines.mysql.driver import cause_of
from engines.mysql.grants import backup_grants
from engines.mysql.program_objects import LIBRARIES, names_of
from engines.mysql.users import Account


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (1010, FileLeftBehind),
        (1053, errors.ConnectionLost),
        (2013, errors.ConnectionLost),
        (1040, errors.EngineUnavailable),
    ],
)
def test_a_server_that_goes_down_is_told_from_one_that_is_full(number: int, cause: type[errors.EngineError]) -> None:
    told = cause_of(pymysql.OperationalError(number, "x"))
    assert type(told) is cause
    assert isinstance(told, errors.Conflict) is (number == 1010)
    assert ("remove it by hand" in told.message) is (number == 1010)


@pytest.mark.parametrize(
    ("user", "host", "name"),
    [
        ("ann", "%", "ann"),
        ("ann", "localhost", "ann@localhost"),
        ("a@b", "%", "a@b@%"),
        ("", "%", "@%"),
        ("", "h", "@h"),
    ],
)
def test_a_user_is_called_with_its_host_unless_that_is_any(user: str, host: str, name: str) -> None:
    assert Account(user, host, "plugin").name == name


@pytest.mark.parametrize(
    ("version", "shows_routines"), [((8, 0, 19), False), ((8, 0, 20), True), ((8, 0, 21), True), ((9, 7), True)]
)
def test_the_smaller_privilege_is_taken_from_the_version_on_that_has_it(
    version: tuple[int, ...], shows_routines: bool
) -> None:
    script = backup_grants(GrantsFor(user="u", flavour="mysql", version=version))
    assert ("GRANT SHOW_ROUTINE ON *.* TO 'u'@'%';" in script) is shows_routines
    assert ("GRANT SELECT ON *.* TO 'u'@'%';" in script) is not shows_routines


@pytest.mark.parametrize(
    ("flavour", "version", "asks"),
    [("mysql", (9, 2), True), ("mysql", (9, 7), True), ("mysql", (9, 1), False), ("mariadb", (11, 8), False)],
)
def test_libraries_are_asked_for_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch, flavour: str, version: tuple[int, ...], asks: bool
) -> None:
    asked: list[str] = []

    def execute(statement: str, database: str) -> list[Any]:
        asked.append(statement)
        return []

    monkeypatch.setattr("engines.mysql.program_objects.tables_in", lambda *_: {})
    session: Any = SimpleNamespace(facts=SimpleNamespace(flavour=flavour, version=version), execute=execute)
    assert list(names_of(session, "app")) == []
    assert (LIBRARIES in asked) is asks


WANTED = "NO_ZERO_DATE,ANSI_QUOTES"
KEPT = {"mode": WANTED, "started_at": "2026-01-01T00:00:00+00:00"}


class WithMode:
    """A session of a server that has a mode, and has persisted one."""

    def __init__(self, mode: str, persisted: list[tuple[int, str]] | None) -> None:
        self.facts = SimpleNamespace(flavour="mariadb" if persisted is None else "mysql", version=(9, 7))
        self.rows = {sql_mode.GET: [(mode,)], sql_mode.KEPT: persisted or []}

    def fetch(self, statement: str, *args: str) -> list[tuple[Any, ...]]:
        if args:
            self.rows[sql_mode.TRIED] = [(",".join(sorted(args[0].split(","))),)]
        return self.rows.get(statement, [])

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("mode", "persisted", "remembered", "seen"),
    [
        ("ANSI_QUOTES,NO_ZERO_DATE", None, KEPT, [sql_mode.AS_ASKED]),
        ("ANSI_QUOTES,NO_ZERO_DATE", None, KEPT | {"mode": "ANSI_QUOTES,NO_ZERO_DATE"}, [sql_mode.AS_ASKED]),
        ("ANSI_QUOTES,NO_ZERO_DATE", None, None, []),
        ("ANSI_QUOTES,NO_ZERO_DATE", None, KEPT | {"mode": "ANSI_QUOTES"}, []),
        ("ANSI_QUOTES", None, KEPT, ["mode ANSI_QUOTES"]),
        ("ANSI_QUOTES,NO_ZERO_DATE", [(1, WANTED)], None, [sql_mode.AS_ASKED]),
        ("ANSI_QUOTES,NO_ZERO_DATE", [(1, "ANSI_QUOTES")], None, []),
        ("ANSI_QUOTES,NO_ZERO_DATE", [(0, WANTED)], None, []),
        ("ANSI_QUOTES,NO_ZERO_DATE", [], None, []),
        ("ANSI_QUOTES,NO_ZERO_DATE", [(0, WANTED)], KEPT, [sql_mode.AS_ASKED]),
        ("ANSI_QUOTES,NO_ZERO_DATE", [(1, WANTED)], KEPT | {"mode": "ANSI_QUOTES"}, []),
    ],
)
async def test_a_mode_is_as_asked_once_it_is_kept_whatever_the_order_of_its_names(
    mode: str, persisted: list[tuple[int, str]] | None, remembered: dict[str, str] | None, seen: list[str]
) -> None:
    session = WithMode(mode, persisted)

    async def read(job: Any) -> Any:
        return job(session)

    memory = ForgetfulMemory()
    await memory.remember(sql_mode.MEMORY, remembered)
    server: Any = SimpleNamespace(read=read, memory=memory)
    now = await sql_mode.look_at_mode(server, WANTED)
    assert now == seen
    verdict = {True: Verdict.DONE, False: Verdict.NOT_DONE}[seen == [sql_mode.AS_ASKED]]
    if seen in ([], [sql_mode.AS_ASKED]):
        assert judge(Goal.THERE, ["mode STRICT_ALL_TABLES"], now) is verdict
