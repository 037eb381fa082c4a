"""Those who follow logs: one reading a second of each log that is followed, however many follow it, else none."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agent.databases import Database
from agent.errors import AgentError, RateLimited
from agent.log import Log
from agent.logs import NOT_READ, SECONDS, Logs, ShownLine, in_format
from engines import deadline
from engines.errors import DeadlineExceeded, EngineError

JOIN_SECONDS = SECONDS
"""How long somebody may wait for the first reading, and for those who wait for one already."""

EVERY_SECONDS = 1.0
MOST_FOLLOWERS = 8
"""Of one database."""

WINDOW = 500
"""Lines that are read each time. What an engine writes faster than that is left out, and told."""

MOST_WAITING = 2000
"""Lines that may wait for a follower who does not take them."""


@dataclass(eq=False)
class Follower:
    """One who follows a log."""

    lines: asyncio.Queue[ShownLine] = field(default_factory=lambda: asyncio.Queue[ShownLine](MOST_WAITING))
    too_slow: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once lines would have been lost."""


@dataclass(eq=False)
class _Feed:
    seen: list[ShownLine]
    followers: set[Follower] = field(default_factory=set[Follower])
    task: asyncio.Task[None] | None = None


class Followers:
    """The followers of all databases."""

    def __init__(self, logs: Logs, log: Log) -> None:
        self._logs = logs
        self._log = log
        self._feeds: dict[str, _Feed] = {}
        # One each: who waits for an engine that does not answer keeps nobody from the log of another.
        self._joining: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def following(self, database: Database) -> AsyncGenerator[Follower]:
        """Let somebody have each line that is logged from now on.

        Raises: RateLimited, when enough follow already; and what reading the log raises
        """
        follower = Follower()
        try:
            # Also for the turn: each of those before may wait as long for an engine that does not answer.
            async with asyncio.timeout(JOIN_SECONDS + deadline.GRACE):
                feed = await self._join(database, follower)
        except TimeoutError:
            raise DeadlineExceeded(NOT_READ) from None
        try:
            yield follower
        finally:
            feed.followers.discard(follower)
            if not feed.followers and self._feeds.get(database.id) is feed:
                del self._feeds[database.id]
                if feed.task is not None:
                    feed.task.cancel()

    async def _join(self, database: Database, follower: Follower) -> _Feed:
        async with self._joining[database.id]:
            feed = self._feeds.get(database.id)
            if feed is None:
                feed = self._feeds[database.id] = _Feed((await self._logs.read(database, WINDOW))[-WINDOW:])
                feed.task = asyncio.create_task(self._feed(database, feed))
            if len(feed.followers) >= MOST_FOLLOWERS:
                raise RateLimited(f"{MOST_FOLLOWERS} follow this log already.", retry_after=60)
            feed.followers.add(follower)
            return feed

    def count(self) -> int:
        """Tell how many logs are being read."""
        return len(self._feeds)

    async def _feed(self, database: Database, feed: _Feed) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self._look(database, feed)
            except (AgentError, EngineError):
                continue  # the engine is down, or its log is being rotated: what is logged meanwhile is read after it
            except Exception:  # noqa: BLE001 - who follows must outlive a bug, which is logged
                self._log.exception("bug", database=database.id)

    async def _look(self, database: Database, feed: _Feed) -> None:
        # What is read is about as many lines; they are compared one with each other.
        found = (await self._logs.read(database, WINDOW))[-WINDOW:]
        new = added(feed.seen, found)
        # An empty reading, of a log that was just emptied, must not make the next one look new as a whole.
        feed.seen = found or feed.seen
        if len(new) == len(found) and len(found) >= WINDOW:
            skipped = "more was logged than is read in a second: some lines are left out here"
            new.insert(0, _notice(skipped))
        for follower in feed.followers:
            for each in new:
                try:
                    follower.lines.put_nowait(each)
                except asyncio.QueueFull:
                    follower.too_slow.set()
                    break


def added(before: Sequence[ShownLine], now: Sequence[ShownLine]) -> list[ShownLine]:
    """Give what the end of a log has that it did not have before: what stands after the last lines of before."""
    if not before:
        return list(now)
    for end in range(len(now), 0, -1):
        same = min(end, len(before))
        if now[end - 1] == before[-1] and now[end - same : end] == before[len(before) - same :]:
            return list(now[end:])
    return list(now)


def _notice(text: str) -> ShownLine:
    at = datetime.now(UTC)
    return ShownLine(at=at, text=in_format(at, text, "dbvalet") or "")
