"""What a dump of MongoDB writes and reads, without a server."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bson
import pytest
from bson import Int64, Regex, Timestamp
from bson.raw_bson import RawBSONDocument
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import BackupDamaged
from engines.mongodb.backup.connection import BATCH_BYTES, MOST_DOCUMENTS, Connection, documents_in
from engines.mongodb.backup.files import (
    LONGEST_STEM,
    METADATA,
    Collection,
    batches_in,
    read_metadata,
    stem_of,
    write_metadata,
)
from engines.mongodb.backup.files import documents_in as documents_of_file
from engines.mongodb.backup.restore import _expiring
from engines.mongodb.backup.rights import allows

names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=260)


@given(names, names)
def test_two_collections_never_have_the_same_files(one: str, other: str) -> None:
    assert (stem_of(one) == stem_of(other)) is (one == other)


@given(names)
def test_a_name_of_a_file_is_one(name: str) -> None:
    stem = stem_of(name)
    assert Path(stem).name == stem
    assert not stem.startswith(".")
    assert len(stem.encode()) <= LONGEST_STEM
    assert stem.isascii()


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("plain_Name-1", "plain_Name-1"),
        ("a.b", "a.b"),
        ("..", "%2E."),
        ("a/b", "a%2Fb"),
        ("100%", "100%25"),
        ("a~b", "a%7Eb"),
        ("ä", "%C3%A4"),
    ],
)
def test_usual_names_can_be_read(name: str, stem: str) -> None:
    assert stem_of(name) == stem


def test_a_long_name_keeps_its_beginning_and_differs_by_its_end() -> None:
    one, other = stem_of("x" * 230 + "a"), stem_of("x" * 230 + "b")
    assert one != other
    assert one[:100] == other[:100] == "x" * 100


def test_metadata_come_back_to_the_byte(tmp_path: Path) -> None:
    # Extended JSON alone would make values of these operators.
    options = bson.encode({"validator": {"a": {"$regex": "^x", "$options": "i"}, "b": {"$ref": "c", "$id": 1}}})
    index = bson.encode(
        {"v": 2, "key": {"a": 1.0, "b": Int64(-1)}, "name": "x", "re": Regex("a"), "at": Timestamp(1, 2)}
    )
    written = Collection(name="a/b", kind="collection", options=options, indexes=[index], documents=2**40)
    write_metadata(tmp_path, written)
    assert read_metadata(tmp_path / f"a%2Fb{METADATA}") == written


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"exact": 1}', '{"exact": {"$binary": {"base64": "AA==", "subType": "00"}}}']
)
def test_metadata_that_are_none_are_damage(tmp_path: Path, text: str) -> None:
    path = tmp_path / f"a{METADATA}"
    path.write_text(text)
    with pytest.raises(BackupDamaged):
        read_metadata(path)


def test_a_kind_of_a_later_version_is_refused(tmp_path: Path) -> None:
    write_metadata(tmp_path, Collection(name="a", kind="view", options=bson.encode({})))
    path = tmp_path / f"a{METADATA}"
    path.write_text(path.read_text().replace('"view"', '"hologram"'))
    with pytest.raises(BackupDamaged, match="hologram"):
        read_metadata(path)


@pytest.mark.parametrize("cut", [1, 4, 10])
def test_a_document_that_is_cut_is_found(cut: int) -> None:
    whole = bson.encode({"_id": 1, "x": "y"}) * 2
    assert len([*documents_of_file(io.BytesIO(whole), "x")]) == 2
    with pytest.raises(BackupDamaged):
        _ = [*documents_of_file(io.BytesIO(whole[:-cut]), "x")]


@pytest.mark.parametrize("size", [-1, 0, 4])
def test_a_size_that_is_none_is_found(size: int) -> None:
    with pytest.raises(BackupDamaged, match="x is no sequence of documents"):
        _ = [*documents_of_file(io.BytesIO(size.to_bytes(4, "little", signed=True)), "x")]


def test_batches_are_neither_too_many_nor_too_large() -> None:
    tiny = bson.encode({})
    sizes = [len(batch) for batch in batches_in(io.BytesIO(tiny * (2 * MOST_DOCUMENTS + 1)), "x")]
    assert sizes == [MOST_DOCUMENTS, MOST_DOCUMENTS, 1]
    large = bson.encode({"x": "y" * 1_500_000})
    assert [len(batch) for batch in batches_in(io.BytesIO(large * 5), "x")] == [2, 2, 1]


@pytest.mark.parametrize("key", ["firstBatch", "nextBatch"])
def test_the_documents_of_a_batch_are_found_wherever_they_stand_in_the_answer(key: str) -> None:
    documents = [{"_id": number, "text": "ä\0" * number} for number in range(12)]
    before = {
        "double": 1.0,
        "ns": "a.b",
        "document": {"x": 1},
        "binary": b"xyz",
        "old": bson.Binary(b"xyz", 2),
        "code": bson.Code("return 1"),
        "scoped": bson.Code("return x", {"x": 1}),
        "oid": bson.ObjectId(),
        "true": True,
        "date": bson.DatetimeMS(1),
        "none": None,
        "int": 1,
        "at": Timestamp(1, 2),
        "id": Int64(5),
        "decimal": bson.Decimal128("1"),
    }
    cursor = bson.encode({**before, key: documents, "after": 1})
    assert [RawBSONDocument(bytes(each)) for each in documents_in(cursor)] == [
        RawBSONDocument(bson.encode(each)) for each in documents
    ]
    assert documents_in(bson.encode({**before, key: []})) == []
    assert documents_in(bson.encode(before)) == []


def test_the_largest_document_that_there_can_be_is_found_in_its_batch() -> None:
    largest = bson.encode({"x": b"y" * (16 * 1024 * 1024 - 13)})
    assert len(largest) == 16 * 1024 * 1024
    cursor = bson.encode({"firstBatch": [RawBSONDocument(largest), {"after": 1}]})
    assert [len(each) for each in documents_in(cursor)] == [len(largest), len(bson.encode({"after": 1}))]


async def test_a_batch_is_asked_for_by_the_size_of_the_documents_before_it() -> None:
    asked: list[dict[str, Any]] = []
    document = {"x": b"y" * 1010}

    async def ask(command: dict[str, Any]) -> dict[str, Any]:
        asked.append(command)
        batch = {"ns": "app.c.d", "id": 3 - len(asked), "firstBatch": [document] * 5 if len(asked) < 3 else []}
        return {"cursor": RawBSONDocument(bson.encode(batch))}

    connection: Any = Connection.__new__(Connection)
    connection.ask = ask
    sizes = [len(batch) async for batch in connection.raw_batches({"find": "c.d"})]
    wanted = BATCH_BYTES // len(bson.encode(document))
    assert asked[1:] == [
        {"getMore": 2, "collection": "c.d", "batchSize": wanted},
        {"getMore": 1, "collection": "c.d", "batchSize": wanted},
    ]
    assert sizes == [5, 5]


def test_collections_whose_documents_expire_are_told_and_no_others() -> None:
    def collection(name: str, *, expires: bool) -> Any:
        return SimpleNamespace(name=name, expires=lambda: expires)

    assert [*_expiring([collection("kept", expires=False)])] == []
    (told,) = _expiring([collection("kept", expires=False), collection("log", expires=True)])
    assert told.startswith("These delete documents by their age, and the server does so within a minute")
    assert "of the restore: log." in told


def test_a_privilege_on_a_logical_database_is_one_on_its_collections_but_not_on_functions() -> None:
    def granted(**resource: object) -> list[dict[str, object]]:
        return [{"resource": resource, "actions": ["find"]}]

    assert allows(granted(db="app", collection=""), "find", "app", "")
    assert allows(granted(db="", collection=""), "find", "app", "")
    assert allows(granted(anyResource=True), "find", "app", "system.js")
    assert not allows(granted(db="app", collection=""), "find", "app", "system.js")
    assert not allows(granted(db="app", collection="one"), "find", "app", "")
    assert not allows(granted(db="other", collection=""), "find", "app", "")
    assert not allows(granted(db="app", collection=""), "insert", "app", "")
    assert not allows(granted(cluster=True), "find", "app", "")
