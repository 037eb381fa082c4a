"""What the demo shows: plain lines of 80 columns, in colour and with something that moves where a terminal has it."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from http.client import responses
from typing import Any, cast

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from agent.demo.started import Progress

WIDEST = 100
"""Columns: on a wider screen, answers are read more easily below their titles than far to the right of them."""

NARROWEST = 40

INDENT = 5

LONGEST_TEXT = 200
"""Characters of one text in an answer: most refusals are shorter, and statements are known by their beginning."""

MOST_LINES, MOST_BLOCKS = 4, 2
"""Elements of one list in an answer, if each is one line, and if not."""


class Screen:
    """Writes to standard output."""

    def __init__(self) -> None:
        """Look at what standard output is: a pipe gets no colours, as `NO_COLOR` and `TERM=dumb` ask a terminal."""
        # What a terminal without UTF-8 cannot show must not end the demo. A stream that a test puts in may lack this.
        getattr(sys.stdout, "reconfigure", dict)(errors="replace")
        self._console = Console(highlight=False, markup=False, emoji=False)

    @property
    def width(self) -> int:
        """How many columns there are for text."""
        # rich takes every dumb terminal for one of 80 columns.
        return max(NARROWEST, min(shutil.get_terminal_size((80, 25)).columns, WIDEST))

    def line(self, text: str = "", style: str = "") -> None:
        """Write a line as it is: what is to be pasted must not be broken."""
        self._console.print(Text(text, style), soft_wrap=True)

    def paragraph(self, text: str, style: str = "", *, first: str = "", indent: int = 0) -> None:
        """Write a text in as many lines as it needs; `first` stands before the first of them."""
        lines = textwrap.wrap(
            text,
            self.width,
            initial_indent=first or " " * indent,
            subsequent_indent=" " * max(indent, len(first)),
            break_on_hyphens=False,
        )
        for each in lines:
            self.line(each, style)

    def heading(self, text: str) -> None:
        """Write where a new part begins."""
        stroke = "-" if self._console.options.ascii_only else "─"
        self.line()
        self.line(f"{stroke * 2} {text} ".ljust(self.width, stroke), "bold cyan")

    def request(self, number: int, title: str, method: str, path: str, body: Any = None) -> None:
        """Write what is asked, and why."""
        self.line()
        self.paragraph(title, "bold", first=f"{number:>3}. ", indent=INDENT)
        self.line(f"{' ' * INDENT}{method} {path}", "dim")
        if body is not None:
            self._json(body, "cyan")

    def answer(self, status: int, body: Any, seconds: float, note: str = "") -> None:
        """Write what came back; `note` says what of it is shown, if that is not all."""
        style = "green" if status < 400 else "yellow" if status < 500 else "red"
        took = f"{seconds * 1000:.0f} ms"
        self.line(f"{' ' * INDENT}{status} {responses.get(status, '')} ({took}{note})", style)
        self._json(body)

    def observation(self, text: str) -> None:
        """Write what was seen without dbvalet."""
        self.paragraph(text, "green", first=f"{' ' * INDENT}= ", indent=INDENT)

    def _json(self, value: Any, style: str = "") -> None:
        for each in pretty(value, self.width - INDENT):
            self.line(f"{' ' * INDENT}{each}", style)

    @contextmanager
    def starting(self, title: str, titles: dict[str, str]) -> Generator[Progress]:
        """Show what several are doing, each in its line; `titles` are their names for people.

        Where nothing can move, each message is a line.
        """
        names = max(map(len, titles.values()))
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            self.line(title)
            yield lambda who, text: self.line(f"  {titles[who]:<{names}}  {text}")
            return
        doing: dict[str, str] = {}
        began = time.monotonic()
        spinner = Spinner("line", style="cyan")

        def shown() -> Group:
            spinner.update(text=Text(f"{title} ({time.monotonic() - began:.0f} s)"))
            rows = (self._row(f"  {name:<{names}}  {doing.get(who, 'waiting')}") for who, name in titles.items())
            return Group(spinner, *rows)

        with Live(get_renderable=shown, console=self._console, transient=True, refresh_per_second=10):
            yield doing.__setitem__
        self.line(title)
        for who, name in titles.items():
            self.paragraph(doing.get(who, "not begun"), first=f"  {name:<{names}}  ", indent=names + 4)

    def _row(self, text: str) -> Text:
        """One line, whatever the text: a second one would make all below it jump."""
        row = Text(text, no_wrap=True, overflow="ellipsis")
        row.truncate(self._console.width, overflow="ellipsis")
        return row


def pretty(value: Any, width: int) -> list[str]:
    """Write a JSON value in lines of `width` columns, in one if it fits.

    Long texts and lists are cut short, and several blanks or new lines in a text are one blank.
    """
    return _lines(_with_short_texts(value), width, "", "", 0)


def _lines(value: Any, width: int, before: str, after: str, depth: int) -> list[str]:
    """`before` is the key of an object, `after` a comma."""
    indent = "  " * depth
    flat = f"{indent}{before}{_text(value)}{after}"
    match value:
        case dict() | list() if len(flat) <= width and _is_short(value):
            return [flat]
        case dict():
            fields = cast(dict[str, Any], value).items()
            inner = [_lines(each, width, f"{_text(key)}: ", ",", depth + 1) for key, each in fields]
            return [f"{indent}{before}{{", *_without_last_comma(inner), f"{indent}}}{after}"]
        case list():
            inner = [_lines(each, width, "", ",", depth + 1) for each in cast(list[Any], value)]
            most = MOST_LINES if all(len(each) == 1 for each in inner) else MOST_BLOCKS
            more = [f"{indent}  … {len(inner) - most} more"] if len(inner) > most else []
            shown = [line for each in inner[:most] for line in each] if more else _without_last_comma(inner)
            return [f"{indent}{before}[", *shown, *more, f"{indent}]{after}"]
        case _:
            return _folded(flat.lstrip(), width, indent)


def _without_last_comma(parts: Sequence[list[str]]) -> list[str]:
    lines = [line for part in parts for line in part]
    return [*lines[:-1], lines[-1].removesuffix(",")]


def _folded(text: str, width: int, indent: str) -> list[str]:
    """Break a text behind blanks and commas: lists of SQL modes have no blanks."""
    lines: list[str] = []
    line = indent
    for word in re.findall(r"[^ ,]*(?:[ ,]+|$)", text):
        if len(line) + len(word.rstrip()) > width and line.strip():
            lines.append(line.rstrip())
            line = f"{indent}    "
        line += word
    return [*lines, line.rstrip()]


def _is_short(value: Any) -> bool:
    """Tell whether no list in it is to be cut."""
    match value:
        case dict():
            return all(map(_is_short, cast(dict[str, Any], value).values()))
        case list():
            elements = cast(list[Any], value)
            return len(elements) <= MOST_LINES and all(map(_is_short, elements))
        case _:
            return True


def _with_short_texts(value: Any) -> Any:
    match value:
        case dict():
            return {key: _with_short_texts(each) for key, each in cast(dict[str, Any], value).items()}
        case list():
            return [_with_short_texts(each) for each in cast(list[Any], value)]
        case str():
            text = " ".join(value.split())  # a statement of many lines would be full of \n and blanks
            return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
        case _:
            return value


def _text(value: Any) -> str:
    """Write JSON in one line, without a character that could move the cursor."""
    written = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in written)
