"""InfluxQL as text: how identifiers, strings and durations are written and read.

https://docs.influxdata.com/influxdb/v1.8/query_language/spec/
"""

from __future__ import annotations

import re

NANOSECONDS = {
    "ns": 1,
    "u": 1_000,
    "µ": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3_600 * 1_000_000_000,
    "d": 86_400 * 1_000_000_000,
    "w": 7 * 86_400 * 1_000_000_000,
}
SHOWN_UNITS = ("d", "h", "m", "s")
FINER_UNITS = ("ms", "u", "ns")

SHORTEST = NANOSECONDS["h"]
LONGEST = 2**63 - 1
"""Nanoseconds: the server keeps a duration as int64, and looks at the parts of one alone whether they overflow."""

FOR_EVER = 0

_PART = re.compile(r"([0-9]+)(ns|ms|u|µ|s|m|h|d|w)")
_SERVERS_PART = re.compile(r"([0-9]+)(?:\.([0-9]{1,9}))?(h|m|s)")


def identifier(name: str) -> str:
    """Quote a name: backslash, double quote and line feed are what InfluxQL escapes inside one."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def literal(text: str) -> str:
    """Quote a string: backslash, single quote and line feed are what InfluxQL escapes inside one."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def parse_duration(text: str) -> int:
    """Read a duration as a person writes it, `30d`, `1h30m`, `INF` or `0`, in nanoseconds; 0 stands for ever.

    Raises: ValueError
    """
    if text == "0" or text.upper() == "INF":
        return FOR_EVER
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("must be written as in 30d or 1h30m, or INF or 0 for ever")
    total = sum(int(number) * NANOSECONDS[unit] for number, unit in parts)
    if total == FOR_EVER:
        return FOR_EVER
    if total % NANOSECONDS["s"]:
        raise ValueError("must be whole seconds")
    if total < SHORTEST:
        raise ValueError("must be at least 1h, or INF or 0 for ever")
    if total > LONGEST:
        raise ValueError("is longer than InfluxDB can keep (106751d); INF or 0 is for ever")
    return total


def read_duration(text: str) -> int:
    """Read a duration as the server writes it, `720h0m0s` or `1h0m0.5s`, in nanoseconds.

    Raises: ValueError
    """
    if _SERVERS_PART.sub("", text):
        raise ValueError(f"not a duration of InfluxDB: {text!r}")
    return sum(
        int(whole) * NANOSECONDS[unit] + int((fraction or "").ljust(9, "0")) * NANOSECONDS[unit] // NANOSECONDS["s"]
        for whole, fraction, unit in _SERVERS_PART.findall(text)
    )


def show_duration(nanoseconds: int) -> str:
    """Write a duration in the documented form: `0` for ever, else one unit, the largest of d h m s that divides it.

    A duration that somebody made with a fraction of a second gets the finer unit of InfluxQL that it takes.
    """
    if nanoseconds == FOR_EVER:
        return "0"
    unit = next(unit for unit in (*SHOWN_UNITS, *FINER_UNITS) if nanoseconds % NANOSECONDS[unit] == 0)
    return f"{nanoseconds // NANOSECONDS[unit]}{unit}"
