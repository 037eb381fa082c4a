"""What a client takes for a value of a field; anything else is `Undecodable`, with the place at which it stands."""

import re
from collections.abc import Callable, Mapping
from typing import Any

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")

Check = Callable[[Any, str], None]
"""Looks at a value; the text says where it stands."""


class Undecodable(AssertionError):
    """A client would stop here."""


def of(kind: type) -> Check:
    """Take values of exactly this type: neither is `true` a number, nor `1.0` an integer."""

    def check(value: Any, where: str) -> None:
        if type(value) is not kind:
            raise Undecodable(f"{where} is no {kind.__name__}: {value!r:.80}")

    return check


text, truth, integer = of(str), of(bool), of(int)


def unsigned(value: Any, where: str) -> None:
    integer(value, where)
    if value < 0:
        raise Undecodable(f"{where} is negative: {value}")


def number(value: Any, where: str) -> None:
    if type(value) not in (int, float):
        raise Undecodable(f"{where} is no number: {value!r:.80}")


def filled(value: Any, where: str) -> None:
    text(value, where)
    if not value:
        raise Undecodable(f"{where} is empty")


def like(pattern: str) -> Check:
    """Take a text that a pattern describes whole."""

    def check(value: Any, where: str) -> None:
        text(value, where)
        if not re.fullmatch(pattern, value):
            raise Undecodable(f"{where} is not like {pattern}: {value!r:.80}")

    return check


def date(value: Any, where: str) -> None:
    """Take RFC 3339 alone, as Go does: an empty text is none."""
    text(value, where)
    if not RFC_3339.fullmatch(value):
        raise Undecodable(f"{where} is no RFC 3339 date: {value!r:.80}")


def among(*values: object) -> Check:
    """Take one of these; `true` is not 1."""

    def check(value: Any, where: str) -> None:
        if not any(type(value) is type(each) and value == each for each in values):
            raise Undecodable(f"{where} is none of {values}: {value!r:.80}")

    return check


def or_null(check: Check) -> Check:
    """Take null, too."""
    return lambda value, where: None if value is None else check(value, where)


def list_of(check: Check, *, least: int = 0, most: int | None = None) -> Check:
    """Take a list."""

    def check_all(value: Any, where: str) -> None:
        of(list)(value, where)
        if len(value) < least or (most is not None and len(value) > most):
            raise Undecodable(f"{where} has {len(value)} entries")
        for place, entry in enumerate(value):
            check(entry, f"{where}[{place}]")

    return check_all


def map_of(check: Check) -> Check:
    """Take an object with any keys."""

    def check_all(value: Any, where: str) -> None:
        of(dict)(value, where)
        for key, entry in value.items():
            check(entry, f"{where}.{key}")

    return check_all


def fields(known: Mapping[str, Check] | None = None, /, **more: Check) -> Check:
    """Take an object that has all of these, and whatever else."""
    checks = {**(known or {}), **more}

    def check_all(value: Any, where: str) -> None:
        of(dict)(value, where)
        for key, check in checks.items():
            if key not in value:
                raise Undecodable(f"{where}.{key} is missing")
            check(value[key], f"{where}.{key}")

    return check_all


def only(**checks: Check) -> Check:
    """Take an object that has these and nothing else."""

    def check_all(value: Any, where: str) -> None:
        fields(checks)(value, where)
        if more := set(value) - set(checks):
            raise Undecodable(f"{where} has {more} too")

    return check_all


def anything(_value: Any, _where: str) -> None:
    pass
