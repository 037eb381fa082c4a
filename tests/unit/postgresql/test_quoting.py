"""Names and texts come out so that PostgreSQL cannot take them for anything else."""

import pytest

from engines.engine import GrantsFor
from engines.postgresql import ENGINE
from engines.postgresql.grants import SCRIPT
from engines.postgresql.quoting import quote_identifier, quote_literal


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("app", '"app"'),
        ("App", '"App"'),
        ('a"b', '"a""b"'),
        ('"', '""""'),
        ("a'b\\c", '"a\'b\\c"'),
        ("a\nb", '"a\nb"'),
        ("%s {} $1 :x", '"%s {} $1 :x"'),
        ("é" * 31, '"' + "é" * 31 + '"'),
    ],
)
def test_an_identifier_is_quoted(name: str, quoted: str) -> None:
    assert quote_identifier(name) == quoted


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "é" * 32])
def test_what_postgresql_cannot_name_or_would_cut_short_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 63 bytes"):
        quote_identifier(name)


@pytest.mark.parametrize(("text", "quoted"), [("a", "'a'"), ("a'b", "'a''b'"), ("\\'", "'\\'''"), ("", "''")])
def test_a_text_is_quoted(text: str, quoted: str) -> None:
    assert quote_literal(text) == quoted


def test_a_text_with_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        quote_literal("a\0b")


def test_a_name_stands_in_no_comment_of_the_grants_script_as_a_line_break_would_end_it() -> None:
    comments = [line for line in SCRIPT.splitlines() if line.lstrip().startswith("--")]
    assert comments
    assert not any("@" in comment for comment in comments)


def test_a_name_that_looks_like_a_placeholder_stays_as_it_is() -> None:
    script = ENGINE.grants(GrantsFor(user="@password@", database="@account@", password="secret"))
    assert "ALTER ROLE \"@password@\" WITH LOGIN PASSWORD 'secret';" in script
    assert 'ON DATABASE "@account@"' in script


def test_without_a_password_the_script_sets_none() -> None:
    script = ENGINE.grants(GrantsFor())
    assert 'ALTER ROLE "valet" WITH LOGIN;' in script
    assert "PASSWORD" not in script
