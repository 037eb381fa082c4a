"""Line protocol: how points are written.

https://docs.influxdata.com/influxdb/v1.8/write_protocols/line_protocol_reference/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engines.influxdb.backup.connection import Series

LONGEST_INTEGER = 2**63 - 1

_NAME = str.maketrans({",": "\\,", " ": "\\ "})
_KEY = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})
_TEXT = str.maketrans({"\\": "\\\\", '"': '\\"'})


def points_of(series: Series) -> Iterator[tuple[str, list[int]]]:
    """Write each row of a series as a point, and tell which of its fields it has.

    A backslash stands for itself but in a string: that is how the server reads it.
    """
    tags = "".join(f",{key.translate(_KEY)}={value.translate(_KEY)}" for key, value in series.tags.items() if value)
    head = f"{series.measurement.translate(_NAME)}{tags} "
    keys = [f"{field.translate(_KEY)}=" for field in series.fields]
    for time, *values in series.rows:
        there = [number for number, value in enumerate(values) if value is not None]
        yield f"{head}{','.join([keys[number] + value_of(values[number]) for number in there])} {time}", there


def value_of(value: Any) -> str:
    """Write a value with its type."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i" if value <= LONGEST_INTEGER else f"{value}u"
    if isinstance(value, float):
        return repr(value)  # the shortest text that reads as the same float
    return f'"{value.translate(_TEXT)}"'
