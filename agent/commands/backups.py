"""`dbvalet backups`: the backups of a database, through a running dbvalet."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.commands.call import ask, quoted

EXAMPLES = """\b
Examples:
  dbvalet backups list ad-pg
  dbvalet backups create ad-pg                            make one, and wait until it is done
  dbvalet backups download ad-pg 5f1d0e... --output app.tar.gz
  dbvalet backups restore ad-pg 5f1d0e...                 shows what is replaced, then asks
  dbvalet backups restore ad-pg latest --yes
  dbvalet backups delete ad-pg 5f1d0e...

\b
The token stands in --token-file, DBVALET_TOKEN_FILE or DBVALET_TOKEN.
A wait that is ended by Ctrl-C stops nothing: what was begun goes on.
Exit codes: 0 done; 1 refused, failed or no dbvalet there; 2 the command line is wrong; 130 no longer waited for."""

LATEST = "latest"

app = typer.Typer(
    name="backups",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make, list, download and restore backups.",
    epilog=EXAMPLES,
)

DatabaseId = Annotated[str, typer.Argument(metavar="DB", help="Id of a database, as in ad-pg.")]
BackupId = Annotated[str, typer.Argument(metavar="BACKUP", help="Id of a backup, or latest: the newest one done.")]
Url = Annotated[str, typer.Option("--url", metavar="URL", envvar="DBVALET_URL", help="Where dbvalet listens.")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", metavar="FILE", help="A file that holds the token.")]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as it came, for programs.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Begin it and do not wait for its end.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

HERE = "http://127.0.0.1:8000"

COLUMNS = ("id", "created_at", "status", "method", "size")

Object = dict[str, Any]


class Asked:
    """A dbvalet, and a database on it."""

    def __init__(self, url: str, token_file: Path | None, database: str) -> None:
        self.url = url
        self.token_file = token_file
        self.database = database
        self.path = f"/api/databases/{quoted(database)}"

    def ask(self, method: str, path: str, body: Object | None = None) -> Object:
        """Give the body of a success; print a refusal and end with 1.

        Raises: typer.Exit, SettingsError, Unanswered
        """
        import orjson

        from agent.commands.answers import print_answer

        answer = ask(self.url, method, path, self.token_file, body)
        if not answer.is_success:
            print_answer(answer.status_code, answer.content)
            raise typer.Exit(1)
        return orjson.loads(answer.content) if answer.content else {}

    def backups(self) -> list[Object]:
        """List the backups, newest first."""
        return self.ask("GET", f"{self.path}/backups")["database_backups"]

    def backup(self, backup_id: str) -> Object:
        """Find one, by its id or as the newest that is done."""
        if backup_id != LATEST:
            return self.ask("GET", f"{self.path}/backups/{quoted(backup_id)}")["database_backup"]
        for each in self.backups():
            if each["status"] == "done":
                return each
        typer.echo(f"dbvalet: {self.database} has no backup that is done", err=True)
        raise typer.Exit(1)

    def operation(self, operation_id: str) -> Object:
        """Find what works on it."""
        return self.ask("GET", f"{self.path}/operations/{quoted(operation_id)}")["operation"]


@app.command("list")
def list_(*, database: DatabaseId, url: Url = HERE, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """List backups, newest first, and what is in progress."""
    from agent.commands.tables import print_table
    from agent.commands.units import shown

    asked = Asked(url, token_file, database)
    found = asked.backups()
    if as_json:
        _print_json({"database_backups": found})
        return
    if found:
        print_table(
            [each.replace("_", " ") for each in COLUMNS],
            [[shown(name, each[name]) for name in COLUMNS] for each in found],
        )
    else:
        typer.echo("(none)")
    for each in asked.ask("GET", f"{asked.path}/operations")["operations"]:
        if each["finished_at"] is None:
            typer.echo(f"\n{each['type']} {each['id']}: {each['progress']} %, {each['step']}")


@app.command()
def show(
    *, database: DatabaseId, backup: BackupId, url: Url = HERE, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Show one backup."""
    from agent.commands.tables import print_fields
    from agent.commands.units import shown

    found = Asked(url, token_file, database).backup(backup)
    if as_json:
        _print_json({"database_backup": found})
    else:
        print_fields({name.replace("_", " "): shown(name, value) for name, value in found.items()})


@app.command()
def create(
    *,
    database: DatabaseId,
    no_wait: NoWait = False,
    url: Url = HERE,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a backup and wait until it is done."""
    asked = Asked(url, token_file, database)
    with _going_on(asked):
        begun = asked.ask("POST", f"{asked.path}/backups", {})["database_backup"]
        if not no_wait:
            _wait(asked, begun["operation_id"])
            begun = asked.backup(begun["id"])
    if as_json:
        _print_json({"database_backup": begun})
    else:
        typer.echo(f"{begun['id']}  {begun['status']}")


@app.command()
def download(
    *,
    database: DatabaseId,
    backup: BackupId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="NAME.tar.gz in this folder unless given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    url: Url = HERE,
    token_file: TokenFile = None,
) -> None:
    """Download an archive and check it.

    A download that was cut off is taken up again by the same command.
    """
    from agent.commands.downloads import fetch

    asked = Asked(url, token_file, database)
    found = asked.backup(backup)
    link = asked.ask("GET", f"{asked.path}/backups/{quoted(found['id'])}/archive")["download_url"]
    target = output or Path(f"{found['name']}.tar.gz")
    if target.exists() and not force:
        raise typer.BadParameter(f"{target} is there already: --force replaces it", param_hint="--output")
    fetch(link, target, size=found["size"], sha256_hex=found["sha256"])
    typer.echo(str(target))


@app.command()
def restore(
    *,
    database: DatabaseId,
    backup: BackupId,
    yes: Yes = False,
    no_wait: NoWait = False,
    url: Url = HERE,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Replace what a database holds by a backup."""
    from agent.commands.tables import print_fields
    from agent.commands.units import shown

    asked = Asked(url, token_file, database)
    found = asked.backup(backup)
    if not yes:
        there = asked.ask("GET", asked.path)["database"]
        typer.echo("All that this database holds now is replaced:", err=True)
        print_fields(
            {
                "database": f"{there['id']} of {there['app_name']}",
                "server": f"{there['type_name']} {there['readable_version'] or ''} at {there['hostname']}".strip(),
                "by backup": f"{found['id']} ({found['method']}, {shown('size', found['size'])})",
                "made at": shown("created_at", found["created_at"]),
            }
        )
        _confirm("Restore?")
    with _going_on(asked):
        begun = asked.ask("POST", f"{asked.path}/backups/{quoted(found['id'])}/restore", {})
        if not no_wait:
            ended = _wait(asked, begun["operation_id"])
            for note in ended["notes"]:
                typer.echo(note, err=as_json)
            begun = asked.ask("GET", f"{asked.path}/backup_restorations/{quoted(begun['id'])}")["backup_restoration"]
    if as_json:
        _print_json(begun)
    else:
        typer.echo(f"{begun['id']}  {begun['status']}")


@app.command()
def delete(
    *, database: DatabaseId, backup: BackupId, yes: Yes = False, url: Url = HERE, token_file: TokenFile = None
) -> None:
    """Delete a backup and its archive."""
    from agent.commands.units import shown

    asked = Asked(url, token_file, database)
    found = asked.backup(backup)
    if not yes:
        _confirm(f"Delete the backup {found['id']} of {database}, made at {shown('created_at', found['created_at'])}?")
    asked.ask("DELETE", f"{asked.path}/backups/{quoted(found['id'])}")
    typer.echo("ok")


def _confirm(question: str) -> None:
    """Ask; without a terminal nobody could answer.

    Raises: typer.Exit
    """
    if not sys.stdin.isatty():
        typer.echo("dbvalet: nobody is here to be asked: --yes does it without asking", err=True)
        raise typer.Exit(2)
    if not typer.confirm(question, default=False, err=True):
        typer.echo("Nothing was done.", err=True)
        raise typer.Exit(1)


@contextmanager
def _going_on(asked: Asked) -> Generator[None]:
    """Let Ctrl-C end the command and nothing else, and say so.

    Raises: typer.Exit
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            f"\nNot waited for any longer; it goes on. How far it is: dbvalet backups list {asked.database}."
            f" To stop it: POST {asked.path}/operations/ID/cancel.",
            err=True,
        )
        raise typer.Exit(130) from None


def _wait(asked: Asked, operation_id: str) -> Object:
    """Wait for the end of an operation, showing how far it is; one that failed ends this with 1.

    Raises: typer.Exit
    """
    from agent.commands.waiting import wait

    ended = wait(lambda: asked.operation(operation_id))
    if ended["status"] != "finished":
        typer.echo(f"dbvalet: {ended['type']} {ended['status']}: {ended['error'] or 'somebody cancelled it'}", err=True)
        raise typer.Exit(1)
    return ended


def _print_json(value: Object) -> None:
    import orjson

    sys.stdout.buffer.write(orjson.dumps(value) + b"\n")
