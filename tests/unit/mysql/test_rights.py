from types import SimpleNamespace
from typing import Any

import pytest

from engines.mysql import rights
from engines.mysql.rights import Right, Rights, read_rights

ON_APP = Right("app", True, "SELECT")
EVERYWHERE = Right(None, False, "SUPER")


class AnySession:
    """Answers each statement from a table, and as one that has no rows otherwise; what was asked is noted down."""

    def __init__(self, flavour: str, *version: int, **answers: Any) -> None:
        self.facts = SimpleNamespace(flavour=flavour, version=version, folded=str)
        self.answers = {getattr(rights, name): rows for name, rows in answers.items()}
        self.asked: list[str] = []

    def fetch(self, statement: str) -> Any:
        self.asked.append(statement)
        return self.answers.get(statement, ())


def test_roles_that_have_each_other_come_to_an_end() -> None:
    found = Rights(
        [("'a'@'%'", ON_APP), ("'b'@'%'", EVERYWHERE)],
        [("'a'@'%'", "'b'@'%'"), ("'b'@'%'", "'a'@'%'"), ("'c'@'%'", "'a'@'%'")],
        [],
        set(),
    )
    assert found.held_by("a", "%") == found.held_by("b", "%") == found.held_by("c", "%") == {ON_APP, EVERYWHERE}
    assert found.held_by("a", "localhost") == found.held_by_everybody() == set()
    assert found.is_given("a", "%")
    assert not found.is_given("c", "%")


@pytest.mark.parametrize(
    ("right", "database", "reached"),
    [
        (EVERYWHERE, "app", True),
        (Right("a%", True, "SELECT"), "app", True),
        (Right("a%", False, "SELECT"), "app", False),
        (Right("a_b", True, "SELECT"), "axb", True),
        (Right("a_b", False, "SELECT"), "axb", False),
        (Right("a_b", False, "SELECT"), "a_b", True),
    ],
)
def test_what_a_right_reaches(right: Right, database: str, reached: bool) -> None:
    assert right.reaches(database) == reached


def test_a_server_without_roles_is_not_asked_for_them() -> None:
    session: Any = AnySession("mysql", 5, 7, 44, RIGHTS=[(b"'ann'@'%'", b"app", 1, "select")], PROXIES=[(b"bob",)])
    found = read_rights(session)
    assert session.asked == [rights.RIGHTS, rights.PROXIES]
    assert found.held_by("ann", "%") == {ON_APP}
    assert found.is_proxy("bob")
    assert not found.is_proxy("ann")


@pytest.mark.parametrize(("version", "asked"), [((8, 0, 18), False), ((8, 0, 19), True), ((9, 7), True)])
def test_mandatory_roles_are_asked_for_where_the_server_tells_them(version: tuple[int, ...], asked: bool) -> None:
    session: Any = AnySession("mysql", *version, RIGHTS=[("'r'@'%'", None, 0, "SUPER")], MANDATORY=[("r", "%")])
    found = read_rights(session)
    assert rights.ROLES_GIVEN["mysql"] in session.asked
    assert found.held_by_everybody() == ({EVERYWHERE} if asked else set())
    assert found.is_given("r", "%") == asked
    assert found.held_by("ann", "%") == set()


def test_a_role_of_an_old_mariadb_is_taken_for_one_that_has_a_global_privilege() -> None:
    session: Any = AnySession("mariadb", 10, 3, 39, ROLES_BEFORE_GLOBAL_PRIV=[("'keeper'@''", None, 0, "UNKNOWN")])
    session.answers[rights.ROLES_GIVEN["mariadb"]] = [("ann", "%", "keeper", "")]
    found = read_rights(session)
    assert rights.GLOBAL_OF_ROLES not in session.asked
    assert any(right.reaches("mysql") for right in found.held_by("ann", "%"))
    assert found.held_by("bob", "%") == set()
