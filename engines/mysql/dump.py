"""Dump a logical database into a folder: `tables.sql` by the server's own tool, `program.sql`, `contents.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engines.address import Address
from engines.backup import Manifest, Progress, read_manifest, write_manifest
from engines.errors import BackupDamaged, BackupFailed, Conflict, EngineError, Precondition
from engines.mysql import contents, program, tools
from engines.mysql.backup_rights import demand, missing_to_dump
from engines.mysql.changes import Structure, changes, gone, read_structure
from engines.mysql.connection import connected
from engines.mysql.contents import PROGRAM, TABLES, Contents, Inventory
from engines.mysql.identifiers import shown
from engines.mysql.journal import places_of
from engines.mysql.program import ProgramObject
from engines.threads import in_own_thread

ATTEMPTS = 3
"""How often a dump begins again when tables or program objects change while it is made."""

MOST_TOLD = 5
"""Changes."""

LARGEST_PACKET = "SELECT @@GLOBAL.max_allowed_packet"


class Moved(Exception):
    """Tables or program objects were made, changed or renamed while they were dumped; the text says which."""

    def __init__(self, text: str, failed: BackupFailed | None = None) -> None:
        """`failed`: what the dump program said, where nothing else shows that something changed."""
        super().__init__(text)
        self.failed = failed


async def dump(address: Address, folder: Path, progress: Progress) -> Manifest:
    """Write a dump into an empty folder; begin again when the structure changes meanwhile.

    Raises: BackupFailed, Conflict (the structure changes all the time), LogicalDatabaseNotFound, Precondition,
        PrivilegeMissing, EngineUnavailable, OSError
    """
    told = Moved("")
    for _ in range(ATTEMPTS + 1):
        try:
            return await _dump_once(address, folder, progress)
        except Moved as moved:
            told = moved
    raise told.failed or Conflict(
        f"The structure of {shown(address.database)} changed each time while it was dumped: {told}. No backup was "
        "made: try again when that is over."
    )


async def _dump_once(address: Address, folder: Path, progress: Progress) -> Manifest:
    async with connected(address) as connection:
        facts = connection.facts
        try:
            dumper = await tools.find_dumper(facts)
        except tools.NoTool as none:
            raise Precondition(str(none)) from none
        database = await connection.run(lambda session: places_of(session, address.database).database)
        await connection.run(lambda session: demand(missing_to_dump(session, database)))
        before = await connection.run(lambda session: contents.take_inventory(session, database))
        structure = await connection.run(lambda session: read_structure(session, database))
        encrypted = await connection.is_encrypted()
    target = folder / TABLES

    def watch() -> None:
        written = target.stat().st_size
        share = min(1.0, written / max(1, before.data_bytes))
        progress(90 * share, f"{megabytes(written)} written; the tables take about {megabytes(before.data_bytes)}")

    progress(0, f"Dumping {len(before.tables)} tables of {database}")
    with tools.logging_in(address, facts.flavour, encrypted=encrypted) as login:
        try:
            await tools.dump_tables(
                dumper, login, facts, database=database, left_out=before.views, target=target, watch=watch
            )
        except BackupFailed as failed:
            raise await _why(address, structure, database, failed) from failed
    # A connection that was kept meanwhile might have been cut for its silence.
    async with connected(address) as connection:
        progress(91, "Reading views, routines, triggers and events")
        since = await connection.run(lambda session: read_structure(session, database))
        after = await connection.run(lambda session: contents.take_inventory(session, database))
        packet = (await connection.execute(LARGEST_PACKET))[0][0]
    if changed := changes(structure, since):
        raise Moved(listed(changed))
    objects = since.objects
    await in_own_thread((folder / PROGRAM).write_bytes, program.write(objects, database, before.collation))
    progress(93, "Checking what was written")
    await in_own_thread(contents.check_trailer, target)
    tables, longest = await in_own_thread(contents.scan, target)
    # What an application makes or drops meanwhile may be in it or not.
    lacking = sorted(set(before.tables) & set(after.tables) - set(tables))
    if lacking:
        raise BackupFailed(f"{dumper} left out {', '.join(map(shown, lacking))}.")
    found = Contents(
        format=contents.FORMAT,
        character_set=before.character_set,
        collation=before.collation,
        tables=tables,
        sequences=[name for name in tables if name in {*before.sequences, *after.sequences}],
        longest_statement=longest,
        data_bytes=before.data_bytes,
    )
    await in_own_thread(contents.write_contents, folder, found)
    manifest = await write_manifest(
        folder,
        engine="mysql",
        flavour=facts.flavour,
        readable_version=facts.readable_version,
        database=database,
        tool=str(dumper),
        notes=[
            *notes_of(before, objects, history=tools.dumps_history(dumper, facts)),
            *(["The server's max_allowed_packet must be raised to restore it."] if longest > packet else []),
        ],
    )
    progress(100, f"{megabytes(sum(file.size for file in manifest.files.values()))} written and checked")
    return manifest


async def _why(address: Address, structure: Structure, database: str, failed: BackupFailed) -> Moved | BackupFailed:
    """Tell whether the dump program failed as the structure changed under it."""
    try:
        async with connected(address) as connection:
            since = await connection.run(lambda session: read_structure(session, database))
    except EngineError:
        return failed
    if changed := [*changes(structure, since), *gone(structure, since)]:
        return Moved(listed(changed))
    # A table may have been emptied, or made and dropped since.
    return Moved(failed.message, failed) if isinstance(failed, tools.Overtaken) else failed


def listed(changed: Sequence[str]) -> str:
    """Write changes for a person."""
    more = len(changed) - MOST_TOLD
    return ", ".join([*changed[:MOST_TOLD], *([f"and {more} more"] if more > 0 else [])])


def notes_of(inventory: Inventory, objects: Sequence[ProgramObject], *, history: bool) -> list[str]:
    """Say what a person should know before restoring a dump."""
    notes: list[tuple[str, Sequence[str]]] = [
        ("Not of one moment, as their engine has no transactions", inventory.without_snapshot),
        ("Without their history, which mariadb-dump keeps since 10.11", [] if history else inventory.versioned),
        ("With FLOAT columns, which the server writes with 6 digits: more are lost", inventory.rounded),
        (
            "Views that are left out, as they name what is no longer there",
            [each.name for each in objects if each.broken],
        ),
    ]
    told = [f"{note}: {', '.join(map(shown, names))}." for note, names in notes if names]
    return ["Accounts and their privileges are not in it.", *told]


async def verify(folder: Path) -> Manifest:
    """Check a dump without the server.

    Raises: BackupDamaged
    """
    manifest = await read_manifest(folder)
    if not {TABLES, PROGRAM, contents.CONTENTS} <= set(manifest.files):
        raise BackupDamaged("The backup has not the files of one of MySQL or MariaDB.")
    await in_own_thread(contents.check_trailer, folder / TABLES)
    await in_own_thread(contents.read_contents, folder)
    program.read(await in_own_thread((folder / PROGRAM).read_bytes))
    return manifest


def megabytes(size: int) -> str:
    """Write a number of bytes for a person."""
    return f"{size / 1_000_000:.1f} MB"
