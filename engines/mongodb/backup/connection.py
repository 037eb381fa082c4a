"""A connection of its own for one dump or restore, so that actions find theirs free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo import errors as driver_errors
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.read_preferences import ReadPreference

from engines import errors
from engines.address import Address
from engines.mongodb.backup.rights import MONGOS, SHARDED
from engines.mongodb.driver import Client, text_of

# Dates that Python has not are possible in MongoDB, even as an _id.
RAW = CodecOptions(document_class=RawBSONDocument, datetime_conversion=DatetimeConversion.DATETIME_AUTO)

SILENCE_SECONDS = 120.0
"""How long a batch or a small command may take. Building an index and renaming have no limit."""

BATCH_BYTES = 2 * 1024 * 1024
"""About what is asked for and sent at a time. The server itself ends a batch at 16 MiB, the size of one document."""

FIRST_DOCUMENTS, MOST_DOCUMENTS = 20, 10_000

BEYOND_SIZE = {2: 4, 5: 5, 13: 4, 14: 4}
"""Bytes that a BSON string, binary or code has beyond the size that it begins with."""

FIXED = {1: 8, 7: 12, 8: 1, 9: 8, 10: 0, 16: 4, 17: 8, 18: 8, 19: 16}
"""Bytes of the BSON types that have always as many; documents and arrays begin with their size."""

SNAPSHOT_LOST = frozenset({239, 246})
"""SnapshotTooOld and SnapshotUnavailable."""

SNAPSHOT_SINCE = (5, 0)


class SnapshotLost(errors.BackupFailed):
    """MongoDB no longer keeps the instant of this backup."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What a dump or a restore has to know of the server."""

    version: tuple[int, ...]
    readable_version: str
    replica_set: str | None

    @property
    def has_snapshots(self) -> bool:
        """Whether reads of several collections can be of one instant."""
        return self.replica_set is not None and self.version >= SNAPSHOT_SINCE


class Connection(Client):
    """Runs commands of any length on the primary, in one session, and gives documents as the bytes that they are."""

    def __init__(self, address: Address) -> None:
        """Read the URL; connects when the first command is sent."""
        super().__init__(address, 1)
        self.database = address.database
        self._session: AsyncClientSession | None = None

    async def ask(
        self, command: Mapping[str, Any], *, database: str | None = None, limit: float | None = SILENCE_SECONDS
    ) -> RawBSONDocument:
        """Run a command once and give its answer, whose documents are raw.

        Raises: EngineUnavailable, ConnectionLost, PrivilegeMissing, what stands in `driver.CAUSES`, and BackupFailed
        for what else the server refuses
        """
        try:
            with self._named_causes():
                async with asyncio.timeout(limit):
                    if self._session is None:
                        self._session = self._mongo.start_session()
                    return await self._mongo[database or self.database].command(
                        dict(command), codec_options=RAW, read_preference=ReadPreference.PRIMARY, session=self._session
                    )
        except TimeoutError:
            raise errors.EngineUnavailable(f"MongoDB did not answer for {SILENCE_SECONDS:g} s.") from None
        except driver_errors.OperationFailure as refused:
            cause = SnapshotLost if refused.code in SNAPSHOT_LOST else errors.BackupFailed
            raise cause(f"MongoDB refused {next(iter(command))}: {text_of(refused)}") from refused
        except driver_errors.PyMongoError as failed:
            raise errors.BackupFailed(f"The driver of MongoDB failed: {failed}") from failed

    async def batches(self, command: Mapping[str, Any]) -> AsyncGenerator[list[RawBSONDocument]]:
        """Run a command that gives a cursor, batch by batch: of about BATCH_BYTES, whatever its documents are."""
        async for batch in self.raw_batches(command):
            yield [RawBSONDocument(bytes(each), RAW) for each in batch]

    async def raw_batches(self, command: Mapping[str, Any]) -> AsyncGenerator[list[memoryview]]:
        """Do the same without a copy; a batch is emptied when the next one is asked for, so that there is one at most.

        As 16 MiB can be in one document, each copy of it would be felt.
        """
        cursor = (await self.ask(command))["cursor"]
        while True:
            batch = documents_in(cursor.raw)
            name, identity = cursor["ns"].partition(".")[2], cursor["id"]
            del cursor
            wanted = BATCH_BYTES * len(batch) // max(sum(map(len, batch)), 1) or 1
            if batch:
                yield batch
            batch.clear()
            if not identity:
                return
            command = {"getMore": identity, "collection": name, "batchSize": min(wanted, MOST_DOCUMENTS)}
            cursor = (await self.ask(command))["cursor"]

    async def deployment(self) -> Deployment:
        """Ask the server what it is.

        Raises: BackupFailed, for a sharded cluster
        """
        hello = await self.ask({"isMaster": 1}, database="admin")
        if hello.get("msg") == MONGOS:
            raise errors.BackupFailed(SHARDED)
        build = await self.ask({"buildInfo": 1}, database="admin")
        return Deployment(
            version=tuple(build["versionArray"][:3]),
            readable_version=build["version"],
            replica_set=hello.get("setName"),
        )


def documents_in(cursor: bytes) -> list[memoryview]:
    """Find the documents of a batch in the BSON of a `cursor`, where the driver would copy each.

    https://bsonspec.org/spec.html
    """
    position = 4
    while cursor[position]:
        kind, (name, position) = cursor[position], _name_at(cursor, position + 1)
        if name in (b"firstBatch", b"nextBatch"):
            return [*_elements_of(cursor, position)]
        position += FIXED[kind] if kind in FIXED else _size_at(cursor, position) + BEYOND_SIZE.get(kind, 0)
    return []


def _elements_of(cursor: bytes, position: int) -> Iterator[memoryview]:
    view = memoryview(cursor)
    position += 4
    while cursor[position]:
        _, position = _name_at(cursor, position + 1)
        size = _size_at(cursor, position)
        yield view[position : position + size]
        position += size


def _name_at(cursor: bytes, position: int) -> tuple[bytes, int]:
    end = cursor.index(0, position)
    return cursor[position:end], end + 1


def _size_at(cursor: bytes, position: int) -> int:
    return int.from_bytes(cursor[position : position + 4], "little")
