"""Backups of the logical database of a PostgreSQL server's URL, by pg_dump."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engines.backup import Manifest, Progress, read_manifest, run_tool, write_manifest
from engines.errors import BackupDamaged, BackupFailed, Conflict, Precondition, PrivilegeMissing
from engines.postgresql import contents, locks, restore
from engines.postgresql.archive import table_of_contents
from engines.postgresql.backup_rights import missing_to_dump, missing_to_replace
from engines.postgresql.blockers import watching
from engines.postgresql.evaluated import code_of_others
from engines.postgresql.plan import Backup
from engines.postgresql.programs import (
    NoPrograms,
    Programs,
    find_programs,
    logging_in,
    parse_version,
    usual_folders,
)
from engines.postgresql.session import DUMPING
from engines.threads import in_own_thread

if TYPE_CHECKING:
    from engines.postgresql.server import PostgresServer

DUMP = "database.dump"
"""The file that pg_dump writes; `pg_restore` reads it by hand too."""

LOCK_SECONDS = 60
"""How long pg_dump waits for each lock: a migration may hold a table that it must read."""

LARGEST_SHARE = 95.0
"""Percent that the bytes written stand for at most: the dump is compressed, so that they are fewer than expected."""


class PostgresBackups:
    """Dumps with pg_dump, and restores in one transaction."""

    def __init__(self, server: PostgresServer, folders: Sequence[Path] | None = None) -> None:
        """Touches nothing. `folders` are where pg_dump is looked for, instead of PATH and where packages put it."""
        self._server = server
        self._folders = folders

    async def missing(self) -> list[str]:
        """Tell why no backup can be made here now, each with its remedy; empty when ready.

        What only a restore needs is told by a dump's notes, and by the restore before it changes anything.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        reasons: list[str] = []
        try:
            await self._programs((await self._server.describe()).version[0])
        except NoPrograms as none:
            reasons.append(str(none))
        return reasons + await missing_to_dump(self._server)

    async def dump(self, folder: Path, progress: Progress) -> Manifest:
        """Write a dump into an empty folder; it is whole and checked when this returns, and gone when this raises.

        Raises: BackupFailed (also a full disk), Conflict, EngineUnavailable, Precondition (no pg_dump),
            PrivilegeMissing, OSError
        """
        try:
            return await self._dump(folder, progress)
        except BaseException:
            await in_own_thread(_empty, folder)
            raise

    async def verify(self, folder: Path) -> Manifest:
        """Check a dump without the server.

        Raises: BackupDamaged, Precondition (no pg_restore)
        """
        return (await self._read(folder)).manifest

    async def restore(self, folder: Path, progress: Progress) -> list[str]:
        """Replace what the database holds by a dump, in one transaction; give notes for a person.

        Raises: BackupDamaged, BackupFailed, Conflict, EngineUnavailable, Precondition, PrivilegeMissing
        """
        progress(0, "checking the backup")
        backup = await self._read(folder)
        return await restore.restore(self._server, backup, progress)

    async def clean_up(self) -> None:
        """End the sessions of dumps and restores whose dbvalet is gone, and with them whatever they did.

        Raises: Conflict, EngineUnavailable, DeadlineExceeded
        """
        await restore.end_sessions(self._server)

    async def _dump(self, folder: Path, progress: Progress) -> Manifest:
        progress(0, "looking at the database")
        description = await self._server.describe()
        try:
            programs = await self._programs(description.version[0])
        except NoPrograms as none:
            raise Precondition(str(none)) from none
        if missing := await missing_to_dump(self._server):
            raise PrivilegeMissing(
                " ".join(["The engine account may not read everything.", *missing]), privilege="to read everything"
            )
        (counts,) = await self._server.read(contents.COUNTS)
        whole = max(1, counts["bytes"])
        dump = folder / DUMP

        def tell() -> None:
            written = dump.stat().st_size if dump.exists() else 0
            words = f"{restore.megabytes(written)} written, compressed; the database takes {restore.megabytes(whole)}"
            progress(min(LARGEST_SHARE, 100 * written / whole), words)

        argv = [
            programs.pg_dump,
            "--format=custom",
            f"--file={dump}",
            "--no-password",
            "--no-subscriptions",
            f"--lock-wait-timeout={1000 * LOCK_SECONDS}",
        ]
        async with watching(self._server, DUMPING) as blockers:
            try:
                with logging_in(self._server.address) as environment:
                    await run_tool(argv, environment=environment, watch=tell)
            except BackupFailed as failed:
                if blockers.rows:
                    raise Conflict(f"Tables are locked, by {blockers}. {failed.message}") from failed
                raise
        progress(LARGEST_SHARE, "checking the dump")
        entries = await table_of_contents(programs, dump)
        held = await contents.read_live(self._server, len(entries))
        await contents.write(folder, held)
        return await write_manifest(
            folder,
            engine="postgresql",
            flavour=None,
            readable_version=description.readable_version,
            database=self._server.address.database,
            tool=str(programs),
            notes=await self._notes(held)
            + [f"To restore this: {reason}" for reason in await code_of_others(self._server, programs, dump, entries)],
        )

    async def _notes(self, held: contents.Contents) -> list[str]:
        """Tell what is not in a dump, and what a restore of it would need that the account has not."""
        notes = [f"To restore this: {reason}" for reason in await missing_to_replace(self._server)]
        notes += await locks.doubts(self._server, held)
        if subscriptions := await self._server.read(contents.SUBSCRIPTIONS):
            notes.append(f"Not in it: the subscriptions {', '.join(row['name'] for row in subscriptions)}.")
        return notes

    async def _read(self, folder: Path) -> Backup:
        manifest = await read_manifest(folder)
        if manifest.engine != "postgresql":
            raise BackupDamaged(f"This is a backup of {manifest.engine}.")
        held = await contents.read(folder)
        try:
            programs = await self._programs(parse_version(manifest.tool)[0])
        except NoPrograms as none:
            raise Precondition(str(none)) from none
        entries = await table_of_contents(programs, folder / DUMP)
        if len(entries) != held.entries:
            raise BackupDamaged(f"The dump has {len(entries)} entries and not {held.entries}.")
        return Backup(dump=folder / DUMP, manifest=manifest, contents=held, entries=entries, programs=programs)

    async def _programs(self, at_least: int) -> Programs:
        folders = await in_own_thread(usual_folders) if self._folders is None else self._folders
        return await find_programs(at_least, folders)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
