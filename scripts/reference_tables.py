"""Tables of the reference: fields in the words of their JSON Schema, and the docstrings that stand below them."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

STRINGS = {"date-time": "date and time (RFC 3339)", "password": "text, secret", "path": "path of a file"}
"""Formats of JSON Schema in words."""


def fields_of(schema: dict[str, Any], model: type | None = None, head: str = "field") -> str:
    """Write the fields of an object; those without a description have the docstring that `model` has for them."""
    texts = {} if model is None else texts_of_fields(model)
    definitions = schema.get("$defs", {})
    return table(
        (head, "type", "description"),
        (
            (f"`{name}`", type_of(each, definitions), described(each) or texts.get(name, ""))
            for name, each in schema["properties"].items()
        ),
    )


def described(schema: dict[str, Any]) -> str:
    """Give the description of a field."""
    return schema.get("description", "")


def type_of(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Write a JSON Schema in words."""
    match resolved(schema, definitions):
        case {"enum": values}:
            text = " or ".join(f"`{value}`" for value in values)
        case {"anyOf": several}:
            text = " or ".join(dict.fromkeys(type_of(each, definitions) for each in several))
        case {"type": "array", "items": items}:
            text = f"list of {plural(type_of(items, definitions))}"
        case {"type": "integer", "maximum": most, **rest}:
            text = f"integer, {rest.get('minimum', rest.get('exclusiveMinimum', -1) + 1)} to {most}"
        case {"type": "string", **rest}:
            text = STRINGS.get(rest.get("format", ""), "text")
        case {"type": kind}:
            text = "true or false" if kind == "boolean" else kind
        case _:
            text = "any value"
    return text


def plural(text: str) -> str:
    """Make the plural of a type's name."""
    return {"object": "objects", "text": "texts", "integer": "integers"}.get(text, text)


def resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference; what stands beside it stays."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return {**definitions[name], **{key: value for key, value in schema.items() if key != "$ref"}} if name else schema


def texts_of_fields(model: type) -> dict[str, str]:
    """Read the docstrings below the fields of a class; Python itself keeps none."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    statements = definition.body if isinstance(definition, ast.ClassDef) else []
    texts: dict[str, str] = {}
    for field, text in itertools.pairwise(statements):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            texts[field.target.id] = inspect.cleandoc(ast.literal_eval(text.value))
    return texts


def listed(names: Iterable[str]) -> str:
    """Write names one after the other."""
    return ", ".join(f"`{name}`" for name in names)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell(value) for value in line)} |\n" for line in lines)


def cell(value: Any) -> str:
    """Keep a text within its cell."""
    return " ".join(str(value).split()).replace("|", "\\|")
