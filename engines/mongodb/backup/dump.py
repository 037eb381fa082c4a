"""Write a logical database into files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pymongo
from bson.timestamp import Timestamp

from engines.address import Address
from engines.backup import Manifest, Progress, write_manifest
from engines.errors import BackupFailed, Conflict
from engines.mongodb.backup.catalogue import collections_of
from engines.mongodb.backup.connection import FIRST_DOCUMENTS, Connection, Deployment, SnapshotLost
from engines.mongodb.backup.files import Collection, data_of, write_metadata
from engines.mongodb.backup.journal import is_there
from engines.mongodb.driver import NamespaceNotFound
from engines.threads import in_own_thread

ATTEMPTS = 3
"""How often a dump begins again when collections are dropped, renamed or changed while it reads them."""

NO_SNAPSHOT = (
    "Not of one point in time: documents written while the backup was made may be in it or not, in each collection "
    "for itself. A replica set of MongoDB 5.0 or later (one member is enough) gives backups of one instant."
)
SNAPSHOT_TOO_OLD = (
    "Not of one point in time: reading took longer than MongoDB keeps an instant. Raise "
    "minSnapshotHistoryWindowInSeconds (setParameter) above the duration of a backup."
)
ACCOUNTS = "Users and roles are not in it: MongoDB keeps them in the admin database. A restore leaves them as they are."


class Moved(Exception):
    """A collection was dropped, renamed or changed while it was read."""


async def dump(address: Address, folder: Path, progress: Progress) -> Manifest:
    """Write every collection, view, index and function of the logical database.

    Raises: BackupFailed, Conflict, EngineUnavailable, PrivilegeMissing, OSError
    """
    connection = Connection(address)
    try:
        deployment = await connection.deployment()
        await _refuse_half_restored(connection)
        return await _dump_until_still(connection, deployment, folder, progress)
    except BaseException:
        await in_own_thread(_empty, folder)
        raise
    finally:
        await connection.close()


async def _refuse_half_restored(connection: Connection) -> None:
    if await is_there(connection):
        raise Conflict("A restore was interrupted here; finish or undo it first (clean up).")


async def _dump_until_still(
    connection: Connection, deployment: Deployment, folder: Path, progress: Progress
) -> Manifest:
    with_snapshot, notes = deployment.has_snapshots, [ACCOUNTS]
    if not with_snapshot:
        notes.append(NO_SNAPSHOT)
    for _ in range(ATTEMPTS + 1):
        try:
            await _dump_once(connection, folder, progress, with_snapshot=with_snapshot)
        except (Moved, NamespaceNotFound):
            await in_own_thread(_empty, folder)
        except SnapshotLost:
            await in_own_thread(_empty, folder)
            with_snapshot = False
            notes.append(SNAPSHOT_TOO_OLD)
        else:
            return await write_manifest(
                folder,
                engine="mongodb",
                flavour=None,
                readable_version=deployment.readable_version,
                database=connection.database,
                tool=f"raw BSON by pymongo {pymongo.version}",
                notes=notes,
            )
    raise BackupFailed("Collections are dropped, renamed or changed all the time: try again when that is over.")


async def _dump_once(connection: Connection, folder: Path, progress: Progress, *, with_snapshot: bool) -> None:
    before = await collections_of(connection)
    instant = await _instant(connection) if with_snapshot else None
    counts = {each.name: await _estimate(connection, each) for each in before.values()}
    total, done = sum(counts.values()), 0
    for collection in before.values():
        documents = 0
        if collection.has_documents:
            for_person = f"documents of {collection.name}"
            with data_of(folder, collection).open("wb") as file:
                async for batch in connection.raw_batches(_find(collection.name, instant)):
                    await in_own_thread(file.writelines, batch)
                    documents += len(batch)
                    done += len(batch)
                    progress(95 * done / max(total, done), for_person)
        await in_own_thread(write_metadata, folder, replace(collection, documents=documents))
    after = await collections_of(connection)
    if any(after.get(name) != collection for name, collection in before.items()):
        raise Moved
    progress(95, "checksums")


def _find(name: str, instant: Timestamp | None) -> dict[str, Any]:
    command: dict[str, Any] = {"find": name, "batchSize": FIRST_DOCUMENTS}
    if instant is not None:
        command["readConcern"] = {"level": "snapshot", "atClusterTime": instant}
    return command


async def _instant(connection: Connection) -> Timestamp:
    """Give the server's latest instant, which reads wait for until most members have it."""
    return (await connection.ask({"ping": 1}, database="admin"))["operationTime"]


async def _estimate(connection: Connection, collection: Collection) -> int:
    """Count from the metadata; on a time-series collection that would read all of it."""
    if collection.kind not in ("collection", "functions"):
        return 0
    return int((await connection.ask({"count": collection.name}))["n"])


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
