"""Restore a dump: check that it fits, load it beside the old data, try it, swap it in; or leave things as they were."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engines.address import Address
from engines.backup import Manifest, Progress
from engines.errors import (
    BackupFailed,
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    Precondition,
)
from engines.mysql import contents, program, program_objects, swap, tools
from engines.mysql.backup_rights import demand, missing_to_restore
from engines.mysql.causes import FileLeftBehind
from engines.mysql.connection import Connection, connected, lock_name
from engines.mysql.contents import PROGRAM, TABLES, Contents
from engines.mysql.dump import LARGEST_PACKET, megabytes, verify
from engines.mysql.facts import parse_version
from engines.mysql.identifiers import shown
from engines.mysql.journal import Places, places_of
from engines.mysql.program import ProgramObject
from engines.mysql.swap import Outcome
from engines.threads import in_own_thread

if TYPE_CHECKING:
    from engines.mysql.driver import Session
    from engines.mysql.facts import Facts

T = TypeVar("T")

logger = logging.getLogger(__name__)

COMES_BACK_SECONDS = 30.0
"""How long to wait for a server that went away during a restore, before leaving the rest to `clean_up`."""

SWAP_SECONDS = 60.0

TOO_LATE = "Cancelled too late: the tables had been swapped, so it was brought to its end."

SAYS_SOMETHING_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Backup:
    """A dump that was read and found whole."""

    folder: Path
    manifest: Manifest
    contents: Contents
    written: bytes
    """Its program objects, as they are in the file."""
    objects: Sequence[ProgramObject]


async def restore(address: Address, folder: Path, progress: Progress) -> list[str]:
    """Load a dump beside the logical database, check it there, and swap it in; give notes for a person.

    Raises: BackupDamaged, BackupFailed, Conflict, EngineUnavailable, Precondition, PrivilegeMissing
    """
    progress(0, "Checking the backup")
    backup = await read(folder)
    async with connected(address, lock_name("restore", address.database)) as connection:
        places = await connection.run(lambda session: places_of(session, address.database))
        await connection.run(lambda session: swap.settle(session, places))
        await connection.run(lambda session: check_fit(session, places, backup))
        replaced = await connection.run(lambda session: what_is_there(session, places.database))
        try:
            await load(connection, address, places, backup, progress)
            progress(86, "Checking what was loaded")
            await connection.run(lambda session: swap.try_out(session, places, backup.contents, backup.objects))
            progress(92, "Swapping the tables")
            await connection.run(lambda session: swap.swap(session, places, backup.contents), seconds=SWAP_SECONDS)
            progress(94, "Making views, routines, triggers and events, and dropping the old tables")
            outcome, too_late = await to_the_end(connection.run(lambda session: swap.settle(session, places)))
        except (asyncio.CancelledError, ConnectionLost, DeadlineExceeded) as stopped:
            # What was stopped may have been the swap itself, and done.
            await connection.close()
            outcome, too_late = await to_the_end(_settle(address, places))
            if outcome is not Outcome.FINISHED:
                raise
            if isinstance(stopped, asyncio.CancelledError):
                too_late = _go_on()
        except BaseException:
            await connection.close()
            await to_the_end(_settle(address, places))
            raise
    if outcome is not Outcome.FINISHED:
        raise BackupFailed("Somebody else took away what was restored before it was in its place.")
    lacked, cancelled = await to_the_end(_lacking(address, places, backup))
    progress(100, "Restored")
    return [
        f"{replaced} The backup is of {backup.manifest.created_at:%Y-%m-%d %H:%M:%S} UTC.",
        *(
            f"The {each} was broken when the backup was made, and is not made again."
            for each in backup.objects
            if each.broken
        ),
        *lacked,
        *([TOO_LATE] if too_late or cancelled else []),
    ]


async def clean_up(address: Address) -> None:
    """Finish or undo what an interrupted restore left behind.

    Raises: BackupFailed, Conflict, DeadlineExceeded, EngineUnavailable
    """
    async with connected(address, lock_name("restore", address.database)) as connection:
        await connection.run(lambda session: swap.settle(session, places_of(session, address.database)))


async def read(folder: Path) -> Backup:
    """Read a dump.

    Raises: BackupDamaged
    """
    manifest = await verify(folder)
    written = await in_own_thread((folder / PROGRAM).read_bytes)
    return Backup(
        folder=folder,
        manifest=manifest,
        contents=await in_own_thread(contents.read_contents, folder),
        written=written,
        objects=program.read(written),
    )


async def load(connection: Connection, address: Address, places: Places, backup: Backup, progress: Progress) -> None:
    """Load the tables into a logical database of their own.

    Raises: BackupFailed, Conflict, Precondition
    """
    try:
        client = await tools.find_client(connection.facts)
    except tools.NoTool as none:
        raise Precondition(str(none)) from none
    await connection.run(lambda session: swap.begin(session, places, backup.contents, backup.written))
    ended = asyncio.Event()

    async def tell() -> None:
        # It also shows the server, and whoever waits for the lock, that this restore is alive.
        expected = backup.contents.data_bytes
        while not ended.is_set():
            loaded = await connection.run(lambda session: contents.size_of(session, places.fresh))
            share = min(1.0, loaded / max(1, expected))
            progress(5 + 80 * share, f"{megabytes(loaded)} of about {megabytes(expected)} loaded")
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), SAYS_SOMETHING_SECONDS)

    encrypted = await connection.is_encrypted()
    with tools.logging_in(address, connection.facts.flavour, encrypted=encrypted) as login:
        telling = asyncio.create_task(tell())
        try:
            await tools.load(
                client,
                login,
                connection.facts.flavour,
                database=places.fresh,
                source=backup.folder / TABLES,
                lock=places.loader,
            )
        finally:
            ended.set()
            _, cancelled = await to_the_end(asyncio.wait({telling}))
        if cancelled:
            raise asyncio.CancelledError
        telling.result()


async def _settle(address: Address, places: Places) -> Outcome:
    """Settle what a restore itself left, on a new connection; the server may have to come back for that."""
    until = asyncio.get_running_loop().time() + COMES_BACK_SECONDS
    while True:
        try:
            async with connected(address, lock_name("restore", address.database)) as connection:
                return await connection.run(lambda session: swap.settle(session, places))
        except EngineError as failed:
            passes = isinstance(failed, EngineUnavailable | Conflict) and not isinstance(failed, FileLeftBehind)
            if not passes or asyncio.get_running_loop().time() > until:
                logger.warning("A restore of %s is left to be cleaned up: %s", places.database, failed)
                return Outcome.NOTHING
        await asyncio.sleep(0.2)


async def _lacking(address: Address, places: Places, backup: Backup) -> list[str]:
    """Tell what of the backup is not there after all; there is no way back by now, so nothing fails for it."""
    try:
        async with connected(address) as connection:
            return await connection.run(
                lambda session: program_objects.lacking(session, places.database, backup.objects)
            )
    except EngineError as failed:
        return [f"Whether all views, routines, triggers and events are there could not be read: {failed.message}"]


async def to_the_end(work: Coroutine[Any, Any, T]) -> tuple[T, bool]:
    """Wait for work that must not be stopped half-way; tell whether somebody wanted to."""
    task, wanted = asyncio.create_task(work), False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            wanted = _go_on()
    return task.result(), wanted


def _go_on() -> bool:
    """Take back the cancellation of this task: what it was told to stop has been done."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    return True


def what_is_there(session: Session, database: str) -> str:
    """Say what a restore replaces."""
    if not contents.database_exists(session, database):
        return f"The logical database {shown(database)} was made anew."
    kinds = contents.tables_in(session, database)
    tables = sum(kind not in contents.VIEWS for kind in kinds.values())
    others = len(list(program_objects.names_of(session, database)))
    return f"{tables} tables and {others} views, routines, triggers and events of {shown(database)} were replaced."


def check_fit(session: Session, places: Places, backup: Backup) -> None:
    """Refuse a restore that cannot succeed, before anything is changed.

    Raises: BackupFailed (of another engine, flavour, version or database), Conflict, Precondition, PrivilegeMissing
    """
    check_origin(session.facts, backup.manifest, places.database)
    demand(missing_to_restore(session, places.database, places.fresh, places.before))
    swap.check_nothing_is_in_the_way(session, places)
    swap.check_references(session, places, backup.contents)
    packet = session.execute(LARGEST_PACKET)[0][0]
    longest = backup.contents.longest_statement
    if longest > packet:
        raise Precondition(
            f"The backup has a row that takes {longest} bytes to write, and the server takes {packet}. "
            f"Remedy: SET GLOBAL max_allowed_packet = {(longest // 1024 + 2) * 1024};"
        )


def check_origin(facts: Facts, manifest: Manifest, database: str) -> None:
    """Raises: BackupFailed, when a backup is of another engine, flavour or database, or of a newer version."""
    if (manifest.engine, manifest.flavour) != ("mysql", facts.flavour):
        raise BackupFailed(
            f"The backup is of {manifest.readable_version} ({manifest.flavour or manifest.engine}), the server is "
            f"{facts.readable_version}: nothing was changed."
        )
    if parse_version(manifest.readable_version)[:2] > facts.version[:2]:
        raise BackupFailed(
            f"The backup is of the newer version {manifest.readable_version}, the server is {facts.readable_version}: "
            "nothing was changed."
        )
    same = manifest.database.lower() == database.lower() if facts.folds_case else manifest.database == database
    if not same:
        raise BackupFailed(
            f"The backup is of the logical database {shown(manifest.database)}, not of {shown(database)}: "
            "nothing was changed."
        )
