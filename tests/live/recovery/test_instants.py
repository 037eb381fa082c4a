"""A real cluster is brought back to instants, and its rows are compared with a ledger of their commits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from engines.errors import OutsideWindow, Precondition
from engines.postgresql.recovery.server import PostgresRecovery
from engines.recovery import Marker, Target, Timeline
from tests.live.recovery.cluster import Cluster, Ledger, grant, running_cluster

pytestmark = pytest.mark.engine_images()

ACCOUNT = "valet"
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        grant(cluster, ACCOUNT)
        yield cluster


@dataclass
class Told:
    """What the service remembers, here in memory."""

    recovery: PostgresRecovery
    timelines: list[Timeline] = field(default_factory=list[Timeline])
    markers: list[Marker] = field(default_factory=list[Marker])

    async def recover(self, at: datetime) -> Target:
        """Do what the service does, in its order."""
        target = await self.recovery.choose(at, self.timelines, self.markers)
        marker = await self.recovery.mark()
        self.markers.append(marker)
        await self.recovery.stop()
        self.timelines[-1] = replace(self.timelines[-1], ended_at=marker.committed_at)
        await self.recovery.restore(target, ignore)
        await self.recovery.start()
        standing = await self.recovery.wait_promoted(ignore)
        self.timelines.append(await self.recovery.fork_of(standing, self.timelines))
        return target


def ignore(_percent: float, _step: str) -> None:
    return


@pytest.fixture(scope="module")
async def told(cluster: Cluster) -> AsyncIterator[Told]:
    server = cluster.server(ACCOUNT)
    recovery = PostgresRecovery(server, cluster.settings())
    await recovery.full_backup(ignore)
    first = replace(await recovery.fork_of(await recovery.standing()), began_at=LONG_AGO)
    yield Told(recovery, [first])
    await server.close()


@pytest.fixture(scope="module")
def ledger(cluster: Cluster) -> Ledger:
    return Ledger(cluster)


def until(commits: dict[int, datetime], at: datetime) -> set[int]:
    return {id_ for id_, committed in commits.items() if committed <= at}


async def test_an_account_that_is_no_superuser_has_what_it_takes(told: Told, cluster: Cluster) -> None:
    assert await told.recovery.missing() == []
    with cluster.connect() as session:
        session.execute(f"REVOKE EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() FROM {ACCOUNT}".encode())
        (missing,) = await told.recovery.missing()
        assert missing.startswith("Missing: EXECUTE on pg_switch_wal. Remedy: GRANT")
        session.execute(missing.partition("Remedy: ")[2].encode())
    assert await told.recovery.missing() == []


async def test_instants_on_one_timeline_after_another_and_on_one_that_was_left(told: Told, ledger: Ledger) -> None:
    await asyncio.sleep(1.2)  # later than the second in which the backup ended
    ledger.write(30)
    first = ledger.commits()
    middle = sorted(first.values())[15]
    target = await told.recover(middle)
    assert target.timeline == 1
    assert ledger.ids() == until(first, middle)

    ledger.write(30)
    second = ledger.commits()
    later = sorted(second.values())[25]
    assert later > middle
    assert (await told.recover(later)).timeline == 2
    assert ledger.ids() == until(second, later)

    # On the first timeline, after it was left: the newest one never had these rows.
    left = sorted(first.values())[22]
    assert (await told.recover(left)).timeline == 1
    assert ledger.ids() == until(first, left)
    assert [each.number for each in told.timelines] == [1, 2, 3, 4]
    assert [each.parent for each in told.timelines] == [None, 1, 2, 1]


async def test_one_second_ago_on_an_idle_server(told: Told, ledger: Ledger) -> None:
    ledger.write(5)
    there = ledger.ids()
    await asyncio.sleep(2.5)
    await told.recover(datetime.now(UTC) - timedelta(seconds=1))
    assert ledger.ids() == there


async def test_an_idle_server_is_not_marked_again_and_again(told: Told, cluster: Cluster, ledger: Ledger) -> None:
    marker = await told.recovery.commit(None)
    assert marker
    with cluster.connect() as session:
        session.execute("CHECKPOINT")  # the log goes on by itself, as with what the background writer notes
    assert await told.recovery.commit(marker) is None
    assert await told.recovery.commit(marker) is None
    ledger.write(1)
    assert await told.recovery.commit(marker)


async def test_instants_outside_of_the_window_are_refused_and_nothing_is_stopped(told: Told, cluster: Cluster) -> None:
    before = cluster.started_at()
    window = await told.recovery.window(told.timelines, told.markers)
    assert window.earliest and window.latest
    instants = [
        LONG_AGO,
        window.earliest - timedelta(microseconds=1),
        datetime.now(UTC) + timedelta(hours=1),
    ]
    for at in instants:
        with pytest.raises(OutsideWindow, match=window.earliest.isoformat()[:19]):
            await told.recovery.choose(at, told.timelines, told.markers)
    # Between the last commit on a timeline and the beginning of the next one no server lived.
    ended = told.timelines[0].ended_at
    assert ended
    with pytest.raises(OutsideWindow, match="was down then"):
        await told.recovery.choose(ended + timedelta(microseconds=1), told.timelines, told.markers)
    assert cluster.started_at() == before


@pytest.mark.long
async def test_the_last_state_comes_back_after_a_recovery_that_nobody_wanted(told: Told, ledger: Ledger) -> None:
    ledger.write(7)
    there = ledger.ids()
    timeline = told.timelines[-1].number
    undo = await told.recovery.choose_undo(timeline, told.timelines)
    window = await told.recovery.window(told.timelines, told.markers)
    assert window.latest
    await told.recover(sorted(ledger.commits().values())[2])
    assert ledger.ids() != there
    await told.recovery.mark()
    await told.recovery.stop()
    await told.recovery.restore(undo, ignore)
    await told.recovery.start()
    standing = await told.recovery.wait_promoted(ignore)
    told.timelines.append(await told.recovery.fork_of(standing, told.timelines))
    assert ledger.ids() == there
    await told.recovery.full_backup(ignore)


async def test_an_archive_that_takes_nothing_is_told_before_anything_is_touched(told: Told, cluster: Cluster) -> None:
    before = cluster.started_at()
    impatient = PostgresRecovery(cluster.server(ACCOUNT), replace(cluster.settings(), archive_seconds=3))
    with archiving_by(cluster, "false"), pytest.raises(Precondition, match="The archive did not take"):
        await impatient.mark()
    assert cluster.started_at() == before


@contextmanager
def archiving_by(cluster: Cluster, command: str) -> Iterator[None]:
    with cluster.connect() as session:
        session.execute(f"ALTER SYSTEM SET archive_command = '{command}'".encode())
        session.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        with cluster.connect() as session:
            session.execute("ALTER SYSTEM RESET archive_command")
            session.execute("SELECT pg_reload_conf()")


@pytest.mark.long
async def test_now_is_not_promised_while_nothing_is_archived(told: Told, cluster: Cluster) -> None:
    marker = await told.recovery.mark()
    markers = [*told.markers, marker]
    began_at = datetime.now(UTC)
    window = await told.recovery.window(told.timelines, markers)
    assert window.latest
    assert window.latest > marker.committed_at
    with archiving_by(cluster, ""):
        await asyncio.sleep(1)
        (missing,) = await told.recovery.missing()
        assert missing.startswith("archive_command is empty")
        assert (await told.recovery.window(told.timelines, markers)).latest == marker.committed_at
    with archiving_by(cluster, "sleep 20; false"):
        await asyncio.sleep(1)
        made = await told.recovery.commit(None)
        assert made
        markers = [*markers[:-1], replace(marker, committed_at=began_at - timedelta(hours=1))]
        waiting = replace(made, committed_at=began_at - timedelta(minutes=6))
        latest = (await told.recovery.window(told.timelines, [*markers, waiting])).latest
        assert latest and latest > began_at  # its segment is not full: a restore switches it
        with cluster.connect() as session:
            session.execute("SELECT pg_switch_wal()")
        assert await told.recovery.missing() == []
        latest = (await told.recovery.window(told.timelines, [*markers, made])).latest
        assert latest and latest > began_at  # it has not waited for long
        latest = (await told.recovery.window(told.timelines, [*markers, waiting])).latest
        assert latest and latest < began_at
        other = replace(waiting, timeline=99)
        latest = (await told.recovery.window(told.timelines, [*markers, other])).latest
        assert latest and latest > began_at  # of a timeline that was left none is archived any more
    await told.recovery.mark()
    latest = (await told.recovery.window(told.timelines, [*markers, waiting])).latest
    assert latest and latest > began_at


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
async def test_random_instants_of_any_timeline(told: Told, ledger: Ledger, seed: int) -> None:
    chance = random.Random(seed)
    await asyncio.sleep(1.2)
    ledger.write(chance.randrange(5, 40))
    commits = ledger.commits()
    since = told.timelines[-1].began_at
    at = chance.choice([each for each in commits.values() if each > since]) + timedelta(
        microseconds=chance.randrange(3)
    )
    await told.recover(at)
    assert ledger.ids() == until(commits, at)
