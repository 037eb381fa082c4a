"""`dbvalet demo`."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  dbvalet demo
  dbvalet demo --once"""


def demo(once: Annotated[bool, typer.Option("--once", help="End after the tour.")] = False) -> None:
    """Start databases, tour the actions on them, keep serving.

    Needs what the extra brings: pip install "dbvalet[demo]". Everything it makes is thrown away at the end.
    """
    from agent.demo.tour import main

    main(once=once)
