"""Waits for an operation and shows how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import typer

from agent.commands.tables import printable

LOOK_SECONDS = 0.5


def wait(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Look again and again until the operation has ended, and give it as it is then.

    On a terminal one line is kept up to date; elsewhere each new step is a line of its own.
    """
    terminal = sys.stderr.isatty()
    before = ""
    while True:
        operation = look()
        step = printable(operation["step"])
        words = f"{operation['progress']:3} %  {step}"
        if terminal:
            sys.stderr.write(f"\r\x1b[2K{words[:100]}")
            sys.stderr.flush()
        elif step.split(":")[0] != before:
            typer.echo(words, err=True)
        before = step.split(":")[0]
        if operation["finished_at"] is not None:
            if terminal:
                sys.stderr.write("\r\x1b[2K")
                sys.stderr.flush()
            return operation
        time.sleep(LOOK_SECONDS)
