"""Figures of one measurement, and how they are taken from a process."""

from __future__ import annotations

from pathlib import Path


def summary(took: list[float], elapsed: float, failed: int = 0) -> dict[str, float]:
    """Sum up durations in seconds as requests, rate and percentiles in milliseconds."""
    took.sort()
    count = len(took)
    return {
        "requests": count,
        "failed": failed,
        "rate": count / elapsed,
        "p50_ms": took[count // 2] * 1000,
        "p99_ms": took[min(count - 1, count * 99 // 100)] * 1000,
    }


def resident_mib(pid: int) -> float:
    """Read the resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)
