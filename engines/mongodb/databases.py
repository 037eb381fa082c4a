"""Logical databases: list, create, delete.

MongoDB has no statement that creates one: it is there as long as it holds a collection or a view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StringConstraints

from engines.action import Effect, Params, action
from engines.aftermath import AS_ASKED, Aftermath, Goal
from engines.engine import unseen
from engines.errors import (
    AlreadyExists,
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    EngineUnavailable,
    LogicalDatabaseNotFound,
    PrivilegeMissing,
    Protected,
)
from engines.mongodb.contents import measured, require_on, users_of
from engines.names import ExistingLogicalDatabase, LogicalDatabase, LogicalDatabaseName, named
from engines.preview import Affected, Change, Preview, preview_of

if TYPE_CHECKING:
    from engines.mongodb.server import MongoServer

SYSTEM = frozenset({"admin", "local", "config"})

PLACEHOLDER = "dbvalet_placeholder"
"""The empty collection that keeps a logical database in being."""

BUCKETS = "system.buckets."
"""Before the name of a time-series collection: where its documents are."""


class NewMongoDatabase(Params):
    """The name of a logical database to be created: the rule of every engine, and MongoDB's own limit of 63."""

    database_name: Annotated[
        LogicalDatabaseName,
        StringConstraints(max_length=63),
        Field(description="ASCII letters, digits, _ and -, not starting with a digit or -, at most 63 characters"),
    ]


@action(
    "list-databases",
    effect=Effect.READ,
    privileges=("listDatabases",),
    example_result=[
        {"name": "custom-db", "protected": False},
        {"name": "database-name-1234", "protected": True},
    ],
)
async def list_databases(server: MongoServer) -> list[LogicalDatabase]:
    """List the logical databases of the deployment, sorted by name.

    `admin`, `local` and `config` are left out. The deployment's own is there even while it holds nothing; it is
    protected, and so are those of other deployments on the server.
    """
    own = server.address.database
    names = {*(await existing_names(server) - SYSTEM), own}
    protected = {own, *server.of_others(names)}
    return [LogicalDatabase(name=name, protected=name in protected) for name in sorted(names)]


async def look_whether_there(server: MongoServer, params: NewMongoDatabase) -> list[str]:
    """Tell whether there is a logical database of this name."""
    return [AS_ASKED] if params.database_name in await existing_names(server) else []


async def look_into(server: MongoServer, params: ExistingLogicalDatabase) -> list[str]:
    """List the collections and views of a logical database, the former with their UUIDs."""
    name = params.database_name
    if name not in await existing_names(server):
        return []
    return [f"{each['name']} {each.get('info', {}).get('uuid')}" for each in await collections(server, name)]


def created(params: NewMongoDatabase) -> LogicalDatabase:
    """Give the result of a creation."""
    return LogicalDatabase(name=params.database_name, protected=False)


async def preview_create(server: MongoServer, params: NewMongoDatabase) -> Preview:
    """Tell what create-database would make.

    Raises: AlreadyExists, Protected, PrivilegeMissing
    """
    name = params.database_name
    await check_new(server, name)
    await require_on(server, name, PLACEHOLDER, "createCollection", "insert")
    return preview_of(
        f"Creates the logical database {name} with the empty collection {PLACEHOLDER}.",
        [
            Affected(change=Change.CREATE, kind="logical database", name=name),
            Affected(change=Change.CREATE, kind="collection", name=PLACEHOLDER),
        ],
    )


async def preview_delete(server: MongoServer, params: ExistingLogicalDatabase) -> Preview:
    """Tell what delete-database would remove.

    Raises: LogicalDatabaseNotFound, Protected, PrivilegeMissing
    """
    name = params.database_name
    await check_deletable(server, name)
    await require_on(server, name, "", "dropDatabase")
    warnings: list[str] = []
    inside: list[Affected] = []
    try:
        # The buckets of a time-series collection and the list of views are no things of their own.
        shown = [
            each
            for each in await collections(server, name)
            if each["name"] != "system.views" and not each["name"].startswith(BUCKETS)
        ]
        inside = await measured(server, name, {each["name"]: each["type"] for each in shown})
    except PrivilegeMissing:
        warnings.append("What is in it cannot be told: the account may not list its collections (listCollections).")
    return preview_of(
        f"Deletes the logical database {name} with what is in it (collections and views: {len(inside)})."
        if not warnings
        else f"Deletes the logical database {name} with all that is in it.",
        [Affected(change=Change.REMOVE, kind="logical database", name=name), *inside],
        keeps=await users_of(server, name),
        warnings=warnings,
    )


@action(
    "create-database",
    effect=Effect.WRITE,
    privileges=("listDatabases", "createCollection"),
    example_params={"database_name": "custom-db"},
    example_result={"name": "custom-db", "protected": False},
    aftermath=Aftermath(look=look_whether_there, goal=Goal.THERE, result=created),
    preview=preview_create,
)
async def create_database(server: MongoServer, params: NewMongoDatabase) -> LogicalDatabase:
    """Create a logical database, with an empty collection so that it is really there.

    A name that differs from an existing one only in case is taken: MongoDB does not keep two such.

    Raises: AlreadyExists, Protected, Conflict
    """
    name = params.database_name
    await check_new(server, name)
    if not await write_and_look(server, name, {"create": PLACEHOLDER}, there=True):
        raise Conflict("It was created and is gone again: somebody dropped it.")
    return LogicalDatabase(name=name, protected=False)


@action(
    "delete-database",
    effect=Effect.DESTRUCTIVE,
    privileges=("listDatabases", "dropDatabase"),
    example_params={"database_name": "custom-db"},
    aftermath=Aftermath(look=look_into, goal=Goal.GONE),
    preview=preview_delete,
    logical_database=named,
)
async def delete_database(server: MongoServer, params: ExistingLogicalDatabase) -> None:
    """Delete a logical database with all that it holds, but for its users, which MongoDB keeps in `admin`.

    Raises: LogicalDatabaseNotFound, Protected, Conflict
    """
    name = params.database_name
    await check_deletable(server, name)
    try:
        gone = await write_and_look(server, name, {"dropDatabase": 1}, there=False)
    except DeadlineExceeded as late:
        raise DeadlineExceeded(f"{late.message} A part may be done; doing it again completes it.") from late
    if not gone:
        raise Conflict("It was deleted and is there again: a client goes on writing to it.")


async def check_new(server: MongoServer, name: str) -> None:
    """Make sure that a name is free.

    Raises: Protected, AlreadyExists
    """
    refuse_system(name)
    taken = {*await existing_names(server), *SYSTEM, server.address.database}
    if name in taken:
        raise AlreadyExists()
    if lower_ascii(name) in {lower_ascii(other) for other in taken}:
        raise AlreadyExists("This name differs from an existing one only in case.")


async def check_deletable(server: MongoServer, name: str) -> None:
    """Make sure that a logical database is there and may go.

    Raises: Protected, LogicalDatabaseNotFound
    """
    refuse_system(name)
    if name == server.address.database:
        raise Protected("This is the deployment's own logical database: it can be reset, not deleted.")
    # dropDatabase says nothing when there is none. And a name that is in the list is one that the driver takes.
    if name not in await existing_names(server):
        raise LogicalDatabaseNotFound()


async def existing_names(server: MongoServer) -> set[str]:
    """Ask for the names of all logical databases, system ones included.

    Raises: PrivilegeMissing, and not a list of only those that the account may read, which is the default
    """
    reply = await server.read("admin", {"listDatabases": 1, "nameOnly": True, "authorizedDatabases": False})
    return {database["name"] for database in reply["databases"]}


def refuse_system(name: str) -> None:
    """Raises: Protected, for a system database."""
    if name in SYSTEM:
        raise Protected("This logical database belongs to MongoDB itself.")


def lower_ascii(name: str) -> bytes:
    """Fold a name as MongoDB compares them: ASCII letters only."""
    return name.encode("utf-8", "surrogatepass").lower()


async def write_and_look(server: MongoServer, name: str, command: dict[str, Any], *, there: bool) -> bool:
    """Send a write on a logical database once, then tell whether it is there, or gone, as it should be.

    Raises: ConnectionLost, when the connection was cut and it is not as it should be
    """
    lost: ConnectionLost | None = None
    try:
        await server.write(name, command)
    except ConnectionLost as cut:
        lost = cut
    try:
        done = (name in await existing_names(server)) is there
    except (EngineUnavailable, DeadlineExceeded, PrivilegeMissing) as blind:
        raise lost or unseen(server, blind, "listDatabases") from blind
    if lost is not None and not done:
        raise lost
    return done


async def collections(server: MongoServer, name: str) -> list[dict[str, Any]]:
    """List collections and views with their options; all of them, as far as they fit into one answer (16 MiB)."""
    reply = await server.read(name, {"listCollections": 1})
    return reply["cursor"]["firstBatch"]
