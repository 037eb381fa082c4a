"""What there is in a logical database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from engines.mongodb.backup.connection import Connection
from engines.mongodb.backup.files import Collection, Kind
from engines.mongodb.backup.rights import FUNCTIONS

HAVE_INDEXES = ("collection", "timeseries")


async def collections_of(connection: Connection, *, with_indexes: bool = True) -> dict[str, Collection]:
    """List collections and views, by name; system collections but the functions are the server's own affair."""
    found: dict[str, Collection] = {}
    async for batch in connection.batches({"listCollections": 1}):
        for each in batch:
            name: str = each["name"]
            kind = cast("Kind", each.get("type", "collection"))
            if name == FUNCTIONS:
                kind = "functions"
            elif name.startswith("system."):
                continue
            found[name] = Collection(
                name=name,
                kind=kind,
                options=each["options"].raw,
                indexes=await indexes_of(connection, name) if with_indexes and kind in HAVE_INDEXES else (),
                uuid=_uuid(each.get("info", {})),
            )
    return found


def _uuid(info: Mapping[str, Any]) -> bytes:
    return bytes(info.get("uuid", b""))


async def indexes_of(connection: Connection, name: str) -> list[bytes]:
    """List the indexes of a collection, each as the server describes it.

    Raises: NamespaceNotFound
    """
    return [bytes(each.raw) async for batch in connection.batches({"listIndexes": name}) for each in batch]
