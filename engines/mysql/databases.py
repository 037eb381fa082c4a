"""Logical databases: list, create, delete."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from engines.action import Effect, action
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
from engines.mysql.facts import DATABASE_PRIVILEGES, Flavour, granted_on, like
from engines.mysql.identifiers import SYSTEM_SCHEMAS, Identifier, shown
from engines.mysql.made import known_by
from engines.names import ExistingLogicalDatabase, LogicalDatabase, NewLogicalDatabase, named
from engines.preview import Affected, Change, Preview, preview_of

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

FOLDING = "SELECT @@GLOBAL.lower_case_table_names"

LOWERS = 1
"""The value with which names are kept in lower case; with 2 they are kept as they are given."""

GRANTED = "SELECT DISTINCT GRANTEE, TABLE_SCHEMA FROM information_schema.SCHEMA_PRIVILEGES"


async def look_whether_there(server: MySQLServer, params: NewLogicalDatabase) -> list[str]:
    """Tell whether there is a logical database of this name."""
    name = params.database_name
    names = await server.read(lambda session: names_with(session, name))
    return [AS_ASKED] if kept_as(name, names, server.facts.folds_case) is not None else []


async def look_into(server: MySQLServer, params: ExistingLogicalDatabase) -> list[str]:
    """Give that by which a logical database is known again."""
    name = params.database_name

    def look(session: Session) -> list[str]:
        return known_by(session, name) if name in names_with(session, name) else []

    return await server.read(look)


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

    System schemas are left out. The deployment's own database is protected, and so are those of other deployments on
    the server.
    """

    def look(session: Session) -> Rows:
        rows = session.fetch(LIST)
        # Of this login: one from before a GRANT still sees less than another. The pool asks again on a new one.
        if not session.facts.sees_every_database:
            raise PrivilegeMissing
        return rows

    names = names_in(await server.read(look))
    theirs = server.of_others(names)
    return [
        LogicalDatabase(name=name, protected=server.is_own(name) or name in theirs)
        for name in sorted(names)
        if name not in SYSTEM_SCHEMAS
    ]


async def preview_create(server: MySQLServer, params: NewLogicalDatabase) -> Preview:
    """Tell what create-database would make.

    Raises: AlreadyExists, PrivilegeMissing
    """
    name = params.database_name

    def look(session: Session) -> Preview:
        check_new(session, name)
        require_on(session, name, "CREATE")
        lowered = session.facts.folds_case and session.fetch(FOLDING) == ((LOWERS,),)
        made = name.lower() if lowered else name
        return preview_of(
            f"Creates the logical database {shown(made)} with the character set utf8mb4.",
            [Affected(change=Change.CREATE, kind="logical database", name=made)],
        )

    return await server.write(look)


async def preview_delete(server: MySQLServer, params: ExistingLogicalDatabase) -> Preview:
    """Tell what delete-database would remove.

    Raises: Protected, LogicalDatabaseNotFound, PrivilegeMissing, Conflict
    """
    # That module looks up what it empties with `look_up` of this one.
    from engines.mysql.reset import affected_in, hidden_from

    name = params.database_name

    def look(session: Session) -> Preview:
        check_deletable(server, session, name)
        require_on(session, name, "DROP")
        inside = affected_in(session, name)
        itself = Affected(change=Change.REMOVE, kind="logical database", name=name)
        return preview_of(
            f"Deletes the logical database {shown(name)} with {counted(len(inside), 'object')} in it.",
            [itself, *inside],
            keeps=grants_on(session, name),
            warnings=hidden_from(session, name, inside),
        )

    return await server.write(look)


def require_on(session: Session, name: str, privilege: str) -> None:
    """Refuse where the account has no privilege on a logical database, as the server would.

    Raises: PrivilegeMissing
    """
    if privilege not in granted_on(session.facts.grants, name):
        raise PrivilegeMissing


def grants_on(session: Session, name: str) -> list[str]:
    """List the grants on a logical database, which stay when it goes; as far as the account is shown them."""
    found = {account for account, pattern in session.fetch(GRANTED) if like(name, pattern)}
    return [f"the grants of {account} on it" for account in sorted(found)]


def counted(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@action(
    "create-database",
    effect=Effect.WRITE,
    privileges=("CREATE",),
    example_params={"database_name": "custom-db"},
    example_result={"name": "custom-db", "protected": False},
    aftermath=Aftermath(look=look_whether_there, goal=Goal.THERE, result=created),
    preview=preview_create,
)
async def create_database(server: MySQLServer, params: NewLogicalDatabase) -> LogicalDatabase:
    """Create a logical database with the character set utf8mb4.

    Where the server folds the case of names (lower_case_table_names), the answer has the name as the server keeps it.

    Raises: AlreadyExists
    """
    name = params.database_name

    names = await names_after(
        server,
        name,
        lambda session: check_new(session, name),
        CREATE,
        holds=lambda names: kept_as(name, names, server.facts.folds_case) is not None,
        otherwise="The logical database was not created.",
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
    preview=preview_delete,
    logical_database=named,
)
async def delete_database(server: MySQLServer, params: ExistingLogicalDatabase) -> None:
    """Delete a logical database with all that is in it.

    One that another logical database refers to with a foreign key is left as it is.

    Raises: Protected, LogicalDatabaseNotFound, Conflict
    """
    name = params.database_name

    await names_after(
        server,
        name,
        lambda session: check_deletable(server, session, name),
        DELETE,
        holds=lambda names: name not in names,
        otherwise="The logical database is still there, perhaps without some of its tables; "
        "doing it again completes it.",
    )


def check_new(session: Session, name: str) -> None:
    """Make sure that a name is free.

    Raises: AlreadyExists
    """
    if name in SYSTEM_SCHEMAS or name.lower() in RESERVED[session.facts.flavour]:
        raise AlreadyExists(f"{shown(name)} is the name of a system schema.")
    if (taken := kept_as(name, names_in(session.fetch(LIST)), session.facts.folds_case)) is not None:
        raise AlreadyExists(f"There is a logical database {shown(taken)} already.")


def check_deletable(server: MySQLServer, session: Session, name: str) -> None:
    """Make sure that a logical database is there and may go.

    Raises: Protected, LogicalDatabaseNotFound, PrivilegeMissing, Conflict
    """
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


def look_up(server: MySQLServer, session: Session, name: str) -> None:
    """Make sure that a logical database is there and is none of the server's.

    Raises: Protected, LogicalDatabaseNotFound, PrivilegeMissing (it may be there, but cannot be seen)
    """
    if name in SYSTEM_SCHEMAS:
        raise Protected(f"{shown(name)} is a system schema.")
    if name not in names_with(session, name):
        raise LogicalDatabaseNotFound(f"There is no logical database {shown(name)}.")


def names_with(session: Session, name: str) -> list[str]:
    """List the logical databases, among them the one of this name if it is there.

    Raises: PrivilegeMissing (it may be there, but cannot be seen)
    """
    names, facts = names_in(session.fetch(LIST)), session.facts
    hidden = DATABASE_PRIVILEGES.isdisjoint(granted_on(facts.grants, name))
    if hidden and kept_as(name, names, facts.folds_case) is None:
        raise PrivilegeMissing
    return names


async def names_after(
    server: MySQLServer,
    name: str,
    check: Callable[[Session], None],
    statement: str,
    *,
    holds: Callable[[Collection[str]], bool],
    otherwise: str,
) -> list[str]:
    """Check, run a statement that writes, make sure of what it was for, and give the names that there are then, one or
    none of this name among them.

    When the statement was cut or came late, what is true decides, as it has been stopped by then; `otherwise` tells
    what holds when it was not done.

    Raises: whatever the check raises, Conflict (somebody else undid it at once)
    """
    sent = False

    def work(session: Session) -> None:
        nonlocal sent
        sent = False  # the pool may run this once more, on a new login
        check(session)
        session.prepare_to_write()
        sent = True
        session.execute(statement, Identifier(name))

    try:
        await server.write(work)
    except (ConnectionLost, DeadlineExceeded) as unfinished:
        if not sent:
            # What is true by now is of others.
            raise type(unfinished)(
                f"{unfinished.message} The change itself was not sent to the engine."
            ) from unfinished
        try:
            names = await server.look(lambda session: names_with(session, name))
        except (EngineUnavailable, DeadlineExceeded, PrivilegeMissing):
            raise unfinished from None
        if not holds(names):
            raise type(unfinished)(f"{unfinished.message} {otherwise}") from unfinished
        return names
    try:
        names = names_in(await server.fetch(LIST))
    except PrivilegeMissing as blind:
        raise unseen(server, blind, "SHOW DATABASES") from blind
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
