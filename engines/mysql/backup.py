"""Backups of the logical database of a MySQL or MariaDB server's URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engines.backup import Manifest, Progress
from engines.mysql import dump, restore, tools
from engines.mysql.backup_rights import missing_to_dump, missing_to_restore
from engines.mysql.connection import connected
from engines.mysql.journal import places_of
from engines.threads import in_own_thread

if TYPE_CHECKING:
    from engines.mysql.driver import Session
    from engines.mysql.server import MySQLServer


class MySQLBackups:
    """Dumps with the server's own tool, and restores beside the old data before the new ones take their place."""

    def __init__(self, server: MySQLServer) -> None:
        """Touches nothing."""
        self._address = server.address

    async def missing(self) -> list[str]:
        """Tell why no backup can be made or restored here now, each with its remedy; empty when ready.

        Raises: EngineUnavailable
        """
        async with connected(self._address) as connection:
            reasons: list[str] = []
            for finding in (tools.find_dumper(connection.facts), tools.find_client(connection.facts)):
                try:
                    await finding
                except tools.NoTool as none:
                    reasons.append(str(none))
            return reasons + await connection.run(self._missing_privileges)

    def _missing_privileges(self, session: Session) -> list[str]:
        places = places_of(session, self._address.database)
        return missing_to_dump(session, places.database) + missing_to_restore(
            session, places.database, places.fresh, places.before
        )

    async def dump(self, folder: Path, progress: Progress) -> Manifest:
        """Write a dump into an empty folder; it is whole and checked when this returns, and gone when this raises.

        Raises: BackupFailed, Conflict (its structure changes all the time), EngineUnavailable, LogicalDatabaseNotFound,
            Precondition (no tool), PrivilegeMissing, OSError (disk full)
        """
        try:
            return await dump.dump(self._address, folder, progress)
        except BaseException:
            await in_own_thread(_empty, folder)
            raise

    async def verify(self, folder: Path) -> Manifest:
        """Check a dump without the server.

        Raises: BackupDamaged
        """
        return await dump.verify(folder)

    async def restore(self, folder: Path, progress: Progress) -> list[str]:
        """Load a dump beside the logical database, check it there, and swap it in; give notes for a person.

        The tables change in one step. Views, routines, triggers and events that differ are made after it, so they are
        missing for a moment. Cancelled after that step, the restore is brought to its end all the same.

        Raises: BackupDamaged, BackupFailed, Conflict, EngineUnavailable, Precondition, PrivilegeMissing
        """
        return await restore.restore(self._address, folder, progress)

    async def clean_up(self) -> None:
        """Finish or undo what an interrupted restore left behind; does nothing when there is nothing.

        Raises: BackupFailed, Conflict, DeadlineExceeded, EngineUnavailable
        """
        await restore.clean_up(self._address)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
