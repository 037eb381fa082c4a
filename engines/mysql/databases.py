"""Logical databases: list, create, delete."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from engines.action import Effect, action
from engines.aftermath import AS_ASKED, Aftermath, Goal
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
from engines.mysql.facts import Flavour
from engines.mysql.identifiers import SYSTEM_SCHEMAS, Identifier, shown
from engines.names import ExistingLogicalDatabase, LogicalDatabase, NewLogicalDatabase

if TYPE_CHECKING:
    from engines.mysql.driver import Rows, Session
    from engines.mysql.server import MySQLServer

# Names are compared in Python: the collation of information_schema takes `App` for `app`, and a character outside the
# Basic Multilingual Plane reaches the server as a question mark.
LIST = "SHOW DATABASES"

CREATE = "CREATE DATABASE %s CHARACTER SET utf8mb4"

DELETE = "DROP DATABASE %s"

# Names that cannot be taken in upper case either: the server would speak of a missing privilege.
RESERVED: dict[Flavour, frozenset[str]] = {
    "mysql": frozenset({"information_schema", "performance_schema"}),
    "mariadb": frozenset({"information_schema"}),
}

# MariaDB and MySQL 5.7 drop table by table, and refuse the one that another database refers to when others are gone.
REFERENCES = """
    SELECT UNIQUE_CONSTRAINT_SCHEMA, CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME
      FROM information_schema.REFERENTIAL_CONSTRAINTS
     WHERE UNIQUE_CONSTRAINT_SCHEMA = %s"""

MADE = "SELECT TABLE_SCHEMA, TABLE_NAME, CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"


async def look_whether_there(server: MySQLServer, params: NewLogicalDatabase) -> list[str]:
    """Tell whether there is a logical database of this name."""
    names = names_in(await server.fetch(LIST))
    return [AS_ASKED] if kept_as(params.database_name, names, server.facts.folds_case) is not None else []


async def look_into(server: MySQLServer, params: ExistingLogicalDatabase) -> list[str]:
    """List a logical database and its tables, each with when it was made; the former has nothing of its own."""
    name = params.database_name
    if name not in names_in(await server.fetch(LIST)):
        return []
    return [name, *await made_in(server, name, MADE)]


async def made_in(server: MySQLServer, name: str, *statements: str) -> list[str]:
    """List what statements find in a logical database, each with when it was made."""
    rows = [row for statement in statements for row in await server.fetch(statement, name)]
    # information_schema compares without regard to case.
    return [f"{thing} {made_at}" for schema, thing, made_at in rows if schema == name]


def created(params: NewLogicalDatabase) -> LogicalDatabase:
    """Give the result of a creation."""
    return LogicalDatabase(name=params.database_name, protected=False)


@action(
    "list-databases",
    effect=Effect.READ,
    privileges=("SHOW DATABASES",),
    example_result=[{"name": "database-name-1234", "protected": True}, {"name": "custom-db", "protected": False}],
)
async def list_databases(server: MySQLServer) -> list[LogicalDatabase]:
    """List the logical databases, sorted by name.

    System schemas are left out. The deployment's own database is protected.
    """
    names = names_in(await server.fetch(LIST))
    if not server.facts.sees_every_database and not (await server.log_in()).sees_every_database:
        raise PrivilegeMissing
    return [
        LogicalDatabase(name=name, protected=server.is_own(name))
        for name in sorted(names)
        if name not in SYSTEM_SCHEMAS
    ]


@action(
    "create-database",
    effect=Effect.WRITE,
    privileges=("CREATE",),
    example_params={"database_name": "custom-db"},
    example_result={"name": "custom-db", "protected": False},
    aftermath=Aftermath(look=look_whether_there, goal=Goal.THERE, result=created),
)
async def create_database(server: MySQLServer, params: NewLogicalDatabase) -> LogicalDatabase:
    """Create a logical database with the character set utf8mb4.

    Where the server folds the case of names (lower_case_table_names), the answer has the name as the server keeps it.

    Raises: AlreadyExists
    """
    name = params.database_name

    def create(session: Session) -> None:
        if name in SYSTEM_SCHEMAS or name.lower() in RESERVED[session.facts.flavour]:
            raise AlreadyExists(f"{shown(name)} is the name of a system schema.")
        if (taken := kept_as(name, names_in(session.fetch(LIST)), session.facts.folds_case)) is not None:
            raise AlreadyExists(f"There is a logical database {shown(taken)} already.")
        session.prepare_to_write()
        session.execute(CREATE, Identifier(name))

    names = await names_after(
        server,
        create,
        lambda names: kept_as(name, names, server.facts.folds_case) is not None,
        "The logical database was not created.",
    )
    created = kept_as(name, names, server.facts.folds_case) or name
    return LogicalDatabase(name=created, protected=server.is_own(created))


@action(
    "delete-database",
    effect=Effect.DESTRUCTIVE,
    privileges=("DROP",),
    example_params={"database_name": "custom-db"},
    example_result=None,
    aftermath=Aftermath(look=look_into, goal=Goal.GONE),
)
async def delete_database(server: MySQLServer, params: ExistingLogicalDatabase) -> None:
    """Delete a logical database with all that is in it.

    One that another logical database refers to with a foreign key is left as it is.

    Raises: Protected, LogicalDatabaseNotFound, Conflict
    """
    name = params.database_name

    def delete(session: Session) -> None:
        look_up(server, session, name)
        if server.is_own(name):
            raise Protected(f"{shown(name)} is the deployment's own logical database: it can be reset, not deleted.")
        referring = [row for row in session.fetch(REFERENCES, name) if row[0] == name != row[1]]
        if referring:
            _, schema, table, constraint = referring[0]
            raise Conflict(
                f"The foreign key {shown(constraint)} of the table {shown(table)} in the logical database "
                f"{shown(schema)} refers to {shown(name)}: nothing was deleted."
            )
        session.prepare_to_write()
        session.execute(DELETE, Identifier(name))

    await names_after(
        server,
        delete,
        lambda names: name not in names,
        "The logical database is still there, perhaps without some of its tables; doing it again completes it.",
    )


def look_up(server: MySQLServer, session: Session, name: str) -> None:
    """Make sure that a logical database is there and is none of the server's.

    Raises: Protected, LogicalDatabaseNotFound, PrivilegeMissing (it may be there, but cannot be seen)
    """
    if name in SYSTEM_SCHEMAS:
        raise Protected(f"{shown(name)} is a system schema.")
    if name not in names_in(session.fetch(LIST)):
        if not session.facts.sees_every_database:
            raise PrivilegeMissing
        raise LogicalDatabaseNotFound(f"There is no logical database {shown(name)}.")


async def names_after(
    server: MySQLServer, job: Callable[[Session], None], holds: Callable[[Collection[str]], bool], otherwise: str
) -> list[str]:
    """Run a job that writes, make sure of what it was for, and give the names that there are then.

    When it was cut or came late, what is true decides, as its statement has been stopped by then; `otherwise` tells
    what holds when it was not done.

    Raises: whatever the job raises, Conflict (somebody else undid it at once)
    """
    try:
        await server.write(job)
    except (ConnectionLost, DeadlineExceeded) as unfinished:
        try:
            names = names_in(await server.look(LIST))
        except (EngineUnavailable, DeadlineExceeded):
            raise unfinished from None
        if not holds(names):
            raise type(unfinished)(f"{unfinished.message} {otherwise}") from unfinished
        return names
    names = names_in(await server.fetch(LIST))
    if not holds(names):
        raise Conflict("It was done, and undone by somebody else at once.")
    return names


def names_in(rows: Rows) -> list[str]:
    """Take the names out of the rows of SHOW DATABASES."""
    return [row[0] for row in rows]


def kept_as(name: str, names: Collection[str], folds_case: bool) -> str | None:
    """Find the name under which the server keeps a database, or None."""
    if name in names:
        return name
    return next((each for each in names if each.lower() == name.lower()), None) if folds_case else None
