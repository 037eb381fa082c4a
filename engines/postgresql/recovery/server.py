"""Point-in-time recovery of one PostgreSQL server: what is asked of the server itself, and the parts put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from engines import deadline
from engines.backup import Progress
from engines.errors import DeadlineExceeded, EngineUnavailable, Precondition, RecoveryFailed
from engines.postgresql.recovery import choose
from engines.postgresql.recovery.control import ServerControl, control_of
from engines.postgresql.recovery.pgbackrest import PgBackRest
from engines.recovery import BackupSet, Marker, RecoverySettings, Standing, Target, Timeline, Undo, Window

if TYPE_CHECKING:
    from engines.postgresql.server import PostgresServer

PROMOTION_SECONDS = 3600.0
"""How long a recovery may take from its start: it replays all log since the backup."""

LOOK_SECONDS = 0.2

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
COMMITTED = "SELECT pg_catalog.clock_timestamp() AS at, pg_catalog.pg_current_wal_lsn()::text AS lsn"
SWITCH = "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal()) AS segment"

LAST_SEGMENT = "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) AS segment"

IN_SEGMENT = "SELECT pg_catalog.pg_walfile_name(%(lsn)s::pg_lsn) AS segment"

ARCHIVED = """
SELECT last_archived_wal, last_failed_wal,
       last_failed_time IS NOT NULL AND coalesce(last_failed_time > last_archived_time, true) AS failing,
       pg_catalog.clock_timestamp() AS now
FROM pg_catalog.pg_stat_archiver
"""

RECOVERING = "SELECT pg_catalog.pg_is_in_recovery() AS recovering"


class PostgresRecovery:
    """A server, its repository, and who starts it."""

    def __init__(self, server: PostgresServer, settings: RecoverySettings) -> None:
        self._server = server
        self._repository = PgBackRest(settings)
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
        if row["wal_level"] == "minimal":
            reasons.append("wal_level is minimal: set wal_level = replica, and restart the server.")
        if not row["may_switch"]:
            reasons.append(
                "Missing: EXECUTE on pg_switch_wal. "
                f"Remedy: GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO {row['account']};"
            )
        if await self._repository.version() is None:
            reasons.append("pgbackrest cannot be run: install it beside dbvalet, or set pitr.program.")
        elif not await self._repository.sets():
            reasons.append(
                "There is no backup of pgBackRest yet: run pgbackrest stanza-create once, then make a backup here."
            )
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
        return Standing(system_identifier=row["system_identifier"], timeline=int(row["segment"][:8], 16))

    async def sets(self) -> list[BackupSet]:
        """List the backups, oldest first.

        Raises: BackupFailed, BackupDamaged
        """
        return await self._repository.sets()

    async def window(self, timelines: Sequence[Timeline], markers: Sequence[Marker]) -> Window:
        """Tell what can be recovered: to now where the archive takes segments, else to the last archived marker.

        Raises: BackupFailed, BackupDamaged
        """
        return await self._window(await self._repository.sets(), timelines, markers)

    async def _window(
        self, sets: Sequence[BackupSet], timelines: Sequence[Timeline], markers: Sequence[Marker]
    ) -> Window:
        first = choose.earliest(sets, timelines)
        latest = max((each.committed_at for each in markers if each.archived), default=None)
        try:
            (row,) = await self._server.read(ARCHIVED)
            if not row["failing"]:
                latest = row["now"]  # a restore begins with a marker
        except EngineUnavailable:
            pass  # what was archived before it went down is known
        return Window(earliest=first, latest=latest if first is not None and latest and latest >= first else None)

    async def choose(self, at: datetime, timelines: Sequence[Timeline], markers: Sequence[Marker]) -> Target:
        """Choose set and timeline for an instant; touches nothing.

        Raises: OutsideWindow, stating the window; BackupDamaged, BackupFailed
        """
        sets = await self._repository.sets()
        window = await self._window(sets, timelines, markers)
        return choose.choose(at, window, timelines, sets, await self._forks(timelines))

    async def choose_undo(self, timeline: int, timelines: Sequence[Timeline]) -> Undo:
        """Choose the set from which the last state of a timeline comes back.

        Raises: Precondition, when there is none; BackupDamaged, BackupFailed
        """
        labels = choose.leading_to(timeline, await self._repository.sets(), await self._forks(timelines))
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
        fork = (await self._repository.forks(standing.timeline)).get(standing.timeline)
        return Timeline(
            number=standing.timeline,
            parent=fork.parent if fork else None,
            forked_at_lsn=choose.write_lsn(fork.lsn) if fork else None,
            began_at=row["now"],
            ended_at=None,
        )

    async def _forks(self, timelines: Sequence[Timeline]) -> choose.Forks:
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
                forks = {**await self._repository.forks_of_ancestors(number), **forks}
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
        if last is not None and last.timeline == standing.timeline and before["lsn"] == last.lsn:
            return None  # nothing was written since: an idle server is not made to fill segments
        await self._server.write(COMMIT)
        (after,) = await self._server.read(COMMITTED)
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
                why = f" The archive command fails for {row['last_failed_wal']}." if row["failing"] else ""
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
        return await self._repository.holds(segment)

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

        Raises: RecoveryFailed
        """
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
        control = self._controlled()
        ends_at = time.monotonic() + PROMOTION_SECONDS
        progress(0, "replaying the log")
        while time.monotonic() < ends_at:
            if not await control.is_running():
                raise RecoveryFailed(f"The server ended while it recovered: {fatal(await control.failure_log())}")
            if await self._recovering(progress) is False:
                standing = await self.standing()
                if await control.is_running():
                    return standing
            await asyncio.sleep(LOOK_SECONDS)
        raise RecoveryFailed(f"The server has not recovered within {PROMOTION_SECONDS / 60:g} minutes.")

    async def _recovering(self, progress: Progress) -> bool | None:
        """Ask the server; None while it does not answer, and a person sees why: it may refuse an account of then."""
        try:
            with deadline.within(5):
                rows: list[dict[str, Any]] = await self._server.read(RECOVERING)
        except EngineUnavailable as problem:
            progress(0, f"replaying the log ({problem.message})")
            return None
        except DeadlineExceeded:
            return None
        return rows[0]["recovering"]

    async def full_backup(self, progress: Progress) -> None:
        """Make a full backup of the whole server.

        Raises: BackupFailed, Conflict when another is being made
        """
        progress(0, "making a backup of the whole server")
        await self._repository.back_up("full")


def fatal(log: str) -> str:
    """Find in a server's log why it ended."""
    lines = [line.strip() for line in log.splitlines() if "FATAL:" in line or "PANIC:" in line]
    # Those who knock meanwhile are refused with a FATAL of their own.
    lines = [line for line in lines if "the database system is" not in line] or lines
    return lines[-1] if lines else "its log does not say why"
