import pytest

from engines.mysql.identifiers import literal, quoted, shown


@pytest.mark.parametrize(
    ("name", "written"),
    [("app", "`app`"), ("a`b", "`a``b`"), ("`", "````"), ("a\\'\"%s", "`a\\'\"%s`"), ("", "``")],
)
def test_a_backtick_in_a_name_is_doubled_and_the_rest_stays(name: str, written: str) -> None:
    assert quoted(name) == written


@pytest.mark.parametrize(
    ("value", "written"), [("x", "'x'"), ("it's", "'it''s'"), ("\\", "'\\\\'"), ("\\'", "'\\\\'''"), ('"`%', "'\"`%'")]
)
def test_quotes_and_backslashes_in_a_literal_are_doubled(value: str, written: str) -> None:
    assert literal(value) == written


@pytest.mark.parametrize("name", ["x" * 10_000, "\n\r\0\u2028", "\ud800", "'", "ü"])
def test_a_name_in_a_text_is_one_short_line_of_valid_unicode(name: str) -> None:
    text = shown(name)
    assert len(text) < 130
    assert len(text.splitlines()) == 1
    assert text.encode()
