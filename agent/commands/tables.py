"""Tables for people. What a server says is data, never markup and never a control sequence of the terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

LONGEST_CELL = 240
"""Characters: a statement can be a page long, and `--json` has it whole."""

NARROWEST = 30
"""Characters that a long text keeps beside other columns; with less it goes below them."""

PIPED_WIDTH = 10_000
"""One line a row for `grep` and its like, unless COLUMNS says otherwise."""

GAP = 2

_STYLES = {
    ("effect", "destructive"): "red",
    ("effect", "write"): "yellow",
    ("ready", "no"): "red",
    ("available", "no"): "red",
}


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells (see `cell`), fitted to the terminal.

    Where it is narrow, the widest column goes below the others; where it is narrower still, each row becomes a block.
    """
    console = _console()
    widths = fitted(columns, rows, console.width)
    if widths is not None:
        _print_columns(console, columns, rows, widths)
        return
    widest = max(range(len(columns)), key=natural(columns, rows).__getitem__)
    others = [number for number in range(len(columns)) if number != widest]
    rest = [[row[number] for number in others] for row in rows]
    widths = fitted([columns[number] for number in others], rest, console.width)
    if widths is not None:
        _print_above(
            console,
            columns=[columns[number] for number in others],
            rows=rest,
            widths=widths,
            title=columns[widest],
            texts=[row[widest] for row in rows],
        )
    else:
        _print_blocks(console, columns, rows)


def print_fields(fields: Mapping[str, str], *, err: bool = False) -> None:
    """Print one object, a line a field; `err` puts it beside what is printed for programs."""
    _print_blocks(_console(), list(fields), [list(fields.values())], err=err)


def fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Choose the widths of columns: the widest give way, a long text down to `NARROWEST`, others to whole words.

    None if there is no room for a table.
    """
    from rich.cells import cell_len

    widths = natural(columns, rows)
    whole = [max(cell_len(column), each) for column, each in zip(columns, widths, strict=True)]
    if sum(whole) + GAP * (len(columns) - 1) <= width:
        return whole
    least = [min(word, 2 * NARROWEST) for word in longest_words(columns, rows)]
    widest = max(range(len(columns)), key=widths.__getitem__, default=0)
    if widths and widths[widest] > 2 * NARROWEST:
        least[widest] = NARROWEST
    while (over := sum(widths) + GAP * (len(columns) - 1) - width) > 0:
        shrinkable = [number for number in range(len(columns)) if widths[number] > least[number]]
        if not shrinkable:
            return None
        widest = max(shrinkable, key=lambda number: widths[number])
        widths[widest] = max(least[widest], widths[widest] - over)
    return widths


def natural(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Measure each column: its longest cell. Titles give way before cells do: they may be broken between words."""
    from rich.cells import cell_len

    titles = [max((cell_len(word) for word in column.split()), default=1) for column in columns]
    return [max(title, 1, *(cell_len(row[number]) for row in rows)) for number, title in enumerate(titles)]


def longest_words(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Measure the longest word of each column."""
    split = [[word for row in rows for word in row[number].split()] for number in range(len(columns))]
    return [natural([column], [[word] for word in words])[0] for column, words in zip(columns, split, strict=True)]


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


def _print(console: Console, renderable: Any, *, err: bool = False) -> None:
    """Print without the spaces that fill up a line."""
    with console.capture() as capture:
        console.print(renderable)
    # Colours are what rich decided. What cannot be encoded is written as UTF-8 by typer, and never a traceback.
    typer.echo("\n".join(line.rstrip() for line in capture.get().splitlines()), color=True, err=err)


def _styled(columns: Sequence[str], row: Sequence[str]) -> list[Text]:
    from rich.text import Text

    return [Text(value, style=_STYLES.get((column, value), "")) for column, value in zip(columns, row, strict=True)]


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
        table.add_row(*_styled(columns, row))
    _print(console, table)


def _print_above(
    console: Console,
    *,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    title: str,
    texts: Sequence[str],
) -> None:
    """Print a table whose widest column stands below the others."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    def print_row(cells: Sequence[Text], text: Text) -> None:
        grid = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
        for width in widths:
            grid.add_column(width=width, overflow="fold")
        grid.add_row(*cells)
        _print(console, grid)
        if text:
            _print(console, Padding(text, (0, 0, 0, 2 * GAP)))

    print_row([Text(column, style="bold") for column in columns], Text(title, style="bold"))
    _print(console, Text("─" * (sum(widths) + GAP * (len(widths) - 1))))
    for row, text in zip(rows, texts, strict=True):
        print_row(_styled(columns, row), Text(text))


def _print_blocks(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], *, err: bool = False
) -> None:
    from rich.table import Table
    from rich.text import Text

    for number, row in enumerate(rows):
        if number:
            typer.echo()
        block = Table.grid(padding=(0, GAP, 0, 0))
        block.add_column(style="bold", no_wrap=True)
        block.add_column(overflow="fold")
        for column, text in zip(columns, _styled(columns, row), strict=True):
            block.add_row(Text(column), text)
        _print(console, block, err=err)
