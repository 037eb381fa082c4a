"""Empty a logical database: everything in it but its users and one empty collection, which keeps it in being."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from engines.action import Effect, action
from engines.aftermath import Aftermath, Goal
from engines.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    InvalidParams,
    LogicalDatabaseNotFound,
    PrivilegeMissing,
)
from engines.mongodb.contents import functions_in, measured, profile_stays, require_on, users_of
from engines.mongodb.databases import BUCKETS, PLACEHOLDER, collections, existing_names, look_into, refuse_system
from engines.names import ExistingLogicalDatabase, named
from engines.preview import Affected, Change, Preview, preview_of

if TYPE_CHECKING:
    from engines.mongodb.server import MongoServer

PASSES = 5
"""How often a reset looks again before it says that somebody goes on filling the logical database."""


async def look_for_content(server: MongoServer, params: ExistingLogicalDatabase) -> list[str]:
    """List them without what a reset leaves there."""
    stays = (f"{PLACEHOLDER} ", f"{PLACEHOLDER}_", "system.js ", "system.profile ")
    return [each for each in await look_into(server, params) if not each.startswith(stays)]


async def preview_reset(server: MongoServer, params: ExistingLogicalDatabase) -> Preview:
    """Tell what reset-database would remove.

    Raises: LogicalDatabaseNotFound, Protected, PrivilegeMissing
    """
    name = params.database_name
    await check_resettable(server, name)
    present = await collections(server, name)
    kinds = {each["name"]: each["type"] for each in present}
    keep, is_there = await choose_placeholder(server, name, present)
    doomed = sorted(to_be_dropped(kinds) - {keep})
    if not is_there:
        await require_on(server, name, keep, "createCollection", "insert")
    for each in doomed:
        await require_on(server, name, each, "dropCollection")
    keeps = [f"the logical database {name}", *await users_of(server, name)]
    warnings: list[str] = []
    objects = await measured(server, name, {each: kinds.get(each, "timeseries") for each in doomed})
    if "system.js" in kinds:
        await require_on(server, name, "system.js", "remove")
        functions = await functions_in(server, name)
        if functions != 0:
            objects.append(Affected(change=Change.REMOVE, kind="functions", name="system.js", rows=functions))
    if "system.profile" in kinds:
        stays = await profile_stays(server, name)
        if stays is None:
            warnings.append("Whether system.profile goes too cannot be told: it stays while profiling is on.")
        elif stays:
            keeps.append("the collection system.profile, since profiling is on")
        else:
            objects += await measured(server, name, {"system.profile": "collection"})
    if is_there:
        keeps.append(f"the collection {keep}, which is empty")
    made = [] if is_there else [Affected(change=Change.CREATE, kind="collection", name=keep)]
    would = f"Empties the logical database {name}, which stays (collections, views, functions: {len(objects)})."
    return preview_of(would, [*objects, *made], keeps=keeps, warnings=warnings)


@action(
    "reset-database",
    effect=Effect.DESTRUCTIVE,
    privileges=("listDatabases", "listCollections", "collStats", "createCollection", "dropCollection", "remove"),
    example_params={"database_name": "custom-db"},
    aftermath=Aftermath(look=look_for_content, goal=Goal.GONE),
    preview=preview_reset,
    logical_database=named,
)
async def reset_database(server: MongoServer, params: ExistingLogicalDatabase) -> None:
    """Delete every collection, view, index and function of a logical database; its users stay.

    An empty collection stays or is made, so that the logical database stays too. Interrupted at any point, doing it
    again completes it.

    Raises: LogicalDatabaseNotFound, Protected, Conflict
    """
    name = params.database_name
    await check_resettable(server, name)
    try:
        await empty(server, name)
    except DeadlineExceeded as late:
        raise DeadlineExceeded(f"{late.message} A part may be done; doing it again completes it.") from late


async def check_resettable(server: MongoServer, name: str) -> None:
    """Make sure that a logical database is there and may be emptied.

    Raises: Protected, LogicalDatabaseNotFound
    """
    refuse_system(name)
    if name not in {*await existing_names(server), server.address.database}:
        raise LogicalDatabaseNotFound()


async def empty(server: MongoServer, name: str) -> None:
    """Drop everything but one empty collection.

    Raises: PrivilegeMissing, InvalidParams, when nothing was removed; Conflict, when something was, or new ones go on
    appearing
    """
    keep = await placeholder(server, name, await collections(server, name))
    removed, needed = 0, ""
    try:
        for _ in range(PASSES):
            needed = "listCollections"
            present = {collection["name"] for collection in await collections(server, name)}
            functions = 0
            if "system.js" in present:
                needed = "remove"
                # It cannot be dropped (code 20), so its documents are deleted: each is a function.
                reply = await server.write(name, {"delete": "system.js", "deletes": [{"q": {}, "limit": 0}]})
                functions = reply["n"]
                removed += functions > 0
            needed = "dropCollection"
            if "system.profile" in present:
                removed += await drop_profile(server, name)
            doomed = to_be_dropped(present) - {keep}
            if not doomed and not functions:
                return
            for collection in sorted(doomed):
                removed += await drop(server, name, collection)
    except (PrivilegeMissing, InvalidParams) as refused:
        if not removed:
            raise
        # Not a refusal: that would say that nothing was done.
        were = "1 collection was" if removed == 1 else f"{removed} collections were"
        told = f"{were} removed, then: {refused.message}."
        if isinstance(refused, PrivilegeMissing):
            told += f" Missing: {needed}. Remedy: {server.engine.requirements[needed].remedy(server)}"
        raise Conflict(f"{told} Then doing it again completes it.") from refused
    raise Conflict("New collections or functions go on appearing: a client is writing to it.")


def to_be_dropped(present: Collection[str]) -> set[str]:
    """Give the names of collections and views that can be dropped."""
    # The buckets of a time-series collection (5.0 and later) go by its name, even when they alone are left of it.
    doomed = {collection.removeprefix(BUCKETS) for collection in present}
    return {collection for collection in doomed if not collection.startswith("system.")}


async def placeholder(server: MongoServer, name: str, present: list[dict[str, Any]]) -> str:
    """Find or create a collection that is empty, plain and without an index of somebody's.

    It is there before anything is dropped, so that the logical database never is without one. Two resets at the same
    time choose the same.
    """
    name_of_it, is_there = await choose_placeholder(server, name, present)
    if not is_there:
        # Another reset may be faster; it keeps the same one.
        with suppress(AlreadyExists):
            await server.write(name, {"create": name_of_it})
    return name_of_it


async def choose_placeholder(server: MongoServer, name: str, present: list[dict[str, Any]]) -> tuple[str, bool]:
    """Choose the collection that stays; tell whether it is there already."""
    by_name = {collection["name"]: collection for collection in present}
    candidates = [PLACEHOLDER, *(f"{PLACEHOLDER}_{number}" for number in range(2, len(present) + 3))]
    for candidate in candidates:
        found = by_name.get(candidate)
        if found is not None and found["type"] == "collection" and not found["options"]:
            stats = await server.read(name, {"collStats": candidate})
            if stats["count"] == 0 and stats["nindexes"] == 1:
                return candidate, True
    return next(candidate for candidate in candidates if candidate not in by_name), False


async def drop_profile(server: MongoServer, name: str) -> bool:
    """Drop the profiler's collection, which holds queries and so values of documents, unless profiling is on."""
    from engines.mongodb.driver import IllegalOperation

    try:
        return await drop(server, name, "system.profile")
    except IllegalOperation:
        # The server refuses it then, and what is switched on is not for a reset to switch off.
        return False


async def drop(server: MongoServer, name: str, collection: str) -> bool:
    """Drop a collection or a view, or find it gone; tell whether it was there."""
    from engines.mongodb.driver import NamespaceNotFound

    try:
        await server.write(name, {"drop": collection})
    except NamespaceNotFound:
        # A time-series collection takes its buckets along, and an application may drop too.
        return False
    return True
