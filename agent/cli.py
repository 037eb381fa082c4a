"""The command `dbvalet`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="dbvalet",
    help="Named actions on live databases, over one HTTP API.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def root() -> None:
    """Named actions on live databases, over one HTTP API."""


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The YAML file of the configuration.")] = None,
) -> None:
    """Serve the API until stopped."""
    from agent.serve import serve as run

    run(config)


def main() -> None:
    """Run the command; a mistake in the configuration ends it with one line."""
    from agent.errors import SettingsError

    try:
        app()
    except SettingsError as mistake:
        print(f"dbvalet: {mistake.message}", file=sys.stderr)
        sys.exit(2)
