"""Bring a logical database back: load beside what is there, check, swap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

from bson.raw_bson import RawBSONDocument

from engines.address import Address
from engines.backup import Progress
from engines.errors import BackupFailed, EngineError
from engines.mongodb.backup import journal
from engines.mongodb.backup.connection import Connection
from engines.mongodb.backup.files import Backup, Collection, batches_in, data_of, read_backup
from engines.mongodb.backup.journal import Entry, refuse_write_errors
from engines.mongodb.backup.swap import (
    create,
    create_indexes,
    drop,
    finish,
    names_of_indexes,
    present,
    settle,
    wrap,
)
from engines.threads import in_own_thread

DUPLICATE_KEY = 11000

EXPIRING = (
    "These delete documents by their age, and the server does so within a minute of the restore: {}. "
    "Documents of the backup that are past their time are gone then."
)


async def restore(address: Address, folder: Path, progress: Progress) -> list[str]:
    """Load a dump into fresh collections of the same logical database, check them, and swap them in.

    A plain collection is replaced in one step. A time-series collection, which MongoDB cannot rename, is dropped and
    filled again from its loaded copy; then collections that are not in the backup go, then views and functions come.

    Raises: BackupDamaged, BackupFailed, Conflict, EngineUnavailable, PrivilegeMissing
    """
    backup = await read_backup(folder)
    connection = Connection(address)
    try:
        await connection.deployment()
        await settle(connection)
        before = set(await present(connection))
        run = token_hex(8)
        try:
            entries = await journal.begin(connection, backup, before, run)
            await _load(connection, backup, entries, progress)
            await journal.decide(connection, run)
        except BaseException as failure:
            await _undo_after(connection, run, failure)
            raise
        progress(90, "the restored collections take their places")
        await finish(connection, run)
        progress(100, "done")
    finally:
        await connection.close()
    return _notes(backup, before)


async def clean_up(address: Address) -> None:
    """Finish or undo an interrupted restore.

    Raises: BackupFailed, Conflict, EngineUnavailable, PrivilegeMissing
    """
    connection = Connection(address)
    try:
        if await journal.is_there(connection):
            await settle(connection)
    finally:
        await connection.close()


async def _undo_after(connection: Connection, run: str, failure: BaseException) -> None:
    """Take away what was loaded; when that fails too, the journal keeps it for `clean_up`, and the failure says so.

    Where another one has taken it over, what is there is that one's.
    """
    try:
        if await journal.state(connection, run) is not None:
            await settle(connection)
    except EngineError as also:
        failure.add_note(f"What was loaded is still there and is cleaned up later: {also.message}")


async def _load(connection: Connection, backup: Backup, entries: list[Entry], progress: Progress) -> None:
    total, done = sum(each.documents for each in backup.collections), 0
    for entry in entries:
        collection = entry.collection
        if collection.kind in ("view", "timeseries"):
            await _try_out(connection, entry)
        if not collection.has_documents:
            continue
        # Without the options and indexes of a time-series collection: what is past its time would be deleted at once.
        await create(connection, entry.temporary, collection if collection.kind == "collection" else None)
        with data_of(backup.folder, collection).open("rb") as file:
            batches = batches_in(file, collection.name)
            read = inserted = 0
            while (batch := await in_own_thread(next, batches, None)) is not None:
                if collection.kind == "timeseries":
                    wrap(batch, read)
                inserted += await _insert(connection, entry.temporary, batch)
                read += len(batch)
                done += len(batch)
                batch.clear()
                progress(90 * done / max(total, done), f"documents of {collection.name}")
        # Before there are indexes: one with an age limit would let the server delete documents.
        await _check_count(connection, entry, inserted)
        if collection.kind == "collection":
            progress(90 * done / max(total, done, 1), f"indexes of {collection.name}")
            await create_indexes(connection, entry.temporary, collection)
            await _check_indexes(connection, entry)


async def _try_out(connection: Connection, entry: Entry) -> None:
    """Let the server say whether it takes a view or a time-series collection, before anything is replaced."""
    options = entry.collection.options_document()
    if entry.collection.kind == "view":
        # On nothing, so that only the view itself is judged.
        options["viewOn"] = f"{entry.temporary}_source"
    await connection.ask({"create": entry.temporary, **options})
    if entry.collection.kind == "timeseries":
        await create_indexes(connection, entry.temporary, entry.collection)
    await drop(connection, entry.temporary)


async def _insert(connection: Connection, name: str, batch: list[RawBSONDocument]) -> int:
    """Insert documents in their order and give how many are new.

    A dump that is not of one instant can hold an `_id` twice, of a document that was deleted and made again: the
    later one is the truth.
    """
    inserted = 0
    while batch:
        reply = await connection.ask({"insert": name, "documents": batch, "bypassDocumentValidation": True})
        inserted += int(reply["n"])
        errors = reply.get("writeErrors", [])
        if not errors:
            refuse_write_errors(reply)
            break
        if errors[0]["code"] != DUPLICATE_KEY:
            refuse_write_errors(reply)
        at = int(errors[0]["index"])
        await _replace(connection, name, batch[at])
        batch = batch[at + 1 :]
    return inserted


async def _replace(connection: Connection, name: str, document: RawBSONDocument) -> None:
    update = {"q": {"_id": document["_id"]}, "u": document}
    reply = await connection.ask({"update": name, "updates": [update], "bypassDocumentValidation": True})
    refuse_write_errors(reply)


async def _check_count(connection: Connection, entry: Entry, inserted: int) -> None:
    found = int((await connection.ask({"count": entry.temporary}))["n"])
    if entry.collection.kind == "timeseries":
        # None of them can have replaced another.
        inserted = entry.collection.documents
    # A capped collection that was written to during the dump may have given more than it holds.
    capped = bool(entry.collection.options_document().get("capped"))
    if found != inserted and not (capped and found < inserted):
        raise BackupFailed(f"{entry.collection.name}: {inserted} documents were written and {found} are there.")


async def _check_indexes(connection: Connection, entry: Entry) -> None:
    wanted = {each["name"] for each in entry.collection.index_documents()}
    found = await names_of_indexes(connection, entry.temporary)
    if found != wanted:
        raise BackupFailed(
            f"{entry.collection.name}: the indexes {', '.join(sorted(wanted ^ found))} are not as in the backup."
        )


def _notes(backup: Backup, before: set[str]) -> list[str]:
    names = {each.name for each in backup.collections}
    return [*_tell(backup, before - names), *_expiring(backup.collections)]


def _tell(backup: Backup, dropped: set[str]) -> Iterator[str]:
    made = f"{backup.manifest.created_at:%Y-%m-%d %H:%M:%S %Z}"
    yield f"{len(backup.collections)} collections and views are as they were at {made}; users were not touched."
    if dropped:
        yield f"Dropped, as they are not in the backup: {', '.join(sorted(dropped))}."


def _expiring(collections: Any) -> Iterator[str]:
    expiring: list[Collection] = [each for each in collections if each.expires()]
    if expiring:
        yield EXPIRING.format(", ".join(each.name for each in expiring))
