"""Waits for an operation and shows how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import typer

from agent.commands.tables import printable

LOOK_SECONDS = 0.5


def wait(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Look again and again until the operation has ended, and give it as it is then.

    On a terminal a bar is kept up to date and goes away; elsewhere each new step is a line of its own.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        return _wait(look, _lines())
    columns = (BarColumn(30), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("")
        return _wait(look, lambda percent, step: bar.update(task, completed=percent, description=step))


def _wait(look: Callable[[], dict[str, Any]], show: Callable[[int, str], None]) -> dict[str, Any]:
    while True:
        operation = look()
        show(operation["progress"], printable(operation["step"]))
        if operation["finished_at"] is not None:
            return operation
        time.sleep(LOOK_SECONDS)


def _lines() -> Callable[[int, str], None]:
    """Print a line when what is being done is something else than before; figures in it are no news."""
    before = ""

    def show(percent: int, step: str) -> None:
        nonlocal before
        what = "".join(each for each in step if not each.isdigit())
        if what != before:
            typer.echo(f"{percent:3} %  {step}", err=True)
        before = what

    return show
