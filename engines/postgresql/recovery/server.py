"""Point-in-time recovery of one PostgreSQL server: what is asked of the server itself, and the parts put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from engines.backup import Progress
from engines.errors import EngineUnavailable, Precondition, RecoveryFailed
from engines.postgresql.recovery import choose, promotion
from engines.postgresql.recovery.control import ServerControl, control_of
from engines.postgresql.recovery.pgbackrest import PgBackRest, Stanza
from engines.recovery import BackupSet, Marker, RecoverySettings, Standing, Target, Timeline, Undo, Window

if TYPE_CHECKING:
    from engines.postgresql.server import PostgresServer

LOOK_SECONDS = 0.2

BEHIND = timedelta(minutes=5)
"""How long a full segment may wait for the archive before the last moment is no longer promised."""

STANDING = """
SELECT system_identifier::text AS system_identifier,
       pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) AS segment
FROM pg_catalog.pg_control_system()
"""

SETTINGS = """
SELECT pg_catalog.current_setting('archive_mode') AS archive_mode,
       pg_catalog.current_setting('wal_level') AS wal_level,
       pg_catalog.has_function_privilege('pg_catalog.pg_switch_wal()', 'EXECUTE') AS may_switch,
       pg_catalog.quote_ident(current_user) AS account
"""

# txid_current() and its successor write a commit record without a table. The segment is switched in a statement of its
# own: within one, the commit would come after the switch, in a segment that is not archived yet.
COMMIT = "SELECT pg_catalog.txid_current() AS xid"
# The commit record of a transaction that changed nothing is not waited for: what is written may end before it.
# Whether anybody has written is told by the number of the next transaction: the server itself writes at any time.
COMMITTED = """
SELECT pg_catalog.clock_timestamp() AS at, pg_catalog.pg_current_wal_insert_lsn()::text AS lsn,
       pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) AS next
"""
SWITCH = "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal()) AS segment"

LAST_SEGMENT = "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) AS segment"

IN_SEGMENT = "SELECT pg_catalog.pg_walfile_name(%(lsn)s::pg_lsn) AS segment"

ARCHIVED = """
SELECT last_archived_wal, last_failed_wal,
       last_failed_time IS NOT NULL AND coalesce(last_failed_time > last_archived_time, true) AS failing,
       last_archived_time::text AS last_archived_time,
       pg_catalog.current_setting('archive_command') NOT IN ('', '(disabled)')
       OR coalesce(pg_catalog.current_setting('archive_library', true), '') <> '' AS has_command,
       pg_catalog.clock_timestamp() AS now
FROM pg_catalog.pg_stat_archiver
"""

# Whether the segment of a place is full, and not archived.
WAITING = """
SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), %(lsn)s::pg_lsn)
           >= pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size'))
              - (pg_catalog.pg_walfile_name_offset(%(lsn)s::pg_lsn)).file_offset
       AND pg_catalog.pg_walfile_name(%(lsn)s::pg_lsn)
           > coalesce((SELECT last_archived_wal FROM pg_catalog.pg_stat_archiver), '') COLLATE "C" AS waiting
"""


class PostgresRecovery:
    """A server, its repository, and who starts it."""

    def __init__(self, server: PostgresServer, settings: RecoverySettings) -> None:
        self._server = server
        self._repository = PgBackRest(settings)
        self._seen: str | None = None
        """Which cluster it was when it answered last."""
        self._marked: tuple[str, int] | None = None
        """The last marker: its place and its transaction."""
        self._archive_seconds = settings.archive_seconds
        self._control = control_of(settings.control, settings.stop_seconds) if settings.control else None

    async def missing(self) -> list[str]:
        """Tell what is not set up, each with its remedy; empty when ready.

        Raises: EngineUnavailable
        """
        reasons: list[str] = []
        (row,) = await self._server.read(SETTINGS)
        if row["archive_mode"] == "off":
            reasons.append(
                "archive_mode is off: set archive_mode = on and"
                " archive_command = 'pgbackrest --stanza=STANZA archive-push %p', and restart the server."
            )
        elif not (await self._server.read(ARCHIVED))[0]["has_command"]:
            reasons.append(
                "archive_command is empty, and nothing is archived:"
                " set archive_command = 'pgbackrest --stanza=STANZA archive-push %p', and reload the configuration."
            )
        if row["wal_level"] == "minimal":
            reasons.append("wal_level is minimal: set wal_level = replica, and restart the server.")
        if not row["may_switch"]:
            reasons.append(
                "Missing: EXECUTE on pg_switch_wal. "
                f"Remedy: GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO {row['account']};"
            )
        if await self._repository.version() is None:
            reasons.append("pgbackrest cannot be run: install it beside dbvalet, or set pitr.program.")
        else:
            if in_the_way := await self._repository.missing():
                reasons.append(in_the_way)
            reasons += _missing_in(await self._look())
        if self._control is None:
            return [*reasons, "Nothing says who stops and starts the server: set pitr.control."]
        try:
            if not await self._control.is_running():
                reasons.append("pitr.control says that the server does not run, though it answers: is it another one?")
        except RecoveryFailed as failed:
            reasons.append(f"pitr.control cannot be used: {failed.message}")
        return reasons

    async def standing(self) -> Standing:
        """Ask the server where it stands.

        Raises: EngineUnavailable
        """
        (row,) = await self._server.read(STANDING)
        self._seen = row["system_identifier"]
        return Standing(system_identifier=row["system_identifier"], timeline=int(row["segment"][:8], 16))

    async def sets(self) -> list[BackupSet]:
        """List the backups of this cluster, oldest first.

        Raises: BackupFailed, BackupDamaged
        """
        return (await self._look()).sets

    async def _look(self) -> Stanza:
        """Ask the repository for this cluster; while that does not answer, for the one that was seen last."""
        with suppress(EngineUnavailable):
            await self.standing()
        return await self._repository.look(self._seen)

    async def window(self, timelines: Sequence[Timeline], markers: Sequence[Marker]) -> Window:
        """Tell what can be recovered: to now where the archive takes segments, else to the last archived marker.

        Raises: BackupFailed, BackupDamaged
        """
        return await self._window(await self.sets(), timelines, markers)

    async def _window(
        self, sets: Sequence[BackupSet], timelines: Sequence[Timeline], markers: Sequence[Marker]
    ) -> Window:
        first = choose.earliest(sets, timelines)
        latest = max((each.committed_at for each in markers if each.archived), default=None)
        try:
            (row,) = await self._server.read(ARCHIVED)
            if row["has_command"] and not row["failing"] and not await self._is_behind(row["now"], markers):
                latest = row["now"]  # a restore begins with a marker
        except EngineUnavailable:
            pass  # what was archived before it went down is known
        return Window(earliest=first, latest=latest if first is not None and latest and latest >= first else None)

    async def _is_behind(self, now: datetime, markers: Sequence[Marker]) -> bool:
        """Tell whether the archiver hangs: nothing fails, and a segment that is full waits for it for long."""
        old = [each for each in markers if not each.archived and now - each.committed_at > BEHIND]
        if not old:
            return False
        standing = await self.standing()
        old = [each for each in old if each.timeline == standing.timeline]
        if not old:
            return False
        first = min(old, key=lambda each: each.committed_at)
        (row,) = await self._server.read(WAITING, {"lsn": first.lsn})
        return row["waiting"]

    async def choose(self, at: datetime, timelines: Sequence[Timeline], markers: Sequence[Marker]) -> Target:
        """Choose set and timeline for an instant; touches nothing.

        Raises: OutsideWindow, stating the window; BackupDamaged, BackupFailed, EngineUnavailable
        """
        system = (await self.standing()).system_identifier
        sets = (await self._repository.look(system)).sets
        window = await self._window(sets, timelines, markers)
        return choose.choose(at, window, timelines, sets, await self._forks(system, timelines))

    async def choose_undo(self, timeline: int, timelines: Sequence[Timeline]) -> Undo:
        """Choose the set from which the last state of a timeline comes back.

        Raises: Precondition, when there is none; BackupDamaged, BackupFailed, EngineUnavailable
        """
        system = (await self.standing()).system_identifier
        sets = (await self._repository.look(system)).sets
        labels = choose.leading_to(timeline, sets, await self._forks(system, timelines))
        if not labels:
            raise Precondition(f"No backup leads to timeline {timeline}, on which the server lives: make one first.")
        return Undo(label=labels[0], timeline=timeline, older=labels[1:])

    async def fork_of(self, standing: Standing, timelines: Sequence[Timeline] = ()) -> Timeline:
        """Tell where the live timeline left its parent; `began_at` is now, unless `timelines` know it already.

        Raises: EngineUnavailable, BackupFailed
        """
        known = next((each for each in timelines if each.number == standing.timeline), None)
        if known is not None:
            return known
        (row,) = await self._server.read(ARCHIVED)
        forks = await self._repository.forks(standing.system_identifier, standing.timeline)
        fork = forks.get(standing.timeline)
        return Timeline(
            number=standing.timeline,
            parent=fork.parent if fork else None,
            forked_at_lsn=choose.write_lsn(fork.lsn) if fork else None,
            began_at=row["now"],
            ended_at=None,
        )

    async def _forks(self, system: str, timelines: Sequence[Timeline]) -> choose.Forks:
        """Tell where timelines left each other: as it was written down, or by the archive for those before the first.

        The archive forgets a timeline with the last backup that leads to it.
        """
        forks = {
            each.number: choose.Fork(parent=each.parent, lsn=choose.read_lsn(each.forked_at_lsn))
            for each in timelines
            if each.parent is not None and each.forked_at_lsn is not None
        }
        for number, fork in list(forks.items()):
            if fork.parent > 1 and fork.parent not in forks:
                forks = {**await self._repository.forks_of_ancestors(system, number), **forks}
        return forks

    async def mark(self) -> Marker:
        """Commit a marker and wait until it is archived.

        Raises: Precondition, when the archive does not take it; EngineUnavailable
        """
        standing = await self.standing()
        # The time before the commit: recovery stops at the first commit after an instant, so one must lie behind it.
        (committed,) = await self._server.read(COMMITTED)
        await self._server.write(COMMIT)
        (switched,) = await self._server.write(SWITCH)
        await self._archived(switched["segment"])
        return Marker(committed_at=committed["at"], timeline=standing.timeline, lsn=committed["lsn"], archived=True)

    async def commit(self, last: Marker | None) -> Marker | None:
        """Commit a marker that is archived with its segment, when that is full or archive_timeout has passed.

        Raises: EngineUnavailable
        """
        standing = await self.standing()
        (before,) = await self._server.read(COMMITTED)
        if last is not None and last.timeline == standing.timeline and self._marked == (last.lsn, before["next"] - 1):
            return None  # nobody has written since: an idle server is not made to fill segments
        (own,) = await self._server.write(COMMIT)
        (after,) = await self._server.read(COMMITTED)
        self._marked = after["lsn"], own["xid"]
        return Marker(committed_at=before["at"], timeline=standing.timeline, lsn=after["lsn"], archived=False)

    async def archived(self, markers: Sequence[Marker]) -> list[Marker]:
        """Give markers as they stand in the archive now; of a timeline that was left none is added.

        Raises: EngineUnavailable
        """
        if all(each.archived for each in markers):
            return list(markers)
        standing = await self.standing()
        (row,) = await self._server.read(ARCHIVED)
        last = (row["last_archived_wal"] or "")[:24]
        found: list[Marker] = []
        for each in markers:
            if not each.archived and each.timeline == standing.timeline:
                (place,) = await self._server.read(IN_SEGMENT, {"lsn": each.lsn})
                found.append(replace(each, archived=last >= place["segment"]))
            else:
                found.append(each)
        return found

    async def _archived(self, segment: str) -> None:
        ends_at = time.monotonic() + self._archive_seconds
        while True:
            (row,) = await self._server.read(ARCHIVED)
            if (row["last_archived_wal"] or "")[:24] >= segment:
                return
            if time.monotonic() > ends_at:
                why = (
                    f" The archive command fails for {row['last_failed_wal']}."
                    if row["failing"]
                    else f" It took the last one at {row['last_archived_time'] or 'no time'}; nothing failed since."
                )
                raise Precondition(
                    f"The archive did not take {segment} within {self._archive_seconds:g} s.{why} Nothing was touched."
                )
            await asyncio.sleep(LOOK_SECONDS)

    async def last_segment(self) -> str:
        """Name the segment that is being written.

        Raises: EngineUnavailable
        """
        (row,) = await self._server.read(LAST_SEGMENT)
        return row["segment"]

    async def holds(self, segment: str) -> bool:
        """Tell whether the archive has a segment, also while the server is down.

        Raises: BackupFailed
        """
        return await self._repository.holds(self._seen, segment)

    async def is_running(self) -> bool:
        """Ask whoever starts the server.

        Raises: RecoveryFailed
        """
        return await self._controlled().is_running()

    async def stop(self) -> None:
        """Stop the server cleanly; it is stopped when this returns.

        Raises: RecoveryFailed
        """
        await self._controlled().stop()

    async def start(self) -> None:
        """Start the server, and do not wait for it to recover; does nothing to one that runs.

        Raises: RecoveryFailed, also when a restore runs that does not end
        """
        await self._repository.make_sure_that_none_is_restoring()
        await self._controlled().start()

    def _controlled(self) -> ServerControl:
        if self._control is None:
            raise RecoveryFailed("Nothing says who stops and starts the server: set pitr.control.")
        return self._control

    async def restore(self, target: Target | Undo, progress: Progress) -> None:
        """Bring the files of a stopped server back; it recovers when it is started.

        Raises: RecoveryFailed, RecoveryRefused when nothing was changed
        """
        progress(0, f"bringing the files of {target.label} back")
        await self._repository.restore(target)

    async def wait_promoted(self, progress: Progress) -> Standing:
        """Wait until a started server has recovered and takes writes.

        Both failures of a recovery come after a restore that went well, so that an exit code of 0 says nothing. A hot
        standby answers before it has recovered.

        Raises: RecoveryFailed, with the server's own last words
        """
        return await promotion.wait(self._server, self._controlled(), self.standing, progress)

    async def full_backup(self, progress: Progress) -> None:
        """Make a full backup of the whole server.

        Raises: BackupFailed, Conflict when another is being made
        """
        progress(0, "making a backup of the whole server")
        await self._repository.back_up("full")


def _missing_in(stanza: Stanza) -> list[str]:
    if stanza.is_of_another:
        return [
            "This stanza of pgBackRest is of another server: after an upgrade of PostgreSQL run pgbackrest"
            " stanza-upgrade and make a backup here, otherwise set pitr.stanza."
        ]
    if not any(each.usable for each in stanza.sets):
        return ["There is no backup of pgBackRest yet: run pgbackrest stanza-create once, then make a backup here."]
    return []
