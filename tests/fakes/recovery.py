"""The fake engine's recovery: a cluster that is up or down, on a timeline, and does as a test tells it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from engines.backup import Progress
from engines.errors import BackupFailed, EngineError, OutsideWindow, RecoveryFailed, RecoveryRefused
from engines.recovery import BackupSet, Marker, RecoverySettings, Standing, Target, Timeline, Undo, Window
from tests.fakes.driver import FakeServer

USABLE = True
MADE = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
SYSTEM = str(int(MADE.timestamp()) << 32)


class FakeRecovery:
    """`server.recovery` tells how it behaves."""

    def __init__(self, server: FakeServer, settings: RecoverySettings) -> None:
        self.settings = settings
        self._cluster = server.recovery

    async def missing(self) -> list[str]:
        return self._cluster.missing

    async def standing(self) -> Standing:
        if planned := self._cluster.problems.get("standing"):
            raise planned[0] or AssertionError
        return Standing(system_identifier=SYSTEM, timeline=self._cluster.timeline)

    async def sets(self) -> list[BackupSet]:
        return [
            BackupSet(
                label="F",
                kind="full",
                stopped_at=MADE,
                timeline=1,
                stop_lsn="0/10",
                size=1,
                usable=USABLE,
            )
        ]

    async def window(self, timelines: Sequence[Timeline], markers: Sequence[Marker]) -> Window:
        assert timelines
        await self._cluster.passed("window")
        return Window(earliest=MADE, latest=datetime.now(UTC))

    async def choose(self, at: datetime, timelines: Sequence[Timeline], markers: Sequence[Marker]) -> Target:
        if at < MADE:
            raise OutsideWindow(f"It must be from {MADE.isoformat()}.")
        lived = max((each for each in timelines if each.began_at <= at), key=lambda each: each.began_at)
        return Target(at=at, label="F", timeline=lived.number)

    async def choose_undo(self, timeline: int, timelines: Sequence[Timeline]) -> Undo:
        return Undo(label="F", timeline=timeline, older=self._cluster.older_sets)

    async def mark(self) -> Marker:
        await self._cluster.passed("mark")
        return Marker(committed_at=datetime.now(UTC), timeline=self._cluster.timeline, lsn="0/200", archived=True)

    async def commit(self, last: Marker | None) -> Marker | None:
        if last is not None and last.lsn == self._cluster.wal_at:
            return None
        return Marker(
            committed_at=datetime.now(UTC),
            timeline=self._cluster.timeline,
            lsn=self._cluster.wal_at,
            archived=False,
        )

    async def archived(self, markers: Sequence[Marker]) -> list[Marker]:
        return list(markers)

    async def last_segment(self) -> str:
        return "S"

    async def holds(self, segment: str) -> bool:
        assert segment == "S"
        assert not self._cluster.up
        return self._cluster.archives_at_the_stop

    async def is_running(self) -> bool:
        return self._cluster.up

    async def stop(self) -> None:
        if self._cluster.up:
            await self._cluster.passed("stop")
            self._cluster.up = False

    async def restore(self, target: Target | Undo, progress: Progress) -> None:
        assert not self._cluster.up, "files of a running server were touched"
        before = self._cluster.content
        self._cluster.content = "half"
        try:
            await self._cluster.passed("restore" if isinstance(target, Target) else "undo")
        except EngineError as problem:
            if type(problem) in (RecoveryRefused, BackupFailed):  # before it has changed anything
                self._cluster.content = before
            raise
        self._cluster.content = target.at.isoformat() if isinstance(target, Target) else "last"
        self._cluster.timeline += 1

    async def start(self) -> None:
        if not self._cluster.up:
            await self._cluster.passed("start")
            self._cluster.up = True

    async def wait_promoted(self, progress: Progress) -> Standing:
        await self._cluster.passed("promote")
        assert self._cluster.up
        if self._cluster.shuts_down_later:
            self._cluster.up = self._cluster.shuts_down_later = False
            raise RecoveryFailed("The server ended while it recovered: its log does not say why")
        if self._cluster.content == "half":
            self._cluster.up = False
            raise RecoveryFailed("The server ended while it recovered: could not find the database system")
        return await self.standing()

    async def fork_of(self, standing: Standing, timelines: Sequence[Timeline] = ()) -> Timeline:
        known = next((each for each in timelines if each.number == standing.timeline), None)
        return known or Timeline(
            number=standing.timeline,
            parent=standing.timeline - 1 or None,
            forked_at_lsn="0/300" if standing.timeline > 1 else None,
            began_at=datetime.now(UTC),
            ended_at=None,
        )

    async def full_backup(self, progress: Progress) -> None:
        await self._cluster.passed("backup")


def minutes_ago(number: float) -> str:
    return (datetime.now(UTC) - timedelta(minutes=number)).isoformat()
