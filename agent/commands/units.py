"""How the fields of answers are written for people: durations with a unit, times on the reader's clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from agent.commands.tables import cell


def shown(field: str, value: Any) -> str:
    """Write the value of a field of an answer."""
    if value is None or isinstance(value, bool):
        return cell(value)
    write = _FIELDS.get(field)
    return write(value) if write else cell(value)


def duration(seconds: float) -> str:
    """Write a duration with at most three digits and the unit they need: `1.84 s`, `350 µs`, `2 h 05 min`."""
    for unit, size in (("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3)):
        if seconds < 999.5 * size:
            return f"{seconds / size:.3g} {unit}"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _nanoseconds(value: Any) -> str:
    return duration(value / 1e9) if isinstance(value, int | float) else cell(value)


def _milliseconds(value: Any) -> str:
    return duration(value / 1e3) if isinstance(value, int | float) else cell(value)


def _bytes(value: Any) -> str:
    if not isinstance(value, int | float):
        return cell(value)
    for unit, size in (("B", 1), ("kB", 1e3), ("MB", 1e6)):
        if value < 999.5 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e9:,.1f} GB"


def _local_time(value: Any) -> str:
    """Write an instant as this machine's clock shows it, without the date if that is today's."""
    try:
        instant = datetime.fromisoformat(str(value)).astimezone()
    except ValueError:
        return cell(value)
    today = instant.date() == datetime.now().astimezone().date()
    return instant.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


_FIELDS: dict[str, Callable[[Any], str]] = {
    "query_duration": _nanoseconds,
    "total_time": _milliseconds,
    "min_time": _milliseconds,
    "max_time": _milliseconds,
    "mean_time": _milliseconds,
    "std_dev": _milliseconds,
    "query_start": _local_time,
    "backend_start": _local_time,
    "state_change": _local_time,
    "created_at": _local_time,
    "finished_at": _local_time,
    "earliest_recoverable_at": _local_time,
    "latest_recoverable_at": _local_time,
    "size": _bytes,
}
