"""The command line: its commands and what holds for all of them."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.commands import actions, audit, backups, call, demo, doctor, grants, healthcheck, serve, token

EXIT_CODES = """\b
Exit codes:
  0  done
  1  the action failed, or doctor found something missing
  2  the command line or the configuration is wrong"""

# Plain help: it reads the same in a narrow terminal, in a pipe and in an issue.
app = typer.Typer(
    name="dbvalet",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"dbvalet {version('dbvalet')}")
        raise typer.Exit


@app.callback(epilog=EXIT_CODES)
def root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Named actions on live databases, over one HTTP API."""


for command, examples in (
    (serve.serve, serve.EXAMPLES),
    (call.call, call.EXAMPLES),
    (actions.actions, actions.EXAMPLES),
    (doctor.doctor, doctor.EXAMPLES),
    (healthcheck.healthcheck, healthcheck.EXAMPLES),
    (grants.grants, grants.EXAMPLES),
    (demo.demo, demo.EXAMPLES),
):
    app.command(epilog=examples)(command)

app.add_typer(backups.app)
app.add_typer(audit.app)
app.add_typer(token.app)
