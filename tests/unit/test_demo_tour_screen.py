"""What the demo shows can be read: 80 columns, no colours where they are not wanted, answers cut short."""

import json
import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.demo.screen import Screen, pretty
from tests.unit.running import environment

WORDS = st.text(st.characters(codec="utf-8", categories=["L", "N"]), max_size=12)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_short_is_shown_as_it_is_whatever_the_width(value: Any) -> None:
    assert json.loads("\n".join(pretty(value, 500))) == value
    lines = pretty(value, 40)
    assert json.loads("\n".join(lines)) == value


@given(st.text(max_size=400), st.integers(20, 100))
def test_no_character_of_an_answer_moves_the_cursor(text: str, width: int) -> None:
    for line in pretty({"error": text}, width):
        assert line.isprintable()


@given(st.lists(WORDS.filter(bool), min_size=1, max_size=60), st.sampled_from([" ", ", ", ","]), st.integers(40, 80))
def test_long_texts_are_folded_to_the_width(words: list[str], between: str, width: int) -> None:
    lines = pretty({"error": between.join(words)}, width)
    assert max(map(len, lines)) <= width
    whole = "".join(line.strip() for line in lines)
    assert whole.replace(" ", "").startswith('{"error":"' + between.strip().join(words)[:20].replace(" ", ""))


def test_what_fits_is_one_line_and_else_each_field_has_its_own() -> None:
    value = {"ok": 1, "result": [{"name": "app", "protected": True}]}
    assert pretty(value, 60) == ['{"ok": 1, "result": [{"name": "app", "protected": true}]}']
    assert pretty(value, 50) == [
        "{",
        '  "ok": 1,',
        '  "result": [{"name": "app", "protected": true}]',
        "}",
    ]


def test_lists_are_cut_and_say_how_much_is_missing() -> None:
    numbers = pretty({"result": list(range(100, 130))}, 80)
    assert numbers == [
        "{",
        '  "result": [',
        "    100,",
        "    101,",
        "    102,",
        "    103,",
        "    … 26 more",
        "  ]",
        "}",
    ]
    blocks = pretty([{"query": "x" * 30, "calls": number} for number in range(5)], 40)
    assert [line for line in blocks if "calls" in line] == ['    "calls": 0', '    "calls": 1']
    assert blocks[-2:] == ["  … 3 more", "]"]


def test_statements_of_many_lines_are_shown_by_their_beginning() -> None:
    lines = pretty({"query": "SELECT 1,\n       2\n" + "-- x\n" * 100}, 80)
    assert lines[1].startswith('  "query": "SELECT 1, 2 -- x')
    assert lines[-2].endswith('…"')
    assert len(lines) < 8


def test_titles_are_wrapped_below_themselves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    Screen().request(7, "A title that is longer than fifty columns and has a second line.", "GET", "/x")
    assert capsys.readouterr().out.splitlines() == [
        "",
        "  7. A title that is longer than fifty columns and",
        "     has a second line.",
        "     GET /x",
    ]


def test_what_is_to_be_pasted_is_not_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    Screen().line(f"curl {'x' * 100} [bold] :smile:")
    assert capsys.readouterr().out == f"curl {'x' * 100} [bold] :smile:\n"


def test_each_message_is_a_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen().starting("Starting", {"postgresql": "PostgreSQL", "mysql": "MySQL"}) as progress:
        progress("mysql", "fetching")
        progress("postgresql", "starting")
        progress("mysql", f"left out: {'because ' * 20}")
    assert capsys.readouterr().out.splitlines() == [
        "Starting",
        "  MySQL       fetching",
        "  PostgreSQL  starting",
        f"  MySQL       left out: {'because ' * 20}",
    ]


ON_A_TERMINAL = """
import time
from agent.demo.screen import Screen
screen = Screen()
with screen.starting("Starting", {"postgresql": "PostgreSQL", "mysql": "MySQL"}) as progress:
    progress("postgresql", "making the data directory")
    time.sleep(0.3)
    progress("postgresql", "ready " + "x" * 200)
    time.sleep(0.3)
screen.heading("Part")
screen.request(1, "Title", "GET", "/x")
screen.answer(404, {"ok": 0}, 0.001)
"""


def on_a_terminal(**variables: str) -> str:
    """Run it with a terminal of 80 columns for its output and give what the terminal got."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        env=environment({"TERM": "xterm", "COLUMNS": "80", **variables}),
    )
    os.close(theirs)
    got = b""
    while True:
        try:
            got += os.read(ours, 4096)
        except OSError:  # EIO: the other end is closed
            break
    os.close(ours)
    assert process.wait(20) == 0
    return got.decode()


COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7][0-9;]*m")
MOVE = re.compile(r"\x1b\[[0-9]*[AGJK]")


def without_escapes(text: str) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip("\r") for line in text.split("\n")]


def test_a_terminal_gets_colours_and_something_that_moves() -> None:
    shown = on_a_terminal()
    assert COLOUR.search(shown)
    assert MOVE.search(shown)
    moving, _, final = shown.rpartition("Starting\r\n")
    assert "making the data directory" in moving
    assert "… " not in final
    assert max(len(part) for line in without_escapes(moving) for part in line.split("\r")) <= 80
    assert any(line.strip() == "x" * len(line.strip()) != "" for line in without_escapes(final)), "the text is whole"


def test_no_color_is_respected() -> None:
    shown = on_a_terminal(NO_COLOR="1")
    assert not COLOUR.search(shown)
    assert "404 Not Found (1 ms)" in shown


def test_a_dumb_terminal_gets_lines() -> None:
    shown = on_a_terminal(TERM="dumb")
    assert "\x1b" not in shown
    assert "  PostgreSQL  making the data directory" in shown


def test_a_terminal_without_utf_8_gets_what_it_can_show() -> None:
    shown = on_a_terminal(PYTHONIOENCODING="ascii", TERM="dumb")
    assert shown.isascii()
    assert "\n-- Part ---" in shown
