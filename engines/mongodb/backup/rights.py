"""What a backup needs of a deployment and of the account, told in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engines.mongodb.grants import BACKUP_ACTIONS, BACKUP_FUNCTION_ACTIONS, backup_remedy
from engines.mongodb.requirements import anonymous_may

if TYPE_CHECKING:
    from engines.mongodb.server import MongoServer

FUNCTIONS = "system.js"

MONGOS = "isdbgrid"
"""What a server says in `msg` that is none but a router to shards."""

SHARDED = (
    "This is a sharded cluster (mongos): dbvalet makes no backups of one. "
    "Take them shard by shard with the tools of your hosting, or of MongoDB."
)


async def lacking_rights(server: MongoServer) -> list[str]:
    """Tell why no backup can be made here, each with its remedy.

    Raises: EngineUnavailable, DeadlineExceeded
    """
    # `hello` is unknown to 4.2 before 4.2.10.
    if (await server.read("admin", {"isMaster": 1})).get("msg") == MONGOS:
        return [SHARDED]
    status = (await server.read("admin", {"connectionStatus": 1, "showPrivileges": True}))["authInfo"]
    remedy = backup_remedy(server.address.user or "valet", server.address.database)
    if not status["authenticatedUsers"]:
        return [] if await anonymous_may(server) else [f"MongoDB wants an account. {remedy}"]
    database = server.address.database
    granted = status["authenticatedUserPrivileges"]
    lacking = [each for each in BACKUP_ACTIONS if not allows(granted, each, database, "")]
    lacking += [
        f"{each} on {FUNCTIONS}" for each in BACKUP_FUNCTION_ACTIONS if not allows(granted, each, database, FUNCTIONS)
    ]
    return [f"Missing: {', '.join(lacking)}. Remedy: {remedy}"] if lacking else []


def allows(granted: list[dict[str, Any]], action: str, database: str, collection: str) -> bool:
    """Tell whether privileges cover an action; collection "" stands for every one that is not a system collection.

    https://www.mongodb.com/docs/manual/reference/resource-document/
    """
    return any(
        action in privilege["actions"] and _covers(privilege["resource"], database, collection) for privilege in granted
    )


def _covers(resource: dict[str, Any], database: str, collection: str) -> bool:
    if resource.get("anyResource"):
        return True
    return resource.get("db") in ("", database) and resource.get("collection") == collection
