"""Backups of the deployment's logical database: raw BSON through the driver, which works wherever dbvalet does.

`mongodump` is not used, even where it is: one way that always works is one to trust. What is written can still be read
by `mongorestore` (NAME.bson, NAME.metadata.json), time-series collections and functions aside.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engines.backup import Manifest, Progress
from engines.mongodb.backup.rights import lacking_rights

if TYPE_CHECKING:
    from engines.mongodb.server import MongoServer


class MongoBackups:
    """Dumps and restores the logical database of a MongoDB server's URL."""

    def __init__(self, server: MongoServer) -> None:
        self._server = server

    async def missing(self) -> list[str]:
        """Tell why no backup can be made or restored here now, each with its remedy; empty when ready.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        return await lacking_rights(self._server)

    async def dump(self, folder: Path, progress: Progress) -> Manifest:
        """Write a dump into an empty folder, streaming; of one instant where the server can (5.0, replica set).

        Raises: BackupFailed, Conflict, EngineUnavailable, PrivilegeMissing, OSError (disk full)
        """
        from engines.mongodb.backup.dump import dump

        return await dump(self._server.address, folder, progress)

    async def verify(self, folder: Path) -> Manifest:
        """Check a dump without the server: every file there and as written, every document whole, none too few.

        Raises: BackupDamaged
        """
        from engines.mongodb.backup.files import read_backup

        return (await read_backup(folder)).manifest

    async def restore(self, folder: Path, progress: Progress) -> list[str]:
        """Load a dump beside the old collections, check it, then swap it in; give notes for a person.

        Raises: BackupFailed, BackupDamaged, EngineUnavailable, PrivilegeMissing, Conflict
        """
        from engines.mongodb.backup.restore import restore

        return await restore(self._server.address, folder, progress)

    async def clean_up(self) -> None:
        """Finish an interrupted restore that had begun to swap, undo one that had not.

        Raises: BackupFailed, EngineUnavailable, PrivilegeMissing, Conflict
        """
        from engines.mongodb.backup.restore import clean_up

        await clean_up(self._server.address)
