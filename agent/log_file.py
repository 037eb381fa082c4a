"""The end of a log file on the machine that dbvalet runs on: never all of it, whatever is done to it meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from engines.errors import Precondition
from engines.health import LogLine
from engines.log_text import bytes_for, entries


def end_of_file(path: Path, lines: int) -> list[LogLine]:
    """Read about so many lines of the end of a log, those before a rotation to `.1` too; blocks.

    Raises: Precondition, when there is no such file or it cannot be read
    """
    most = bytes_for(lines)
    try:
        content, size, changed = _end(path, most)
    except OSError as problem:
        raise Precondition(f"`log_file` of this database cannot be read: {problem.strerror}.") from None
    cut = size > most
    if not cut:
        # A log that was renamed a moment ago has its newest lines there; and most that are wanted, for a day.
        with suppress(OSError):
            before, all_before, _ = _end(path.with_name(path.name + ".1"), most - len(content))
            content, cut = before + content, all_before > len(before)
    return entries(content, cut=cut, otherwise=changed)


def _end(path: Path, most: int) -> tuple[bytes, int, datetime]:
    """Give the last bytes of a file, its size, and when it was changed."""
    with _opened(path) as descriptor:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(0, "It is not an ordinary file")
        # In a loop, as a read may give less; to the size of now, as the file may grow faster than it is read. One that
        # is cut to nothing meanwhile gives what is there.
        parts: list[bytes] = []
        at = max(0, about.st_size - most)
        while at < about.st_size and (part := os.pread(descriptor, about.st_size - at, at)):
            parts.append(part)
            at += len(part)
    return b"".join(parts), about.st_size, datetime.fromtimestamp(about.st_mtime, UTC)


@contextmanager
def _opened(path: Path) -> Generator[int]:
    # A pipe without a writer would be waited for else.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
