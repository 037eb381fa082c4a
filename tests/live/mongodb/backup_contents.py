"""A logical database that holds one of everything, and all that there is in one, byte by byte."""

import datetime
from typing import Any

import bson
from bson import Binary, Code, CodecOptions, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo.collation import Collation
from pymongo.database import Database

from tests.live.mongodb.conftest import Root

RAW = CodecOptions(document_class=RawBSONDocument)

ODD_NAMES = ("with space", "a/b", "a.b", "%2F", "äöü 中", "x.metadata", "Case", "case", "a~b", "quote\"s'", "n" * 90)

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def raw(*pairs: tuple[str, Any]) -> RawBSONDocument:
    """Make a document that may have a key twice, which no dictionary can."""
    body = b"".join(bson.encode({key: value})[4:-1] for key, value in pairs)
    return RawBSONDocument((len(body) + 5).to_bytes(4, "little") + body + b"\0")


def fill(root: Root, name: str) -> None:
    """Make one of everything that this server's version has."""
    database: Database[Any] = root[name]
    version = tuple(root.server_info()["versionArray"][:2])
    _values(database)
    _collections(database, version)
    _indexes(database, version)
    _views(database)
    for each in ODD_NAMES[:-1] if version < (4, 4) else ODD_NAMES:
        database[each].insert_one({"_id": each})
    database["system.js"].insert_one({"_id": "twice", "value": Code("function (x) { return 2 * x }")})
    database["system.js"].insert_one({"_id": "pi", "value": 3.14})


def _values(database: Database[Any]) -> None:
    database["values"].insert_many(
        [
            {"_id": 1, "double": float("nan"), "infinite": float("-inf"), "zero": -0.0, "int": 1, "long": Int64(1)},
            {"_id": Int64(2), "decimal": Decimal128("1.500"), "nan": Decimal128("NaN"), "text": "a\0b ü 中 \U0001f600"},
            {
                "_id": ObjectId(),
                "binary": Binary(b"\0\xff", 128),
                "old": Binary(b"\0" * 16, 3),
                "re": Regex("^x", "im"),
            },
            {"_id": "code", "code": Code("f()"), "scoped": Code("f(x)", {"x": 1}), "at": Timestamp(5, 6)},
            {"_id": {"b": 1, "a": 2}, "min": MinKey(), "max": MaxKey(), "none": None, "list": [1, [2, {}], {"$x": []}]},
            {"_id": NOW, "early": bson.DatetimeMS(-(2**62)), "late": bson.DatetimeMS(2**62), "big": "x" * 3_000_000},
        ]
    )
    database["twice"].insert_many([raw(("_id", 1), ("k", 1), ("k", "2")), raw(("_id", 0), ("z", 1), ("a", raw()))])
    database["empty"].insert_one({})
    database["empty"].delete_many({})
    # The order of a collection is that in which it was written, not that of _id.
    database["order"].insert_many([{"_id": (number * 7919) % 5000, "n": number} for number in range(5000)])
    database["order"].delete_many({"n": {"$lt": 50}})


def _collections(database: Database[Any], version: tuple[int, ...]) -> None:
    database.create_collection("capped", capped=True, size=8192, max=5)
    database["capped"].insert_many([{"_id": number} for number in (9, 3, 7, 1, 8, 2)])
    schema = {"$jsonSchema": {"required": ["n"], "properties": {"n": {"bsonType": "int", "description": "a.b"}}}}
    # It was stricter made than what it holds.
    database["validated"].insert_one({"_id": 0})
    database.command("collMod", "validated", validator=schema, validationLevel="moderate", validationAction="warn")
    database["operators"].insert_one({"_id": 0, "t": "y"})
    operators = {"t": {"$regex": "^x", "$options": "i"}, "d": {"$ne": NOW}}
    database.command("collMod", "operators", validator=operators, validationAction="error")
    database.create_collection("collated", collation=Collation("de", strength=1, numericOrdering=True))
    database["collated"].insert_one({"_id": "ä"})
    database.create_collection("engine", storageEngine={"wiredTiger": {"configString": "block_compressor=zlib"}})
    if version >= (5, 3):
        database.create_collection("clustered", clusteredIndex={"key": {"_id": 1}, "unique": True, "name": "by id"})
        database["clustered"].insert_many([{"_id": number} for number in (3, 1, 2)])
        database.create_collection("images", changeStreamPreAndPostImages={"enabled": True})
    if version >= (5, 0):
        options = {"timeField": "at", "metaField": "from", "granularity": "minutes"}
        database.create_collection("series", timeseries=options, expireAfterSeconds=864_000)
        moments = [NOW - datetime.timedelta(seconds=17 * number) for number in range(300)]
        database["series"].insert_many(
            [{"_id": n, "z": n / 3, "at": at, "from": {"b": n % 3, "a": "x"}, "a": [n]} for n, at in enumerate(moments)]
        )
        database["series"].create_index([("from.b", 1), ("at", -1)], name="by source")


def _indexes(database: Database[Any], version: tuple[int, ...]) -> None:
    indexed = database["indexed"]
    indexed.insert_many([{"_id": n, "u": n, "t": f"Haus {n}", "p": [n, n], "d": NOW} for n in range(200)])
    indexed.create_index([("u", 1)], unique=True, name="unique one")
    indexed.create_index([("t", "text"), ("s", "text")], weights={"t": 3}, default_language="german")
    # As the shell made them, whose numbers are doubles.
    partial = {"name": "q_-1_u_1", "key": {"q": -1, "u": 1.0}, "partialFilterExpression": {"u": {"$gt": 5}}}
    database.command("createIndexes", "indexed", indexes=[partial])
    indexed.create_index("d", expireAfterSeconds=864_000, sparse=True)
    indexed.create_index("gone", expireAfterSeconds=Int64(86_400 * 365))
    indexed.create_index([("h", "hashed")])
    indexed.create_index([("where", "2dsphere")])
    indexed.create_index([("flat", "2d")], min=-10, max=10, bits=20)
    indexed.create_index("c", collation=Collation("fr", caseLevel=True), name="c.d $ ä")
    indexed.create_index([("$**", 1)], wildcardProjection={"t": 1, "deep.er": 1})
    if version >= (4, 4):
        indexed.create_index("hidden", hidden=True)


def _views(database: Database[Any]) -> None:
    # Named so that each is listed before what it looks at.
    stages: list[Any] = [
        {"$match": {"t": {"$regex": "^h", "$options": "i"}}},
        {"$addFields": {"x": {"$literal": "$a"}}},
    ]
    database.create_collection("a view on a view", viewOn="b view", pipeline=[{"$limit": 3}])
    database.create_collection("b view", viewOn="indexed", pipeline=stages)
    database.create_collection("collated view", viewOn="collated", pipeline=[], collation={"locale": "de"})


def contents(root: Root, name: str) -> dict[str, Any]:
    """Give everything: of each collection its kind, options, indexes and documents, as bytes and in their order."""
    database: Any = root.get_database(name, codec_options=RAW)
    found: dict[str, Any] = {}
    reply: Any = database.command("listCollections", cursor={"batchSize": 10_000}, codec_options=RAW)
    for each in reply["cursor"]["firstBatch"]:
        collection = each["name"]
        if collection.startswith("system.") and collection != "system.js":
            continue
        kind = each.get("type", "collection")
        documents = [bytes(document.raw) for document in database[collection].find()]
        if kind == "timeseries":
            # The server chooses the order of a measurement's fields, and not always the same one (seen on 6.0).
            documents = [bson.encode(dict(sorted(RawBSONDocument(each, RAW).items()))) for each in documents]
        indexes: list[bytes] = []
        if kind != "view":
            listed: Any = database.command("listIndexes", collection, codec_options=RAW)
            indexes = sorted(bytes(index.raw) for index in listed["cursor"]["firstBatch"])
        # The buckets of a time series have no order that lasts.
        ordered = sorted(documents) if kind == "timeseries" or collection == "system.js" else documents
        found[collection] = (kind, each["options"].raw, indexes, ordered)
    if not found.get("system.js", (0, 0, 0, [1]))[3]:
        del found["system.js"]  # it cannot be dropped
    return found


def spoil(root: Root, name: str) -> None:
    """Change, drop and add, so that nothing is as it was: kinds under the names of others among it."""
    database: Database[Any] = root[name]
    version = tuple(root.server_info()["versionArray"][:2])
    for each in ("values", "indexed", "a view on a view", "empty", "operators", "collated view", "a/b"):
        database.drop_collection(each)
    database["twice"].delete_many({})
    database["order"].update_many({}, {"$set": {"n": -1}})
    database["capped"].insert_one({"_id": "new"})
    database.command("collMod", "validated", validator={}, validationLevel="strict")
    database.create_collection("values", viewOn="order", pipeline=[])
    database["a view on a view"].insert_one({"_id": "now a collection"})
    database["new"].insert_one({"_id": 1})
    database["new"].create_index("x")
    database.create_collection("new view", viewOn="new", pipeline=[])
    database.command("collMod", "b view", viewOn="new", pipeline=[])
    database["system.js"].delete_one({"_id": "pi"})
    database["system.js"].update_one({"_id": "twice"}, {"$set": {"value": 0}})
    database["system.js"].insert_one({"_id": {"odd": 1}, "value": 1})
    if version >= (5, 0):
        database["series"].drop()
        database.create_collection("series", timeseries={"timeField": "other"})
        database["series"].insert_one({"other": NOW})
        database.create_collection("a/b", timeseries={"timeField": "t"})
        database.create_collection("new series", timeseries={"timeField": "t"})
