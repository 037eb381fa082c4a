"""What is in a logical database and what the account may do there, for telling what would become of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engines import deadline
from engines.errors import NotFound, PrivilegeMissing
from engines.mongodb.requirements import anonymous_may
from engines.preview import MOST_OBJECTS, Affected, Change

if TYPE_CHECKING:
    from engines.mongodb.server import MongoServer

MEASURING_ENDS = 5.0
"""Seconds of the deadline that must be left for asking after one more size."""


async def require_on(server: MongoServer, database: str, collection: str, *any_of: str) -> None:
    """Refuse where the account has none of some privilege actions on a collection, as the server would.

    "" stands for the whole logical database.

    Raises: PrivilegeMissing
    """
    reply = await server.read("admin", {"connectionStatus": 1, "showPrivileges": True})
    held = reply["authInfo"]
    if not held["authenticatedUsers"]:
        if not await anonymous_may(server):
            raise PrivilegeMissing
        return
    if not any(
        not {*any_of}.isdisjoint(privilege["actions"]) and is_on(privilege["resource"], database, collection)
        for privilege in held["authenticatedUserPrivileges"]
    ):
        raise PrivilegeMissing


def is_on(granted: Mapping[str, Any], database: str, collection: str) -> bool:
    """Tell whether a privilege on a resource is one on a collection.

    One on all collections is none on those of the system.
    https://www.mongodb.com/docs/manual/reference/resource-document/
    """
    if "anyResource" in granted:
        return True
    whole = () if collection.startswith("system.") else ("",)
    return granted.get("db") in ("", database) and granted.get("collection") in (*whole, collection)


async def measured(server: MongoServer, database: str, kinds: Mapping[str, str]) -> list[Affected]:
    """List collections and views that would be removed, with their sizes as long as there is time for that."""
    found: list[Affected] = []
    for name in sorted(kinds):
        stats: dict[str, Any] = {}
        if kinds[name] != "view" and len(found) < MOST_OBJECTS and deadline.remaining() > MEASURING_ENDS:
            stats = await _statistics(server, database, name)
        size = stats["storageSize"] + stats["totalIndexSize"] if "storageSize" in stats else None
        found.append(
            Affected(
                change=Change.REMOVE,
                kind="time series" if kinds[name] == "timeseries" else kinds[name],
                name=name,
                rows=_whole(stats.get("count")),
                bytes=_whole(size),
            )
        )
    return found


async def users_of(server: MongoServer, database: str) -> list[str]:
    """List the users that are defined in a logical database, or say that there may be some."""
    try:
        reply = await server.read(database, {"usersInfo": 1})
    except PrivilegeMissing:
        return ["the users that are defined in it"]
    return [f"the user {each['user']}" for each in reply["users"]]


async def functions_in(server: MongoServer, database: str) -> int | None:
    """Count the functions in system.js, with no more than the right to delete them; None where it is not told.

    An explained delete finds what it would delete and leaves it there.
    https://www.mongodb.com/docs/manual/reference/command/explain/
    """
    delete: dict[str, Any] = {"delete": "system.js", "deletes": [{"q": {}, "limit": 0}]}
    reply = await server.read(database, {"explain": delete, "verbosity": "executionStats"})
    stage = reply.get("executionStats", {}).get("executionStages", {})
    return _whole(stage.get("nWouldDelete"))


async def profile_stays(server: MongoServer, database: str) -> bool | None:
    """Tell whether the profiler is on; None where the account may not know."""
    try:
        return (await server.read(database, {"profile": -1}))["was"] != 0
    except PrivilegeMissing:
        return None


async def _statistics(server: MongoServer, database: str, name: str) -> dict[str, Any]:
    try:
        return await server.read(database, {"collStats": name})
    except (PrivilegeMissing, NotFound):
        return {}


def _whole(number: float | None) -> int | None:
    """MongoDB gives some figures as floats."""
    return None if number is None else int(number)
