"""`dbvalet grants`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  dbvalet grants postgresql --password-file valet.password | psql -X -1 -v ON_ERROR_STOP=1 -d app
  dbvalet grants mariadb --server-version 10.11 --password-file valet.password | mariadb
  dbvalet grants influxdb --user valet    # for an account that is there: its password stays"""


def grants(
    *,
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="An engine of `dbvalet actions`, or mariadb.")],
    user: Annotated[str, typer.Option(metavar="NAME", help="The account to make.")] = "valet",
    database: Annotated[str, typer.Option(metavar="NAME", help="The deployment's own logical database.")] = "app",
    flavour: Annotated[
        str | None, typer.Option(metavar="NAME", help="A variant of the engine with other statements, as in mariadb.")
    ] = None,
    server_version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Of the server, as in 10.11; the newest if not given.")
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The account's password. Without it the script sets none."),
    ] = None,
) -> None:
    """Print a script that makes a least-privilege account.

    It has just the privileges that the actions of the engine need. Run it once, as the superuser, root or admin of the
    server. Run again without --password-file it leaves the account's password as it is.
    """
    from engines.engine import GrantsFor, engine_for, installed_engines

    engines = installed_engines()
    name = engine.lower()
    found = engines.get(name) or engine_for(name, engines)
    if found is None:
        raise typer.BadParameter(f"There is no engine {engine}. There are: {', '.join(engines)}.", param_hint="ENGINE")
    # An engine's flavours are the schemes that its URLs may have: mariadb:// beside mysql://.
    if flavour is not None and flavour not in found.schemes:
        raise typer.BadParameter(f"{found.title} has: {', '.join(found.schemes)}.", param_hint="--flavour")
    wanted = GrantsFor(
        user=_name(user, "--user"),
        database=_name(database, "--database"),
        password=_password(password_file) if password_file else None,
        flavour=flavour or (name if name != found.name else None),
        version=_version(server_version),
    )
    try:
        script = found.grants(wanted)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from None
    if password_file is None:
        typer.echo(
            "dbvalet: without --password-file the script sets no password and is for an account that is there.",
            err=True,
        )
    flavoured = wanted.flavour or found.name
    versions = found.versions.get(flavoured)
    if versions is not None and wanted.version not in versions:
        typer.echo(
            f"dbvalet: {flavoured} {server_version} is none that dbvalet is made for ({versions}): "
            "what the script does there is not known.",
            err=True,
        )
    typer.echo(script.rstrip("\n"))


def _version(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    match = re.match(r"\d+(\.\d+)*", text)
    if match is None:
        raise typer.BadParameter("A version is numbers and dots, as in 10.11.", param_hint="--server-version")
    return tuple(int(part) for part in match[0].split("."))


def _name(text: str, option: str) -> str:
    if not text or not text.isprintable():
        raise typer.BadParameter("A name is at least one character, all of them printable.", param_hint=option)
    return text


def _password(file: Path) -> str:
    from agent.commands.secret_file import read_secret

    password = read_secret(file, "--password-file")
    if not password or not password.isprintable():
        raise typer.BadParameter(f"{file} holds no password: one line, printable.", param_hint="--password-file")
    return password
