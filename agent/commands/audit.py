"""`dbvalet audit`: the audit as it stands in the state, whether a dbvalet runs or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agent.audit.line import Check, Head, Page, Row
    from agent.state.state import State

EXAMPLES = """\b
Examples:
  dbvalet audit verify --config dbvalet.yaml
  dbvalet audit verify --config dbvalet.yaml --head 812:9b1c…    as the log or an earlier run said
  dbvalet audit verify --file audit.jsonl
  dbvalet audit export --config dbvalet.yaml >audit.jsonl

\b
Exit codes: 0 done; 1 a line was changed, removed or put elsewhere; 2 the command line or the configuration is wrong;
3 there is no state, or it cannot be looked at: that says nothing of its lines."""

UNSEEN = 3

PAGE = 1000

app = typer.Typer(
    name="audit",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Check the audit and write it out.",
    epilog=EXAMPLES,
)

Config = Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="As for `serve`.")]


@app.command(epilog=EXAMPLES)
def verify(
    config: Config = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Check what `export` wrote, not the state.")
    ] = None,
    head: Annotated[
        str | None, typer.Option("--head", metavar="N:DIGEST", help="A line that was noted down: it has to be there.")
    ] = None,
) -> None:
    """Follow the chain of the audit from its first line to its last.

    Says which line is the first that was changed, removed or put elsewhere.
    """
    from agent.audit.line import Check, Tampered

    noted = _head(head) if head is not None else None
    check = Check()
    try:
        if file is not None:
            rows = _lines_of(file)
            check = Check(_before(rows))
            check.follow(rows, noted)
            check.end(noted)
        else:
            asyncio.run(_check_state(config, check, noted))
    except Tampered as found:
        typer.echo(f"dbvalet: {found}", err=True)
        raise typer.Exit(1) from None
    if check.before.sequence:
        begins = f"from line {check.before.sequence + 1}, which follows {check.before}; what was before is not in it: "
    else:
        begins = ""
    lines = check.head.sequence - check.before.sequence
    typer.echo(f"The audit is whole: {begins}lines: {lines}, head: {check.head}")


@app.command(epilog=EXAMPLES)
def export(
    config: Config = None,
    after: Annotated[int, typer.Option("--after", metavar="N", min=0, help="Only the lines after this one.")] = 0,
) -> None:
    """Write the audit to standard output, one JSON object a line."""
    asyncio.run(_export(config, after))


async def _check_state(config: Path | None, check: Check, noted: Head | None) -> None:
    async with aclosing(_pages(config, None)) as pages:
        async for page in pages:
            check.follow_page(page, noted)


async def _export(config: Path | None, after: int) -> None:
    import orjson

    from agent.audit.line import Tampered
    from agent.commands.told import tell

    try:
        async with aclosing(_pages(config, after or None)) as pages:
            async for page in pages:
                for row in page.rows:
                    tell(orjson.dumps(row.shown()), f"The export ends before line {row.sequence}.")
    except Tampered as found:
        typer.echo(f"dbvalet: {found} The export ends before it.", err=True)
        raise typer.Exit(1) from None


async def _pages(config: Path | None, after: int | None) -> AsyncGenerator[Page]:
    from agent.audit.journal import pages
    from engines.errors import Precondition

    state = _state(config)
    try:
        async with aclosing(pages(state, after, PAGE)) as found:
            async for page in found:
                yield page
    except Precondition as problem:
        raise _unseen(problem.message) from None
    finally:
        state.close()


def _unseen(why: str) -> typer.Exit:
    typer.echo(f"dbvalet: {why}", err=True)
    return typer.Exit(UNSEEN)


def _state(config: Path | None) -> State:
    from agent.errors import SettingsError
    from agent.settings import load_settings
    from agent.state.state import FILE_SCHEME, State

    url = load_settings(config).state_url()
    if url.startswith(FILE_SCHEME) and not Path(url.removeprefix(FILE_SCHEME)).exists():
        raise _unseen(f"There is no state at {url.removeprefix(FILE_SCHEME)}.")
    try:
        return State(url)
    except SettingsError as problem:
        raise _unseen(problem.message) from None


def _lines_of(file: Path) -> list[Row]:
    import orjson

    from agent.audit.line import Tampered, row_of

    rows: list[Row] = []
    try:
        # Every byte between two ends of lines: of a field that stands there twice, readers take one or the other.
        lines = file.read_bytes().splitlines(keepends=True)
    except OSError as problem:
        raise typer.BadParameter(f"{file} cannot be read: {problem.strerror}", param_hint="--file") from None
    for line in lines:
        try:
            fields = orjson.loads(line)
            digest = fields.pop("digest")
            row = row_of(fields)
        except (KeyError, TypeError, AttributeError, orjson.JSONDecodeError) as problem:
            if rows:
                raise Tampered(f"What follows {rows[-1].name} is no line.") from None
            raise typer.BadParameter(f"{file} is nothing that `export` wrote: {problem}", param_hint="--file") from None
        if row.digest != digest:
            raise Tampered(f"{row.name.capitalize()} was changed.")
        if line != orjson.dumps(row.shown(), option=orjson.OPT_APPEND_NEWLINE):
            raise Tampered(f"{row.name.capitalize()} is not written as `export` writes it: something has changed it.")
        rows.append(row)
    return rows


def _before(rows: Sequence[Row]) -> Head:
    """Give the line before the first, as that one has it: `export --after` begins in the middle."""
    from agent.audit.line import BEFORE_THE_FIRST, Head

    if not rows or type(rows[0].sequence) is not int or rows[0].sequence <= 1:
        return BEFORE_THE_FIRST
    return Head(sequence=rows[0].sequence - 1, digest=str(rows[0].fields().get("previous")))


def _head(text: str) -> Head:
    from agent.audit.line import Head

    number, _, digest = text.partition(":")
    if not (number.isascii() and number.isdigit() and len(number) <= 18 and digest):
        raise typer.BadParameter("It is N:DIGEST, as `verify` and the log write it.", param_hint="--head")
    return Head(sequence=int(number), digest=digest)
