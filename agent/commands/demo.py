"""`dbvalet demo`."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  dbvalet demo
  dbvalet demo --once

\b
Exit codes: 0 every answer was as expected; 1 one was not, or it cannot start;
130 Ctrl-C before it served."""


def demo(once: Annotated[bool, typer.Option("--once", help="End after the tour.")] = False) -> None:
    """Start databases, tour the actions on them, keep serving.

    Every request of the tour is printed with its answer. Needs what the extra brings: pip install "dbvalet[demo]".
    Ctrl-C ends it, and what it made is thrown away; engines that it fetched are kept in .demo for the next time.
    """
    from agent.demo.tour import main

    main(once=once)
