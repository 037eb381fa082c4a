"""What servers counted over the last hour, as a series: bounded, in memory, begun when first asked."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.cgroup import read_cgroup, read_disk
from agent.databases import Database
from agent.errors import NotSupported
from engines import deadline
from engines.action import Effect
from engines.errors import DeadlineExceeded, EngineError
from engines.health import explained

if TYPE_CHECKING:
    from agent.settings_databases import DatabaseSettings
    from engines.health import Measures

EVERY_SECONDS = 15.0
KEPT = 240
"""Samples of a database: an hour of them."""
UNASKED_SECONDS = 3600.0
"""After so long without a question nothing is sampled any more."""
MEASURE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Measures of one moment."""

    at: datetime
    measures: Measures


class Sampler:
    """The series of every database that was asked for."""

    def __init__(self) -> None:
        self._series: dict[str, deque[Sample]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._asked: dict[str, float] = {}

    async def now(self, database: Database) -> list[Sample]:
        """Measure a database, and give what is kept of it, the newest last; from now on it is sampled.

        Raises: Overloaded, NotSupported, DeadlineExceeded, and what the engine refuses
        """
        with database.admitted(Effect.READ):
            sample = Sample(at=datetime.now(UTC), measures=await measured(database))
        series = self._series.setdefault(database.id, deque(maxlen=KEPT))
        series.append(sample)
        self._asked[database.id] = time.monotonic()
        task = self._tasks.get(database.id)
        if task is None or task.done():
            self._tasks[database.id] = asyncio.create_task(self._go_on(database, series))
        return list(series)

    async def close(self) -> None:
        """Stop sampling."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _go_on(self, database: Database, series: deque[Sample]) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            if time.monotonic() - self._asked[database.id] > UNASKED_SECONDS:
                return
            try:
                measures = await measured(database)
            except EngineError:
                continue  # a gap in the series is what there is to show; that the engine is down is logged elsewhere
            series.append(Sample(at=datetime.now(UTC), measures=measures))


async def measured(database: Database) -> Measures:
    """Ask the engine and the host for their counters, within `MEASURE_SECONDS`.

    Raises: NotSupported, DeadlineExceeded, and what the engine refuses
    """
    health = database.engine.health_of(database.server)
    if health is None:
        raise NotSupported(f"{database.engine.title} tells nothing of how it does.")
    try:
        with deadline.within(MEASURE_SECONDS):
            async with asyncio.timeout(MEASURE_SECONDS + deadline.GRACE):
                measures = await explained(health, "metrics", health.measures())
                with deadline.waiting_for("the host"):
                    return await database.on_host(lambda: with_host(measures, database.settings))
    except TimeoutError as late:
        raise DeadlineExceeded(f"{deadline.awaited(late).capitalize()} did not give its counters in time.") from None


def with_host(measures: Measures, settings: DatabaseSettings) -> Measures:
    """Add what the host counts, where the configuration says where to look; blocks.

    It takes the place of the engine's own: a series that changes between them would show jumps that never were.
    """
    if settings.cgroup is not None:
        measures = replace(measures, **asdict(read_cgroup(settings.cgroup)))
    if settings.data_disk is not None:
        used, size = read_disk(settings.data_disk)
        measures = replace(measures, disk_used=used, disk_size=size)
    return measures


def cpu_percent(before: Sample, after: Sample) -> int | None:
    """Tell how much of one processor was used between two samples; None where the engine does not count it."""
    begun, ended = before.measures.cpu_seconds, after.measures.cpu_seconds
    seconds = (after.at - before.at).total_seconds()
    if begun is None or ended is None or seconds <= 0 or ended < begun:
        return None
    return round((ended - begun) / seconds * 100)
