"""Backups of the deployment's logical database: line protocol over HTTP, which works wherever dbvalet does.

`influxd backup -portable` is not used, even where it is: it needs the port 8088, which has no authentication and is
closed by default, and it leaves out continuous queries. What is written can still be read by `influx -import`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engines.backup import Manifest, Progress
from engines.engine import lacking

if TYPE_CHECKING:
    from engines.influxdb.server import InfluxServer


class InfluxBackups:
    """Dumps and restores the logical database of an InfluxDB server's URL."""

    def __init__(self, server: InfluxServer) -> None:
        self._server = server

    async def missing(self) -> list[str]:
        """Tell why no backup can be made or restored here now, each with its remedy; empty when ready.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        return await lacking(self._server, ("ALL PRIVILEGES",))

    async def dump(self, folder: Path, progress: Progress) -> Manifest:
        """Write a dump into an empty folder, streaming; never of one instant, which InfluxDB 1.x cannot give.

        Raises: BackupFailed, Conflict, EngineUnavailable, PrivilegeMissing, OSError (disk full)
        """
        from engines.influxdb.backup.dump import dump

        return await dump(self._server.address, folder, progress)

    async def verify(self, folder: Path) -> Manifest:
        """Check a dump without the server: every file there and as written, every point there.

        Raises: BackupDamaged
        """
        from engines.influxdb.backup.files import read_backup

        return (await read_backup(folder)).manifest

    async def restore(self, folder: Path, progress: Progress) -> list[str]:
        """Load a dump into a logical database of its own, check it, then bring it into the real one; give notes.

        Raises: BackupFailed, BackupDamaged, EngineUnavailable, PrivilegeMissing, Conflict
        """
        from engines.influxdb.backup.restore import restore

        return await restore(self._server.address, folder, progress)

    async def clean_up(self) -> None:
        """Finish an interrupted restore that had begun to replace the old data, undo one that had not.

        Raises: BackupFailed, EngineUnavailable, PrivilegeMissing
        """
        from engines.influxdb.backup.restore import clean_up

        await clean_up(self._server.address)
