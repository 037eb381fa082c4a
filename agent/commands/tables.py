"""Tables for people. What a server says is data, never markup and never a control sequence of the terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

LONGEST_CELL = 240
"""Characters: a statement can be a page long, and `--json` has it whole."""

NARROWEST = 24
"""Characters that the widest column keeps: with less, each row becomes a block of lines."""

PIPED_WIDTH = 10_000
"""One line a row for `grep` and its like, unless COLUMNS says otherwise."""

GAP = 2

_STYLES = {"destructive": "red", "write": "yellow", "missing": "red", "no": "red", "ok": "green"}


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells (see `cell`) as wide as the terminal is; a block of lines a row where it is narrow."""
    console = _console()
    widths = fitted(columns, rows, console.width)
    if widths is None:
        _print_blocks(console, columns, rows)
    else:
        _print_columns(console, columns, rows, widths)


def print_fields(fields: Mapping[str, str]) -> None:
    """Print one object, a line a field."""
    _print_blocks(_console(), list(fields), [list(fields.values())])


def fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Choose the widths of columns so that no word is broken but in texts that are longer than `NARROWEST`.

    The widest give way first. None if there is no room for a table.
    """
    from rich.cells import cell_len

    lines = [*zip(*rows, strict=True)] or [()] * len(columns)
    titles = [max((cell_len(word) for word in column.split()), default=1) for column in columns]
    widths = [max(title, *(cell_len(text) for text in texts), 1) for title, texts in zip(titles, lines, strict=True)]
    words = [
        max(title, *(cell_len(word) for text in texts for word in text.split()), 1)
        for title, texts in zip(titles, lines, strict=True)
    ]
    least = [min(each, NARROWEST) if natural > NARROWEST else each for each, natural in zip(words, widths, strict=True)]
    while (over := sum(widths) + GAP * (len(columns) - 1) - width) > 0:
        shrinkable = [number for number in range(len(columns)) if widths[number] > least[number]]
        if not shrinkable:
            return None
        widest = max(shrinkable, key=lambda number: widths[number])
        widths[widest] = max(least[widest], widths[widest] - over)
    return widths


def cell(value: Any) -> str:
    """Write a JSON value in one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = printable(json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value))
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def printable(text: str) -> str:
    """Put white space into one line and write `\\x1b` for what is not printable: data must not move a cursor."""
    joined = " ".join(text.split())
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in joined)


def _console() -> Console:
    from rich.console import Console

    piped = not sys.stdout.isatty() and not os.environ.get("COLUMNS")
    return Console(width=PIPED_WIDTH if piped else None, highlight=False, emoji=False, markup=False)


def _print(console: Console, renderable: Any) -> None:
    """Print without the spaces that fill up a line."""
    with console.capture() as capture:
        console.print(renderable)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


def _print_columns(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        table.add_column(Text(column, style="bold"), width=width, overflow="fold")
    for row in rows:
        table.add_row(*(Text(value, style=_STYLES.get(value, "")) for value in row))
    _print(console, table)


def _print_blocks(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    for number, row in enumerate(rows):
        if number:
            sys.stdout.write("\n")
        block = Table.grid(padding=(0, GAP, 0, 0))
        block.add_column(style="bold", no_wrap=True)
        block.add_column(overflow="fold")
        for column, value in zip(columns, row, strict=True):
            block.add_row(Text(column), Text(value, style=_STYLES.get(value, "")))
        _print(console, block)
