"""Put loaded collections in the place of the old ones, so that a crash at any moment leaves one of them whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import bson
from bson.raw_bson import RawBSONDocument

from engines.errors import BackupFailed, Conflict
from engines.mongodb.backup import journal
from engines.mongodb.backup.catalogue import collections_of, indexes_of
from engines.mongodb.backup.connection import RAW, Connection
from engines.mongodb.backup.files import Collection, Kind
from engines.mongodb.backup.journal import DURABLE, JOURNAL, Entry, refuse_write_errors
from engines.mongodb.backup.rights import FUNCTIONS
from engines.mongodb.driver import NamespaceNotFound, refuse_late

T = TypeVar("T")

PATIENT_SECONDS = 60.0
"""How long to wait for an index that is being built, which keeps its collection from being renamed or dropped."""

POLL_SECONDS = 0.25

NOT_FOR_CREATE = frozenset({"autoIndexId", "flags", "uuid"})
"""Options of old storage engines, which no server creates any more."""

NOT_FOR_INDEXES = frozenset({"v", "ns"})
"""The server's own: the version of the format, and the collection's name up to 4.2."""


async def settle(connection: Connection) -> None:
    """Finish an interrupted restore that had begun to swap, undo one that had not; can itself be interrupted.

    Raises: BackupFailed, Conflict, EngineUnavailable, PrivilegeMissing
    """
    reached = await journal.state(connection)
    if reached == "swapping":
        await finish(connection)
    elif reached == "loading":
        for entry in await journal.entries(connection):
            await drop(connection, entry.temporary)
        await drop(connection, JOURNAL)


async def finish(connection: Connection, run: str | None = None) -> None:
    """Do what is left after the decision, of which any part may be done.

    Raises: BackupFailed, EngineUnavailable, PrivilegeMissing; Conflict, also when another one has finished it already
    """
    entries = await journal.entries(connection)
    # Without its journal all that is there would be taken for what is not in the backup.
    if await journal.state(connection, run) != "swapping":
        raise Conflict(journal.TAKEN_AWAY)
    kinds = await present(connection)
    for entry in _waiting(entries, kinds, "collection"):
        # A view or a time-series collection cannot be the target of a renaming.
        if kinds.get(entry.collection.name) in ("view", "timeseries"):
            await drop(connection, entry.collection.name)
        await _rename(connection, entry.temporary, entry.collection.name)
    for entry in _waiting(entries, kinds, "timeseries"):
        await _fill_time_series(connection, entry)
    await _drop_others(connection, entries)
    await _create_views(connection, entries)
    await _restore_functions(connection, entries)
    await drop(connection, JOURNAL)


def _waiting(entries: list[Entry], kinds: dict[str, Kind], kind: Kind) -> list[Entry]:
    return [each for each in entries if each.collection.kind == kind and each.temporary in kinds]


async def present(connection: Connection) -> dict[str, Kind]:
    """List the kinds of all collections and views by name, functions included."""
    return {name: each.kind for name, each in (await collections_of(connection, with_indexes=False)).items()}


async def create(connection: Connection, name: str, like: Collection | None) -> None:
    """Create a collection with the options of another, or a plain one."""
    options = like.options_document() if like else {}
    options = {key: value for key, value in options.items() if key not in NOT_FOR_CREATE}
    await _durably(connection, {"create": name, **options})


async def create_indexes(connection: Connection, name: str, like: Collection) -> None:
    """Build the indexes that another collection had, in one pass over the documents; takes as long as it takes."""
    there = await names_of_indexes(connection, name)
    indexes = [
        {key: value for key, value in each.items() if key not in NOT_FOR_INDEXES}
        for each in like.index_documents()
        # The one on _id and that of a clustered collection are there from the beginning.
        if each["name"] not in there
    ]
    if indexes:
        await _durably(connection, {"createIndexes": name, "indexes": indexes}, limit=None)


async def names_of_indexes(connection: Connection, name: str) -> set[str]:
    """List the names of the indexes of a collection."""
    return {RawBSONDocument(each)["name"] for each in await indexes_of(connection, name)}


async def drop(connection: Connection, name: str) -> None:
    """Drop a collection or a view, or find it gone."""
    try:
        await _patiently(lambda: _durably(connection, {"drop": name}))
    except NamespaceNotFound:
        return  # as it should be


async def _rename(connection: Connection, name: str, to: str) -> None:
    own = connection.database
    command = {"renameCollection": f"{own}.{name}", "to": f"{own}.{to}", "dropTarget": True}
    await _patiently(lambda: _durably(connection, command, database="admin", limit=None))


async def _durably(connection: Connection, command: dict[str, Any], **options: Any) -> None:
    """Run a step of which the next ones may be sure, though another member becomes primary in between.

    Raises: NotOnMost, and as `Connection.ask`
    """
    refuse_late(await connection.ask({**command, "writeConcern": DURABLE}, **options))


def wrap(batch: list[RawBSONDocument], number: int) -> None:
    """Put each measurement into a document with a number of its own, beginning with this one, for its loaded copy.

    A time series may hold an `_id` more than once, or measurements without; a plain collection neither.
    """
    batch[:] = [RawBSONDocument(bson.encode({"_id": at, "m": each}), RAW) for at, each in enumerate(batch, number)]


def _unwrap(batch: list[RawBSONDocument]) -> list[RawBSONDocument]:
    return [each["m"] for each in batch]


async def _fill_time_series(connection: Connection, entry: Entry) -> None:
    """Make a time-series collection anew from its loaded copy, which goes last: until then this can begin again."""
    name = entry.collection.name
    await drop(connection, name)
    await create(connection, name, entry.collection)
    await create_indexes(connection, name, entry.collection)
    async for batch in connection.batches({"find": entry.temporary}):
        documents = _unwrap(batch)
        # Unordered, as each document would be a write of its own.
        reply = await connection.ask(
            {"insert": name, "documents": documents, "ordered": False, "writeConcern": DURABLE}
        )
        refuse_write_errors(reply)
        if int(reply["n"]) != len(batch):
            raise BackupFailed(f"{name}: of {len(batch)} documents MongoDB took {reply['n']}.")
    await drop(connection, entry.temporary)


async def _drop_others(connection: Connection, entries: list[Entry]) -> None:
    """Drop what is not in the backup, and views that are not as there."""
    wanted = {each.collection.name: each.collection for each in entries}
    kept = {JOURNAL, FUNCTIONS, *(each.temporary for each in entries)}
    for name, found in (await collections_of(connection, with_indexes=False)).items():
        same = name in wanted and wanted[name].kind == found.kind
        if same and found.kind == "view":
            same = wanted[name].options == found.options
        if not same and name not in kept:
            await drop(connection, name)


async def _create_views(connection: Connection, entries: list[Entry]) -> None:
    there = await present(connection)
    for entry in entries:
        # On what it looks does not matter: the server lets a view be there before its source is.
        if entry.collection.kind == "view" and entry.collection.name not in there:
            await create(connection, entry.collection.name, entry.collection)


async def _restore_functions(connection: Connection, entries: list[Entry]) -> None:
    """Bring the functions back one by one: system.js cannot be renamed nor dropped."""
    there = await present(connection)
    wanted: set[bytes] = set()
    entry = next((each for each in entries if each.collection.kind == "functions"), None)
    if entry is not None:
        if entry.temporary not in there:
            return  # which goes last
        async for batch in connection.batches({"find": entry.temporary}):
            for each in batch:
                wanted.add(bson.encode({"_id": each["_id"]}))
                update = {"q": {"_id": each["_id"]}, "u": each, "upsert": True}
                refuse_write_errors(
                    await connection.ask({"update": FUNCTIONS, "updates": [update], "writeConcern": DURABLE})
                )
    if FUNCTIONS in there:
        gone = [
            each["_id"]
            async for batch in connection.batches({"find": FUNCTIONS, "projection": {"_id": 1}})
            for each in batch
            if bson.encode({"_id": each["_id"]}) not in wanted
        ]
        if gone:
            deletes = [{"q": {"_id": each}, "limit": 1} for each in gone]
            refuse_write_errors(
                await connection.ask({"delete": FUNCTIONS, "deletes": deletes, "writeConcern": DURABLE})
            )
    if entry is not None:
        await drop(connection, entry.temporary)


async def _patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try again while another operation is in the way, an index that is being built for example."""
    deadline = time.monotonic() + PATIENT_SECONDS
    while True:
        try:
            return await attempt()
        except Conflict:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(POLL_SECONDS)
