"""The privilege actions that the actions need, by MongoDB's own names.

https://www.mongodb.com/docs/manual/reference/privilege-actions/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from engines.engine import Requirement
from engines.errors import PrivilegeMissing
from engines.mongodb.grants import ROLE, quoted

if TYPE_CHECKING:
    from engines.mongodb.server import MongoServer

CLUSTER = {"cluster": True}
ANY_COLLECTION = {"db": "", "collection": ""}
FUNCTIONS = {"db": "", "collection": "system.js"}


def requirement(action: str, resource: dict[str, Any], role: str) -> Requirement:
    """Declare that a privilege action on a resource is needed; `role` is the built-in role that brings it."""
    return Requirement(name=action, met=met(action, resource), remedy=remedy(role))


def met(action: str, resource: dict[str, Any]) -> Callable[[MongoServer], Awaitable[bool]]:
    """Give the question whether the account may do this."""

    async def ask(server: MongoServer) -> bool:
        reply = await server.read("admin", {"connectionStatus": 1, "showPrivileges": True})
        if not reply["authInfo"]["authenticatedUsers"]:
            return await anonymous_may(server)
        return any(
            action in privilege["actions"] and covers(privilege["resource"], resource)
            for privilege in reply["authInfo"]["authenticatedUserPrivileges"]
        )

    return ask


def covers(granted: dict[str, Any], needed: dict[str, Any]) -> bool:
    """Tell whether a privilege on one resource is one on another, of the few kinds that are needed here."""
    return granted == needed or "anyResource" in granted


async def anonymous_may(server: MongoServer) -> bool:
    """Tell whether the server runs without access control: then everybody may do everything and has no privileges."""
    try:
        await server.read("admin", {"listDatabases": 1, "nameOnly": True, "authorizedDatabases": False})
    except PrivilegeMissing:
        return False
    return True


def remedy(role: str) -> Callable[[MongoServer], str]:
    """Give the call that grants a built-in role to this server's account."""

    def write(server: MongoServer) -> str:
        user = server.address.user or "valet"
        where = server.address.options.get("authSource", server.address.database)
        return (
            f"db.getSiblingDB({quoted(where)}).grantRolesToUser({quoted(user)}, "
            f'[{{role: "{role}", db: "admin"}}]); or the role "{ROLE}", which may less, '
            'made by the script that "dbvalet grants mongodb" writes.'
        )

    return write


REQUIREMENTS: dict[str, Requirement] = {
    found.name: found
    for found in (
        requirement("listDatabases", CLUSTER, "dbAdminAnyDatabase"),
        requirement("createCollection", ANY_COLLECTION, "dbAdminAnyDatabase"),
        requirement("dropDatabase", ANY_COLLECTION, "dbAdminAnyDatabase"),
        requirement("dropCollection", ANY_COLLECTION, "dbAdminAnyDatabase"),
        requirement("listCollections", ANY_COLLECTION, "dbAdminAnyDatabase"),
        requirement("collStats", ANY_COLLECTION, "dbAdminAnyDatabase"),
        requirement("remove", FUNCTIONS, "readWriteAnyDatabase"),
    )
}
