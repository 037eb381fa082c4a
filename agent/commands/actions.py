"""`dbvalet actions`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

EXAMPLES = """\b
Examples:
  dbvalet actions
  dbvalet actions --engine postgresql
  dbvalet actions --json"""


def actions(
    engine: Annotated[str | None, typer.Option(metavar="ENGINE", help="Of this engine only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs, with the JSON Schemas.")] = False,
) -> None:
    """List every action that is installed.

    Each with its effect, the role that it takes and its params. What a server can do right now is another question:
    see `dbvalet call DB` and `dbvalet doctor`.
    """
    from agent.roles import needed_for
    from engines.engine import installed_engines

    engines = installed_engines()
    if engine is not None and engine not in engines:
        raise typer.BadParameter(
            f"There is no engine {engine}. There are: {', '.join(engines)}.", param_hint="--engine"
        )
    listed: list[dict[str, Any]] = [
        {
            "engine": each.name,
            "name": action.name,
            "effect": action.effect,
            "role": needed_for(action.effect),
            "summary": action.summary,
            "description": action.description,
            "params_schema": action.params.json_schema(),
            "result_schema": action.result.json_schema(mode="serialization"),
            "privileges": action.privileges,
            "settings": action.settings,
            "minimum_version": ".".join(str(part) for part in action.minimum_version) or None,
            "deadline_seconds": action.deadline,
            "dry_run": action.preview is not None,
            "example_params": action.example_params,
            "example_result": action.example_result,
        }
        for each in sorted(engines.values(), key=lambda each: each.name)
        if engine in (None, each.name)
        for action in each.actions.values()
    ]
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
        return
    from agent.commands.tables import print_table

    print_table(
        ["engine", "action", "effect", "role", "params", "summary"],
        [
            [row["engine"], row["name"], row["effect"], row["role"], params_shown(row["params_schema"]), row["summary"]]
            for row in listed
        ],
    )


def params_shown(schema: dict[str, Any]) -> str:
    """Write the params of an action in a few words: `pid [backend_start]`; a bare value is its type in capitals."""
    if schema.get("type") != "object":
        return str(schema.get("type", "value")).upper()
    required = schema.get("required", [])
    return " ".join(name if name in required else f"[{name}]" for name in schema.get("properties", {})) or "-"
