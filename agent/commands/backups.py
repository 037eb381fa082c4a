"""`dbvalet backups`: the backups of a database, through a running dbvalet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.commands.asked import (
    LATEST,
    Asked,
    Object,
    confirm,
    going_on,
    print_json,
    print_notes,
    wait_for_end,
)
from agent.commands.call import quoted
from agent.commands.trust import Ca, tls_context

EXAMPLES = """\b
Examples:
  dbvalet backups list ad-pg
  dbvalet backups create ad-pg                            make one, and wait until it is done
  dbvalet backups download ad-pg 5f1d0e... --output app.tar.gz
  dbvalet backups restore ad-pg 5f1d0e...                 shows what is replaced, then asks
  dbvalet backups restore ad-pg latest --yes
  dbvalet backups delete ad-pg 5f1d0e...
  dbvalet backups cancel ad-pg 77c2a1...                  stop what is in progress, by the id of its operation
  dbvalet backups window ad-pg                            between which moments PostgreSQL can go back
  dbvalet backups restore ad-pg --at 2026-01-31T08:00:00Z

\b
The token stands in --token-file, DBVALET_TOKEN_FILE or DBVALET_TOKEN.
A dbvalet that demands a certificate: DBVALET_CLIENT_CERTIFICATE and DBVALET_CLIENT_KEY.
A wait that is ended by Ctrl-C stops nothing: what was begun goes on.
Exit codes: 0 done; 1 refused, failed or no dbvalet there; 2 the command line is wrong; 130 no longer waited for."""

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

OperationId = Annotated[str, typer.Argument(metavar="OPERATION", help="Id of what is in progress, as list shows it.")]

HERE = "http://127.0.0.1:8000"

COLUMNS = ("id", "created_at", "status", "method", "size")


@app.command("list")
def list_(
    *, database: DatabaseId, url: Url = HERE, token_file: TokenFile = None, ca: Ca = None, as_json: AsJson = False
) -> None:
    """List backups, newest first, and what is in progress."""
    from agent.commands.tables import print_table
    from agent.commands.units import shown

    asked = Asked(url, token_file, database, ca=ca, as_json=as_json)
    found = asked.backups()
    if as_json:
        print_json({"database_backups": found})
        return
    if found:
        others = ("logical_database",) if any(each["logical_database"] for each in found) else ()
        print_table(
            [each.replace("_", " ") for each in COLUMNS + others],
            [[shown(name, each[name]) for name in COLUMNS + others] for each in found],
        )
    else:
        typer.echo("(none)")
    for each in asked.ask("GET", f"{asked.path}/operations")["operations"]:
        if each["finished_at"] is None:
            typer.echo(f"\n{each['type']} {each['id']}: {each['progress']} %, {each['step']}")


@app.command()
def show(
    *,
    database: DatabaseId,
    backup: BackupId,
    url: Url = HERE,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Show one backup."""
    from agent.commands.tables import print_fields
    from agent.commands.units import shown

    found = Asked(url, token_file, database, ca=ca, as_json=as_json).backup(backup)
    if as_json:
        print_json({"database_backup": found})
    else:
        print_fields({name.replace("_", " "): shown(name, value) for name, value in found.items()})


@app.command()
def create(
    *,
    database: DatabaseId,
    no_wait: NoWait = False,
    url: Url = HERE,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Make a backup and wait until it is done."""
    asked = Asked(url, token_file, database, ca=ca, as_json=as_json)
    with going_on(asked) as begun_by:
        begun = asked.ask("POST", f"{asked.path}/backups", {})["database_backup"]
        begun_by.append(begun["operation_id"])
        if not no_wait:
            wait_for_end(asked, begun["operation_id"])
            begun = asked.backup(begun["id"])
    if as_json:
        print_json({"database_backup": begun})
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
    ca: Ca = None,
) -> None:
    """Download an archive and check it.

    A download that was cut off is taken up again by the same command.
    """
    from agent.commands.downloads import fetch

    asked = Asked(url, token_file, database, ca=ca)
    found = asked.backup(backup)
    link = asked.ask("GET", f"{asked.path}/backups/{quoted(found['id'])}/archive")["download_url"]
    target = output or Path(f"{found['name']}.tar.gz")
    if target.exists() and not force:
        raise typer.BadParameter(f"{target} is there already: --force replaces it", param_hint="--output")
    fetch(link, target, size=found["size"], sha256_hex=found["sha256"], verify=tls_context(ca))
    typer.echo(str(target))


@app.command()
def restore(
    *,
    database: DatabaseId,
    backup: Annotated[
        str | None, typer.Argument(metavar="BACKUP", help="Id of a backup, or latest: the newest one done.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="Instead of a backup: go back to this moment, 2026-01-31T08:00:00Z."),
    ] = None,
    yes: Yes = False,
    no_wait: NoWait = False,
    url: Url = HERE,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Replace what a database holds by a backup, or by what it was at a moment."""
    if (backup is None) == (at is None):
        raise typer.BadParameter("a BACKUP or --at TIME is needed, and not both", param_hint="BACKUP")
    asked = Asked(url, token_file, database, ca=ca, as_json=as_json)
    if at is not None:
        _go_back(asked, _instant(at), yes=yes, no_wait=no_wait, as_json=as_json)
        return
    found = asked.backup(backup or LATEST)
    if not yes:
        _show_restore(asked, found)
        confirm("Restore?")
    with going_on(asked) as begun_by:
        begun = asked.ask("POST", f"{asked.path}/backups/{quoted(found['id'])}/restore", {})
        begun_by.append(begun["operation_id"])
        if not no_wait:
            print_notes(wait_for_end(asked, begun["operation_id"]), as_json=as_json)
            begun = asked.ask("GET", f"{asked.path}/backup_restorations/{quoted(begun['id'])}")["backup_restoration"]
    if as_json:
        print_json({"backup_restoration": begun})
    else:
        typer.echo(f"{begun['id']}  {begun['status']}")


@app.command()
def window(
    *, database: DatabaseId, url: Url = HERE, token_file: TokenFile = None, ca: Ca = None, as_json: AsJson = False
) -> None:
    """Show between which moments a database can go back: restore --at."""
    from agent.commands.tables import print_fields
    from agent.commands.units import shown

    asked = Asked(url, token_file, database, ca=ca, as_json=as_json)
    body = asked.ask("GET", f"{asked.path}/pitr/recovery_window")
    if as_json:
        print_json(body)
    else:
        print_fields({name.replace("_", " "): shown(name, value) for name, value in body["recovery_window"].items()})


@app.command()
def cancel(
    *, database: DatabaseId, operation: OperationId, url: Url = HERE, token_file: TokenFile = None, ca: Ca = None
) -> None:
    """Stop what is in progress and undo it."""
    asked = Asked(url, token_file, database, ca=ca)
    asked.ask("POST", f"{asked.path}/operations/{quoted(operation)}/cancel")
    typer.echo("ok")


@app.command()
def delete(
    *,
    database: DatabaseId,
    backup: BackupId,
    yes: Yes = False,
    url: Url = HERE,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Delete a backup and its archive."""
    from agent.commands.units import shown

    asked = Asked(url, token_file, database, ca=ca)
    found = asked.backup(backup)
    if not yes:
        confirm(f"Delete the backup {found['id']} of {database}, made at {shown('created_at', found['created_at'])}?")
    asked.ask("DELETE", f"{asked.path}/backups/{quoted(found['id'])}")
    typer.echo("ok")


def _show_restore(asked: Asked, backup: Object) -> None:
    from agent.commands.tables import cell, print_fields
    from agent.commands.units import shown

    contents: Object = backup["contents"] or {}
    fields = {
        **_shown_database(asked),
        "by backup": f"{backup['id']} ({backup['method']}, {shown('size', backup['size'])})",
        "made at": shown("created_at", backup["created_at"]),
    }
    if contents:
        of = contents["flavour"] or contents["engine"]
        fields["made of"] = cell(
            f"{contents['database']} on {of} {contents['readable_version']}, by {contents['tool']}"
        )
        fields["notes"] = cell(" ".join(contents["notes"]) or None)
    other: str | None = backup["logical_database"]
    if other is not None:
        fields["logical database"] = cell(other)
    what = "this database" if other is None else "this logical database"
    typer.echo(f"All that {what} holds now is replaced:", err=True)
    print_fields(fields, err=True)


def _shown_database(asked: Asked) -> dict[str, str]:
    from agent.commands.tables import cell

    there = asked.ask("GET", asked.path)["database"]
    server = f"{there['type_name']} {there['readable_version'] or ''}".strip()
    return {
        "database": cell(f"{there['id']} of {there['app_name']}"),
        "server": cell(f"{server} at {there['hostname']}"),
    }


def _go_back(asked: Asked, moment: str, *, yes: bool, no_wait: bool, as_json: bool) -> None:
    """Go back to a moment.

    Raises: typer.Exit
    """
    from agent.commands.tables import print_fields
    from agent.commands.units import shown

    if not yes:
        edges = asked.ask("GET", f"{asked.path}/pitr/recovery_window")["recovery_window"]
        fields = {
            **_shown_database(asked),
            "back to": f"{moment} (here: {shown('created_at', moment)})",
            "possible from": shown("earliest_recoverable_at", edges["earliest_recoverable_at"]),
            "possible to": shown("latest_recoverable_at", edges["latest_recoverable_at"]),
        }
        typer.echo(
            "The whole server goes back, with every database on it and all roles; it is stopped for that:", err=True
        )
        print_fields(fields, err=True)
        confirm("Go back?")
    with going_on(asked) as begun_by:
        begun = asked.ask("POST", f"{asked.path}/pitr/restore", {"restore_time": moment})
        begun_by.append(begun["operation_id"])
        if not no_wait:
            ended = wait_for_end(asked, begun["operation_id"])
            print_notes(ended, as_json=as_json)
            begun = {**begun, "operation": ended}
    if as_json:
        print_json(begun)
    else:
        typer.echo(f"{begun['operation_id']}  {begun['operation']['status']}")


def _instant(text: str) -> str:
    """Read a moment that no two readers can take for different ones.

    Raises: typer.BadParameter
    """
    from datetime import datetime

    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time: write 2026-01-31T08:00:00Z", param_hint="--at") from None
    if instant.tzinfo is None:
        raise typer.BadParameter(f"{text!r} names no zone: end it with Z or +01:00", param_hint="--at")
    return instant.isoformat()
