"""What is shown of a database's log: from its file or from its engine, without secrets, and as the clients split it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.databases import Database
from agent.errors import NotSupported
from agent.log_file import end_of_file
from engines import deadline
from engines.action import Effect
from engines.errors import DeadlineExceeded
from engines.health import LogLine, explained
from engines.log_text import masked

SECONDS = 10.0
NOT_READ = "The log was not read in time."

LONGEST_LINE = 8192
"""Characters of a line that are shown."""

# What a terminal would obey, and what turns the direction of a text around.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, kw_only=True)
class ShownLine:
    """A line in the clients' format."""

    at: datetime
    text: str


class Logs:
    """The logs of all databases."""

    def __init__(self, blot: Callable[[str], str]) -> None:
        """`blot` takes the secrets of the configuration out of a text."""
        self._blot = blot

    async def read(self, database: Database, lines: int) -> list[ShownLine]:
        """Read the end of a log, oldest line first: about as many as asked for, more where entries have several.

        Raises: Overloaded, NotSupported, Precondition, PrivilegeMissing, EngineUnavailable, DeadlineExceeded
        """
        try:
            with deadline.within(SECONDS), database.admitted(Effect.READ):
                async with asyncio.timeout(SECONDS + deadline.GRACE):
                    found = await _entries(database, lines)
                    # Not in the event loop: there may be a megabyte of it.
                    return await asyncio.to_thread(self._shown, found, database.engine.name)
        except TimeoutError:
            raise DeadlineExceeded(NOT_READ) from None

    def _shown(self, found: list[LogLine], container: str) -> list[ShownLine]:
        return [
            ShownLine(at=entry.at, text=text)
            for entry in found
            for line in self._blot(masked(entry.text)).split("\n")
            if (text := in_format(entry.at, line, container)) is not None
        ]


async def _entries(database: Database, lines: int) -> list[LogLine]:
    path = database.settings.log_file
    if path is not None:
        return await database.on_host(lambda: end_of_file(path, lines))
    health = database.engine.health_of(database.server)
    if health is None:
        raise NotSupported(f"{database.engine.title} does not give its log: `log_file` of the database may name it.")
    return await explained(health, "logs", health.log(lines))


def in_format(at: datetime, line: str, container: str) -> str | None:
    """Write a line as the command-line client splits it: its fifth word is the container, never empty.

    None for a line that says nothing.
    """
    text = " ".join(_CONTROL.sub("\ufffd", line[: 2 * LONGEST_LINE]).split())
    if not text:
        return None
    if len(text) > LONGEST_LINE or len(line) > 2 * LONGEST_LINE:
        text = f"{text[:LONGEST_LINE]} [cut: the line has {len(line)} characters]"
    at = at.astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond:06d}000 +0000 UTC [{container}] {text}"
