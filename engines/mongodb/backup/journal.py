"""What a restore notes down in the logical database itself, so that another process can finish or undo it.

The journal is there before anything is loaded and goes when all is done. While its state is `loading` a restore is
undone, from `swapping` on it is finished: all that is needed for it is on the server by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import bson
from bson.raw_bson import RawBSONDocument

from engines.errors import BackupFailed, Conflict, ConnectionLost
from engines.mongodb.backup.connection import Connection
from engines.mongodb.backup.files import Backup, Collection
from engines.mongodb.driver import refuse_late

JOURNAL = "dbvalet_restore"
"""The collection. Those that are loaded are called dbvalet_restore_1 and so on, and stand in it by name."""

HEAD = "restore"
"""The `_id` of the document that tells the state."""

State = Literal["loading", "swapping"]

# On disk, and on most members of a replica set: with all that was written before.
DURABLE: dict[str, Any] = {"w": "majority", "j": True}

FOREIGN = (
    f'A collection "{JOURNAL}" is in the way: dbvalet makes one of this name while it restores, and did not make this '
    "one. Rename or drop it."
)


TAKEN_AWAY = "Somebody took the journal of the restore away."


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One collection of the backup, and where its documents are until the swap."""

    collection: Collection
    temporary: str


async def state(connection: Connection, run: str | None = None) -> State | None:
    """Tell how far a restore came; None when none was interrupted, or not that run of one which is asked about.

    Raises: Conflict, when the collection is somebody else's
    """
    reply = await connection.ask({"find": JOURNAL, "filter": {"_id": HEAD}, "limit": 1, "singleBatch": True})
    found: list[Mapping[str, Any]] = reply["cursor"]["firstBatch"]
    if found and found[0].get("by") == "dbvalet":
        return found[0]["state"] if run in (None, found[0].get("run")) else None
    reply = await connection.ask({"find": JOURNAL, "limit": 1, "singleBatch": True})
    if reply["cursor"]["firstBatch"]:
        raise Conflict(FOREIGN)
    return None


async def is_there(connection: Connection) -> bool:
    """Tell whether an interrupted restore waits to be finished or undone; a foreign collection is an ordinary one."""
    reply = await connection.ask(
        {"find": JOURNAL, "filter": {"_id": HEAD, "by": "dbvalet"}, "limit": 1, "singleBatch": True}
    )
    return bool(reply["cursor"]["firstBatch"])


async def begin(connection: Connection, backup: Backup, taken: set[str], run: str) -> list[Entry]:
    """Note down what is going to be restored; `taken` are the names that are there, `run` tells this from any other.

    Raises: BackupFailed, PrivilegeMissing, EngineUnavailable
    """
    taken = {*taken, *(each.name for each in backup.collections)}
    free = (name for number in count(1) if (name := f"{JOURNAL}_{number}") not in taken)
    entries = [Entry(collection=each, temporary=next(free)) for each in backup.collections]
    made = backup.manifest.created_at.isoformat()
    await _insert(connection, {"_id": HEAD, "by": "dbvalet", "state": "loading", "backup": made, "run": run})
    for number, entry in enumerate(entries):
        await _insert(
            connection,
            {
                "_id": number,
                "name": entry.collection.name,
                "kind": entry.collection.kind,
                # As binary: older servers refuse documents with `$` and `.` in the names of their fields.
                "options": entry.collection.options,
                "indexes": [*entry.collection.indexes],
                "documents": entry.collection.documents,
                "temporary": entry.temporary,
            },
        )
    return entries


async def _insert(connection: Connection, document: dict[str, Any]) -> None:
    reply = await connection.ask(
        {"insert": JOURNAL, "documents": [RawBSONDocument(bson.encode(document))], "writeConcern": DURABLE}
    )
    refuse_write_errors(reply)


async def entries(connection: Connection) -> list[Entry]:
    """Read what was noted down."""
    command = {"find": JOURNAL, "filter": {"temporary": {"$exists": True}}, "sort": {"_id": 1}}
    return [
        Entry(
            collection=Collection(
                name=each["name"],
                kind=each["kind"],
                options=bytes(each["options"]),
                indexes=[*map(bytes, each["indexes"])],
                documents=each["documents"],
            ),
            temporary=each["temporary"],
        )
        async for batch in connection.batches(command)
        for each in batch
    ]


async def decide(connection: Connection, run: str) -> None:
    """Say that there is no way back: from here on the restore is finished, whatever happens.

    Raises: Conflict, when another one has taken it over; ConnectionLost, when it is not known whether that was heard
    """
    try:
        reply = await connection.ask(
            {
                "update": JOURNAL,
                "updates": [{"q": {"_id": HEAD, "run": run}, "u": {"$set": {"state": "swapping"}}}],
                "writeConcern": DURABLE,
            }
        )
        refuse_write_errors(reply)
    except ConnectionLost:
        if await state(connection, run) != "swapping":
            raise
    if await state(connection, run) != "swapping":
        raise Conflict(TAKEN_AWAY)


def refuse_write_errors(reply: Mapping[str, Any]) -> None:
    """Raises: BackupFailed, when a write of the command was refused; NotOnMost, when it may be on the primary alone."""
    errors: Sequence[Mapping[str, Any]] = reply.get("writeErrors", [])
    if errors:
        raise BackupFailed(f"MongoDB did not write it: {errors[0].get('errmsg', 'no text')}")
    refuse_late(reply)
