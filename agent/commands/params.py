"""PARAMS of `dbvalet call`: JSON, `key=value` pairs, or the bare string that an action takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, cast

Schema = dict[str, Any]

NOT_GIVEN = object()


class NotParams(Exception):
    """What was typed is neither JSON nor pairs."""


def read_params(words: Sequence[str], schemas: Sequence[Schema]) -> Any:
    """Turn words of the command line into params; `NOT_GIVEN` if there are none.

    `schemas` are those that the action has on the engines installed here, none if it is not known here. They decide of
    `limit=5` whether 5 is a number or a text; the server decides whether it is right.

    Raises: NotParams
    """
    if not words:
        return NOT_GIVEN
    if len(words) == 1:
        read = _read_json(words[0])
        if read is not NOT_GIVEN:
            return read
        if any(schema.get("type") == "string" for schema in schemas):
            return words[0]
    pairs: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise NotParams(f"{word!r} is neither JSON nor KEY=VALUE")
        if key in pairs:
            raise NotParams(f"{key} stands there twice")
        pairs[key] = _typed(text, set(_types_of(key, schemas)))
    return pairs


def _read_json(word: str) -> Any:
    """Read what can only be JSON: an object, a list, a quoted string, null."""
    if word.strip() != "null" and not word.lstrip().startswith(("{", "[", '"')):
        return NOT_GIVEN
    try:
        return json.loads(word, parse_constant=_refuse)
    except ValueError as problem:
        raise NotParams(f"not JSON: {problem}") from None


def _types_of(key: str, schemas: Iterable[Schema]) -> Iterable[str]:
    for schema in schemas:
        properties: dict[str, Schema] = schema.get("properties", {})
        if key in properties:
            yield from _types(properties[key], schema.get("$defs", {}))


def _types(schema: Schema, definitions: dict[str, Schema]) -> Iterable[str]:
    reference: str | None = schema.get("$ref")
    if reference is not None:
        yield from _types(definitions.get(reference.rpartition("/")[2], {}), definitions)
    for one in schema.get("anyOf", []) + schema.get("oneOf", []) + schema.get("allOf", []):
        yield from _types(one, definitions)
    named: Any = schema.get("type", [])
    yield from [named] if isinstance(named, str) else cast(list[str], named)
    yield from (_type_of(value) for value in schema.get("enum", []))
    if "const" in schema:
        yield _type_of(schema["const"])


def _typed(text: str, types: set[str]) -> Any:
    """Take a text for JSON where that has one of these types, or where no type is known."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text
    kind = _type_of(value)
    if kind == "string":
        return text
    fits = not types or kind in types or (kind == "integer" and "number" in types)
    return value if fits else text


def _refuse(constant: str) -> None:
    """Python reads NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{constant} is no JSON value")


def _type_of(value: object) -> str:
    # A bool is an int in Python, so it comes first.
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array")):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "object"
