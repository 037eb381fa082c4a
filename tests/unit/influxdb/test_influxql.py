"""InfluxQL as text: identifiers, strings and durations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.influxdb.influxql import (
    LONGEST,
    NANOSECONDS,
    SHORTEST,
    identifier,
    literal,
    parse_duration,
    read_duration,
    show_duration,
)

SECOND = NANOSECONDS["s"]


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("autogen", '"autogen"'),
        ('a"b', r'"a\"b"'),
        ("a\\", r'"a\\"'),
        ('\\"', r'"\\\""'),
        ("a\nb", r'"a\nb"'),
        ("it's", '"it\'s"'),
        ('"; DROP DATABASE app; --', r'"\"; DROP DATABASE app; --"'),
    ],
)
def test_an_identifier_is_quoted(name: str, quoted: str) -> None:
    assert identifier(name) == quoted


@pytest.mark.parametrize(("text", "quoted"), [("p", "'p'"), ("it's", r"'it\'s'"), ("\\", r"'\\'"), ("a\nb", r"'a\nb'")])
def test_a_string_is_quoted(text: str, quoted: str) -> None:
    assert literal(text) == quoted


def unquote(quoted: str) -> str:
    """Read a quoted text as InfluxQL's scanner does; what would end it early or is no escape is an error."""
    mark, *inner, end = quoted
    assert mark == end
    text, letters = "", iter(inner)
    for letter in letters:
        assert letter not in (mark, "\n")
        text += {"n": "\n", "\\": "\\", mark: mark}[next(letters)] if letter == "\\" else letter
    return text


@given(st.text(alphabet=st.sampled_from("\\\"'\nan;-")))
def test_whatever_is_quoted_is_read_back_as_it_was(text: str) -> None:
    assert unquote(identifier(text)) == text
    assert unquote(literal(text)) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("INF", 0),
        ("inf", 0),
        ("0s", 0),
        ("0h0m", 0),
        ("30d", 30 * 86_400),
        ("1h30m", 5_400),
        ("30m1h", 5_400),
        ("1h1h", 7_200),
        ("2w", 14 * 86_400),
        ("3600s", 3_600),
        ("3600000ms", 3_600),
        ("3600000000u", 3_600),
        ("3600000000\u00b5", 3_600),
        ("3600000000000ns", 3_600),
        ("007d", 7 * 86_400),
        ("3600s1000ms", 3_601),
        ("9223372036s", 9_223_372_036),
    ],
)
def test_a_duration_is_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds * SECOND


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *(
            (text, "must be written as")
            for text in ("", "1", "00", "h", "1 h", " 1h", "1h ", "-1h", "+1h", "1.5h", "1y")
        ),
        *(
            (text, "must be written as")
            for text in ("1H", "1h\n", "1h;", "INF ", "INFINITY", "\u0661h", "1\u03bc", "1hh")
        ),
        *((text, "whole seconds") for text in ("3600001ms", "1h1ns", "3600000000001ns", "1u", "1h1u")),
        *((text, "at least 1h") for text in ("1s", "59m", "3599s", "59m59s")),
        *((text, "longer than") for text in ("9223372037s", "106752d", "15251w", "106751d1d", "9" * 80 + "w")),
    ],
)
def test_what_is_no_duration_of_a_policy_is_told(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_duration(text)


@pytest.mark.parametrize(
    ("servers", "shown"),
    [
        ("0s", "0"),
        ("1h0m0s", "1h"),
        ("1h30m0s", "90m"),
        ("720h0m0s", "30d"),
        ("168h0m0s", "7d"),
        ("25h0m0s", "25h"),
        ("1h0m1s", "3601s"),
        ("24h0m1s", "86401s"),
        ("2562047h47m16s", "9223372036s"),
        ("1h0m0.5s", "3600500ms"),
        ("1h0m0.000001s", "3600000001u"),
        ("1h0m0.000000001s", "3600000000001ns"),
        ("2561976h25m26.290448384s", "9223115126290448384ns"),
    ],
)
def test_the_servers_duration_is_shown_in_the_documented_form(servers: str, shown: str) -> None:
    assert show_duration(read_duration(servers)) == shown


@pytest.mark.parametrize("text", ["1d", "1h ", "-1h0m0s", "x", "1h0m0.5"])
def test_what_is_no_duration_of_the_server_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        read_duration(text)


@given(st.integers(SHORTEST // SECOND, LONGEST // SECOND))
def test_what_is_shown_is_read_as_the_same_and_takes_the_largest_unit(seconds: int) -> None:
    shown = show_duration(seconds * SECOND)
    assert parse_duration(shown) == seconds * SECOND
    assert shown[-1] == next(unit for unit in "dhms" if seconds * SECOND % NANOSECONDS[unit] == 0)


@given(st.integers(0, LONGEST // SECOND))
def test_the_servers_form_is_read_whole(seconds: int) -> None:
    minutes, rest = divmod(seconds, 60)
    assert read_duration(f"{minutes // 60}h{minutes % 60}m{rest}s") == seconds * SECOND
