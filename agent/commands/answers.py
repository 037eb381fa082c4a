"""What `dbvalet call` prints of an answer."""

from __future__ import annotations

import json
from typing import Any, cast

import typer

from agent.codes import meaning
from agent.commands.actions import params_shown
from agent.commands.tables import cell, print_fields, print_table, printable
from agent.commands.units import shown
from agent.errors import AgentError

Object = dict[str, Any]


class Unanswered(AgentError):
    """No dbvalet answers."""

    code = "unanswered"


def print_answer(status: int, content: bytes) -> None:
    """Print what people want of an answer: the result or the actions, else why it was refused.

    Raises: Unanswered, when it is none of dbvalet
    """
    try:
        body: Any = json.loads(content)
    except ValueError:
        body = None
    match body:
        case {"dry_run": True, "result": {"would": str()} as preview} if status == 200:
            print_preview(cast(Object, preview))
        case {"result": result} if status == 200:
            print_result(result)
            if "meta" in body:
                print_place(body["meta"]["pagination"])
        case {"actions": [*_]} if status == 200:
            print_actions(cast(dict[str, list[Object]], body)["actions"])
        case {"error": str(text), "code": str(code)}:
            print_refusal(status, text, code)
        case _:
            raise Unanswered(f"the answer ({status}) is none of a dbvalet: look at --url")


def print_result(result: Any) -> None:
    """Print the result of an action: a table for a list of objects, a line for a plain value, `ok` for none."""
    match result:
        case None:
            typer.echo("ok")
        case str():
            typer.echo(printable(result))
        case dict():
            fields = cast(Object, result)
            print_fields({titled(field): shown(field, value) for field, value in fields.items()})
        case [dict(), *_]:
            rows = cast(list[Object], result)
            names = list(dict.fromkeys(field for row in rows for field in row))
            print_table(
                [titled(each) for each in names], [[shown(each, row.get(each)) for each in names] for row in rows]
            )
        case list():
            typer.echo("\n".join(cell(each) for each in cast(list[Any], result)) or "(none)")
        case _:
            typer.echo(cell(result))


def print_place(place: Object) -> None:
    """Print where a page stands in its list."""
    number, pages, total = (place[field] for field in ("current_page", "total_pages", "total_count"))
    typer.echo(f"page {number} of {pages}, {total} in all")


def print_preview(preview: Object) -> None:
    """Print what an action would do: the sentence, the objects as a table, what stays and what is not known."""
    typer.echo(f"dry run: {printable(preview['would'])}")
    objects: list[Object] = preview["objects"]
    if objects:
        print_result(objects)
    if preview["truncated"]:
        typer.echo(f"and {preview['total'] - len(objects)} more")
    if preview["sessions"]:
        typer.echo(f"cuts {preview['sessions']} session{'s' if preview['sessions'] > 1 else ''}")
    for each in preview["keeps"]:
        typer.echo(f"keeps {printable(each)}")
    for each in preview["warnings"]:
        typer.echo(f"warning: {printable(each)}")
    typer.echo("Nothing was changed.")


def print_actions(actions: list[Object]) -> None:
    """Print the catalogue of a database."""
    print_table(
        ["action", "effect", "params", "available", "summary, or why not"],
        [
            [
                each["name"],
                each["effect"],
                params_shown(each["params_schema"]),
                cell(each["available"]),
                cell(each["summary"] if each["available"] else each["unavailable_reason"]),
            ]
            for each in actions
        ],
    )


def print_refusal(status: int, text: str, code: str) -> None:
    """Print why something was refused, and what the code means."""
    typer.echo(f"dbvalet: {printable(text)}", err=True)
    known = meaning(code)
    typer.echo(f"{printable(code)} ({status})" + (f": {known}" if known and known != text else ""), err=True)


def titled(field: str) -> str:
    """Write a field's name so that it can be broken into two lines."""
    return field.replace("_", " ")
