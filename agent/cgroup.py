"""What the kernel counts of an engine's control group, and the file system of its data: figures an engine lacks.

https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

CONTROLLER = "{controller}"
"""Stands in a path of version 1, where each controller has a tree of its own."""

UNLIMITED = 1 << 60
"""Version 1 writes no limit as the largest number that fits."""


@dataclass(frozen=True, kw_only=True)
class HostFigures:
    """As `engines.health.Measures`; None for what cannot be read."""

    cpu_seconds: float | None = None
    memory: int | None = None
    memory_limit: int | None = None
    swap: int | None = None
    swap_limit: int | None = None
    bytes_read: int | None = None
    bytes_written: int | None = None


def read_cgroup(place: Path) -> HostFigures:
    """Read the counters of a control group, with those below it; blocks. What is not there is None, never guessed.

    Memory is without the file cache that the kernel would give back first, as Docker and Kubernetes show it: with it, a
    database always seems to need all that there is.
    """
    if CONTROLLER in str(place):
        return _version_1(
            *(Path(str(place).replace(CONTROLLER, controller)) for controller in ("cpuacct", "memory", "blkio"))
        )
    return _version_2(place)


def is_cgroup(place: Path) -> bool:
    """Tell whether there is a control group at this place."""
    if CONTROLLER in str(place):
        return Path(str(place).replace(CONTROLLER, "memory"), "memory.usage_in_bytes").exists()
    return (place / "cpu.stat").exists()


def _version_2(place: Path) -> HostFigures:
    micros = _pairs(place / "cpu.stat").get("usage_usec")
    read, written = _io(_text(place / "io.stat"), r"rbytes=(\d+)", r"wbytes=(\d+)")
    return HostFigures(
        cpu_seconds=None if micros is None else micros / 1_000_000,
        memory=_without(_number(place / "memory.current"), _pairs(place / "memory.stat").get("inactive_file")),
        memory_limit=_number(place / "memory.max"),
        swap=_number(place / "memory.swap.current"),
        swap_limit=_number(place / "memory.swap.max"),
        bytes_read=read,
        bytes_written=written,
    )


def _version_1(cpuacct: Path, memory: Path, blkio: Path) -> HostFigures:
    nanos = _number(cpuacct / "cpuacct.usage")
    used, limit = _number(memory / "memory.usage_in_bytes"), _number(memory / "memory.limit_in_bytes")
    both, both_limit = _number(memory / "memory.memsw.usage_in_bytes"), _number(memory / "memory.memsw.limit_in_bytes")
    # Without those of "memsw" the kernel accounts for no swap.
    counted = _text(blkio / "blkio.throttle.io_service_bytes_recursive")
    if counted is None:
        counted = _text(blkio / "blkio.throttle.io_service_bytes")
    read, written = _io(counted, r" Read (\d+)", r" Write (\d+)")
    return HostFigures(
        cpu_seconds=None if nanos is None else nanos / 1_000_000_000,
        memory=_without(used, _pairs(memory / "memory.stat").get("total_inactive_file")),
        memory_limit=limit,
        swap=None if both is None else _pairs(memory / "memory.stat").get("total_swap"),
        swap_limit=None if both_limit is None or limit is None else max(both_limit - limit, 0),
        bytes_read=read,
        bytes_written=written,
    )


def read_disk(place: Path) -> tuple[int | None, int | None]:
    """Give the bytes used on the file system of a path, and its size; None for both where that cannot be read."""
    try:
        found = os.statvfs(place)
    except OSError:
        return None, None
    return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_blocks * found.f_frsize


def _io(text: str | None, read: str, written: str) -> tuple[int | None, int | None]:
    """Sum the bytes of all devices. A group that has not touched one yet has an empty file."""
    if text is None:
        return None, None
    return sum(map(int, re.findall(read, text))), sum(map(int, re.findall(written, text)))


def _without(used: int | None, cached: int | None) -> int | None:
    return None if used is None else max(used - (cached or 0), 0)


def _number(file: Path) -> int | None:
    text = (_text(file) or "").strip()
    found = int(text) if text.isascii() and text.isdigit() else None  # `max`: there is no limit
    return None if found is None or found >= UNLIMITED else found


def _pairs(file: Path) -> dict[str, int]:
    words = (line.split() for line in (_text(file) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdigit()}


def _text(file: Path) -> str | None:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return None
