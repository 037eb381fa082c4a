"""What the commands on backups have in common: asking a dbvalet, asking a person, waiting for an operation."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from agent.commands.call import ask, quoted

LATEST = "latest"
"""In place of a backup's id."""

Object = dict[str, Any]


class Asked:
    """A dbvalet, and a database on it."""

    def __init__(
        self, url: str, token_file: Path | None, database: str, *, ca: Path | None = None, as_json: bool = False
    ) -> None:
        """`as_json` prints refusals as they came."""
        self.url = url
        self.as_json = as_json
        self.token_file = token_file
        self.ca = ca
        self.database = database
        self.path = f"/api/databases/{quoted(database)}"

    def ask(self, method: str, path: str, body: Object | None = None) -> Object:
        """Give the body of a success; print a refusal and end with 1.

        Raises: typer.Exit, SettingsError, Unanswered
        """
        import orjson

        from agent.commands.answers import print_answer

        answer = ask(self.url, method, path, self.token_file, body, ca=self.ca)
        if not answer.is_success:
            if self.as_json:
                sys.stdout.buffer.write(answer.content.rstrip(b"\n") + b"\n")
            else:
                print_answer(answer.status_code, answer.content)
            raise typer.Exit(1)
        return orjson.loads(answer.content) if answer.content else {}

    def backups(self) -> list[Object]:
        """List the backups, newest first."""
        return self.ask("GET", f"{self.path}/backups")["database_backups"]

    def backup(self, backup_id: str) -> Object:
        """Find one, by its id or as the newest that is done of the deployment's own logical database."""
        if backup_id != LATEST:
            return self.ask("GET", f"{self.path}/backups/{quoted(backup_id)}")["database_backup"]
        for each in self.backups():
            if each["status"] == "done" and each["logical_database"] is None:
                return each
        typer.echo(f"dbvalet: {self.database} has no backup that is done", err=True)
        raise typer.Exit(1)

    def operation(self, operation_id: str) -> Object:
        """Find what works on it."""
        return self.ask("GET", f"{self.path}/operations/{quoted(operation_id)}")["operation"]


def print_notes(ended: Object, *, as_json: bool) -> None:
    """Print what a person should know of how an operation ended."""
    from agent.commands.tables import printable

    for note in ended["notes"]:
        typer.echo(printable(note), err=as_json)


def is_asked() -> bool:
    """Tell whether somebody is there to answer."""
    return sys.stdin.isatty()


def confirm(question: str) -> None:
    """Ask; without a terminal nobody could answer.

    Raises: typer.Exit
    """
    if not is_asked():
        typer.echo("dbvalet: nobody is here to be asked: --yes does it without asking", err=True)
        raise typer.Exit(2)
    if not typer.confirm(question, default=False, err=True):
        typer.echo("Nothing was done.", err=True)
        raise typer.Exit(1)


@contextmanager
def going_on(asked: Asked) -> Generator[list[str]]:
    """Let Ctrl-C end the command and nothing else, and say so; the id of what was begun is put into the list.

    Raises: typer.Exit
    """
    begun = list[str]()
    try:
        yield begun
    except KeyboardInterrupt:
        typer.echo(
            f"\nNot waited for any longer; it goes on.\n  how far it is  dbvalet backups list {asked.database}"
            f"\n  to stop it     dbvalet backups cancel {asked.database} {begun[0] if begun else 'OPERATION'}",
            err=True,
        )
        raise typer.Exit(130) from None


def wait_for_end(asked: Asked, operation_id: str) -> Object:
    """Wait for the end of an operation, showing how far it is; one that failed ends this with 1.

    Raises: typer.Exit
    """
    from agent.commands.tables import printable
    from agent.commands.waiting import wait

    ended = wait(lambda: asked.operation(operation_id))
    if ended["status"] != "finished":
        why = printable(ended["error"] or "somebody cancelled it")
        typer.echo(f"dbvalet: {ended['type']} {ended['status']}: {why}", err=True)
        raise typer.Exit(1)
    return ended


def print_json(value: Object) -> None:
    """Print for programs."""
    import orjson

    sys.stdout.buffer.write(orjson.dumps(value) + b"\n")
