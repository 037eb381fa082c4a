import pytest

from engines.errors import InvalidParams
from engines.mysql import ENGINE
from engines.mysql.sql_mode import modes, names_in


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("ANSI", ["ANSI"]),
        ("ansi,Traditional", ["ANSI", "TRADITIONAL"]),
        (" ANSI , \tTRADITIONAL\r\n", ["ANSI", "TRADITIONAL"]),
        ("ANSI,,", ["ANSI"]),
        ("ANSI,ansi", ["ANSI"]),
        ("an\u017fi", ["an\u017fi"]),
        ("\u00a0ANSI", ["\u00a0ANSI"]),
        ("ANSI TRADITIONAL", ["ANSI TRADITIONAL"]),
    ],
)
def test_names_are_taken_apart_as_people_write_them(text: str, names: list[str]) -> None:
    assert names_in(text) == names


@pytest.mark.parametrize("text", [" ", ",", " , ,", "\n"])
def test_only_the_empty_string_clears(text: str) -> None:
    with pytest.raises(InvalidParams, match="clears"):
        names_in(text)


def test_an_empty_mode_has_no_names() -> None:
    assert modes("") == frozenset()
    assert modes("A,B") == {"A", "B"}


@pytest.mark.parametrize("params", [None, {}, [], 1, True, b"ANSI", {"mode": "ANSI"}, "x" * 2001])
def test_the_params_are_a_bare_string(params: object) -> None:
    with pytest.raises(InvalidParams):
        ENGINE.actions["set-sqlmode"].validate(params)
