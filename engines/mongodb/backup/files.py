"""The files of a dump: NAME.bson with the documents as they are, NAME.metadata.json with what the collection is.

The metadata are canonical extended JSON for people and other tools. That JSON cannot say everything: it reads the
operators `$regex` and `$ref` as values. So the exact BSON stands in it too, and is what is restored.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args
from urllib.parse import quote

import bson
from bson import json_util
from bson.binary import Binary
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from engines.backup import Manifest, read_manifest
from engines.errors import BackupDamaged
from engines.mongodb.backup.connection import BATCH_BYTES, MOST_DOCUMENTS, RAW
from engines.threads import in_own_thread

Kind = Literal["collection", "timeseries", "view", "functions"]

DATA, METADATA = ".bson", ".metadata.json"

LONGEST_STEM = 200
"""Bytes of a file name without its ending: file systems have 255."""

SHORTEST_DOCUMENT = 5
LENGTH = struct.Struct("<i")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What is known of a collection, beside its documents."""

    name: str
    kind: Kind
    options: bytes
    """BSON, as listCollections gave it: what `create` takes."""
    indexes: Sequence[bytes] = ()
    """BSON, as listIndexes gave them."""
    documents: int = 0
    uuid: bytes = b""
    """What tells it from another of its name that took its place; not in the files."""

    @property
    def has_documents(self) -> bool:
        """Whether there is a file of documents."""
        return self.kind != "view"

    def options_document(self) -> dict[str, Any]:
        """Give the options, with documents in them as they are."""
        return dict(RawBSONDocument(self.options, RAW))

    def index_documents(self) -> list[dict[str, Any]]:
        """Give the indexes, with documents in them as they are."""
        return [dict(RawBSONDocument(each, RAW)) for each in self.indexes]

    def expires(self) -> bool:
        """Tell whether the server deletes documents by their age."""
        return any("expireAfterSeconds" in each for each in (self.options_document(), *self.index_documents()))


@dataclass(frozen=True, kw_only=True)
class Backup:
    """A dump that was checked."""

    folder: Path
    manifest: Manifest
    collections: Sequence[Collection]


def stem_of(name: str) -> str:
    """Name the files of a collection: letters, digits, `_`, `-` and `.` as they are, other bytes as in a URL.

    No two names have the same. One that would be too long ends in its hash, after a `~` that no other has.
    """
    # A name may begin with a dot in no MongoDB of today, and must not hide a file or be `..` in any.
    stem = quote(name, safe="").replace("~", "%7E")
    stem = f"%2E{stem[1:]}" if stem.startswith(".") else stem
    if len(stem) <= LONGEST_STEM:
        return stem
    return f"{stem[:100]}~{sha256(name.encode()).hexdigest()}"


def write_metadata(folder: Path, collection: Collection) -> None:
    """Write what a collection is."""
    exact = bson.encode(
        {"options": RawBSONDocument(collection.options), "indexes": [*map(RawBSONDocument, collection.indexes)]}
    )
    written = {
        "collectionName": collection.name,
        "type": collection.kind,
        "options": RawBSONDocument(collection.options, RAW),
        "indexes": [RawBSONDocument(each, RAW) for each in collection.indexes],
        "documents": collection.documents,
        "exact": Binary(exact),
    }
    text = json_util.dumps(written, json_options=json_util.CANONICAL_JSON_OPTIONS, indent=1)
    (folder / f"{stem_of(collection.name)}{METADATA}").write_text(text, encoding="utf-8")


def read_metadata(path: Path) -> Collection:
    """Raises: BackupDamaged."""
    try:
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        exact = RawBSONDocument(json_util.object_hook(read["exact"]), RAW)
        kind: Kind = read["type"]
        if kind not in get_args(Kind):
            raise BackupDamaged(f"{path.name} is of a kind that this version of dbvalet does not know: {kind}.")
        return Collection(
            name=read["collectionName"],
            kind=kind,
            options=exact["options"].raw,
            indexes=[each.raw for each in exact["indexes"]],
            documents=int(read["documents"]["$numberInt" if "$numberInt" in read["documents"] else "$numberLong"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BSONError) as problem:
        raise BackupDamaged(f"{path.name} cannot be read.") from problem


async def read_backup(folder: Path) -> Backup:
    """Read a dump and check all of it: checksums, and that the documents are whole and as many as were written.

    Raises: BackupDamaged
    """
    manifest = await read_manifest(folder)
    if manifest.engine != "mongodb":
        raise BackupDamaged(f"This is a backup of {manifest.engine}, not of MongoDB.")
    return await in_own_thread(_check, folder, manifest)


def _check(folder: Path, manifest: Manifest) -> Backup:
    collections = [read_metadata(folder / name) for name in sorted(manifest.files) if name.endswith(METADATA)]
    known: set[str] = set()
    for collection in collections:
        stem = stem_of(collection.name)
        known.add(f"{stem}{METADATA}")
        if collection.has_documents:
            known.add(f"{stem}{DATA}")
    if known != {*manifest.files}:
        raise BackupDamaged(f"The backup lacks or has too much: {', '.join(sorted(known ^ {*manifest.files}))}.")
    for collection in collections:
        if collection.has_documents:
            path = data_of(folder, collection)
            with path.open("rb") as file:
                found = sum(1 for _ in documents_in(file, path.name))
            if found != collection.documents:
                raise BackupDamaged(f"{path.name} holds {found} documents, and {collection.documents} were written.")
    return Backup(folder=folder, manifest=manifest, collections=collections)


def data_of(folder: Path, collection: Collection) -> Path:
    """Give the file of a collection's documents."""
    return folder / f"{stem_of(collection.name)}{DATA}"


def documents_in(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Read one document after the other.

    Raises: BackupDamaged
    """
    while head := file.read(LENGTH.size):
        size = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 0
        if size < SHORTEST_DOCUMENT:
            raise BackupDamaged(f"{name} is no sequence of documents.")
        file.seek(-LENGTH.size, os.SEEK_CUR)
        document = file.read(size)
        if len(document) != size or document[-1:] != b"\0":
            raise BackupDamaged(f"{name} ends in the middle of a document.")
        yield document
        del document


def batches_in(file: BinaryIO, name: str) -> Iterator[list[RawBSONDocument]]:
    """Read documents, as many at a time as one command should hold; a batch is emptied when the next is asked for.

    Raises: BackupDamaged
    """
    batch: list[RawBSONDocument] = []
    size = 0
    for document in documents_in(file, name):
        batch.append(RawBSONDocument(document, RAW))
        size += len(document)
        if size >= BATCH_BYTES or len(batch) == MOST_DOCUMENTS:
            del document
            yield batch
            batch.clear()
            size = 0
    if batch:
        yield batch
