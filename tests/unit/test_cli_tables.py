"""What people see: tables that fit, units, and texts that cannot move a cursor."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.commands import tables
from agent.commands.tables import GAP, LONGEST_CELL, cell, fitted, print_fields, print_table, printable
from agent.commands.units import duration, shown

COLUMNS = ["query", "state", "query start"]
ROWS = [
    ["SELECT * FROM users WHERE name = 'x' AND age > 30 ORDER BY age", "idle in transaction", "11:00:00"],
    ["", "active", "-"],
]


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_table_is_as_wide_as_what_it_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    print_table(["name", "protected"], [["app", "yes"], ["custom-db", "no"]])
    assert printed(capsys) == ["name       protected", "────────────────────", "app        yes", "custom-db  no"]


def test_a_long_text_gives_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    print_table(COLUMNS, ROWS)
    lines = printed(capsys)
    assert max(map(len, lines)) <= 70
    assert lines[1].split() == ["query", "state", "start"]
    assert lines[3].endswith("  idle in transaction  11:00:00")
    assert " ".join(line[:39].strip() for line in lines[3:5]) == ROWS[0][0]
    assert lines[-1].split() == ["active", "-"]


def test_a_long_text_goes_below_where_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    print_table(COLUMNS, ROWS)
    assert printed(capsys) == [
        "state                query start",
        "    query",
        "────────────────────────────────",
        "idle in transaction  11:00:00",
        "    SELECT * FROM users WHERE name = 'x' AND age >",
        "    30 ORDER BY age",
        "active               -",
    ]


def test_a_narrow_terminal_gets_a_block_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    print_table(COLUMNS, ROWS)
    lines = printed(capsys)
    assert max(map(len, lines)) <= 20
    assert lines[:2] == ["query        SELECT", "             * FROM"]
    assert lines[-4:] == ["", "query", "state        active", "query start  -"]


def test_a_pipe_gets_a_line_a_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    long = "SELECT " + "column, " * 20 + "last"
    print_table(COLUMNS, [[long, "active", "11:00:00"]])
    assert printed(capsys)[-1] == f"{long}  active  11:00:00"


def test_a_pipe_gets_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["effect"], [["destructive"]])
    print_fields({"effect": "destructive"})
    assert "\x1b" not in capsys.readouterr().out


def test_a_table_without_rows_has_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name"], [])
    assert printed(capsys)[0] == "name"


def test_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["query"], [["SELECT a[1], '[red]x[/red]', ':smile:'"]])
    assert printed(capsys)[-1] == "SELECT a[1], '[red]x[/red]', ':smile:'"


CELLS = st.text(alphabet="ab ü漢_-", max_size=60)


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(
            st.lists(CELLS, min_size=n, max_size=n), st.lists(st.lists(CELLS, min_size=n, max_size=n), max_size=4)
        )
    ),
    st.integers(1, 200),
)
def test_a_table_never_exceeds_the_terminal(table: tuple[list[str], list[list[str]]], width: int) -> None:
    columns, rows = table
    widths = fitted(columns, rows, width)
    if widths is not None:
        assert sum(widths) + GAP * (len(widths) - 1) <= width
        assert min(widths) >= 1


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (2000, "2000"),
        (0.5, "0.5"),
        ("two\n  lines\t", "two lines"),
        (["a", 1], '["a", 1]'),
        ({"ü": None}, '{"ü": null}'),
        ("x" * 500, "x" * (LONGEST_CELL - 1) + "…"),
    ],
)
def test_a_value_is_written_in_one_line(value: Any, written: str) -> None:
    assert cell(value) == written


def test_control_sequences_and_overrides_are_shown_and_not_sent() -> None:
    hostile = "a\x1b[2J\x07\x9b31m\u202eb\u2066c\x00\r\nd"
    assert printable(hostile) == r"a\x1b[2J\x07\x9b31m\u202eb\u2066c\x00 d"
    assert cell({hostile: [hostile]}).isprintable()
    assert cell([hostile]).isprintable()


@given(st.text())
def test_nothing_unprintable_is_ever_written(text: str) -> None:
    assert printable(text).isprintable()
    assert shown("query_start", text).isprintable()


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0 ns"),
        (3.2e-8, "32 ns"),
        (0.00035, "350 µs"),
        (0.0123, "12.3 ms"),
        (1.8371, "1.84 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (60, "1 min 00 s"),
        (3599.9, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (360_000, "100 h 00 min"),
        (0.9999, "1 s"),
    ],
)
def test_durations_have_three_digits_and_their_unit(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_fields_of_the_documented_api_have_their_unit() -> None:
    assert shown("query_duration", 1_000_000_000) == "1 s"
    assert shown("mean_time", 0.6) == "600 µs"
    assert shown("query_duration", None) == "-"
    assert shown("query_duration", "soon") == "soon"
    assert shown("calls", 24512) == "24512"


def test_times_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    instant = datetime(2020, 5, 10, 9, 0).astimezone()
    assert shown("query_start", instant.isoformat()) == "2020-05-10 09:00:00"
    now = datetime.now().astimezone()
    assert shown("backend_start", now.isoformat()) == now.strftime("%H:%M:%S")
    assert shown("state_change", "not a time") == "not a time"


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    tables.print_table(["effect"], [["destructive"]])
    assert "\x1b[31mdestructive" in capsys.readouterr().out
    tables.print_table(["protected"], [["no"]])
    assert "\x1b[31m" not in capsys.readouterr().out
