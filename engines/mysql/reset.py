"""Empty a logical database, object by object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from engines import deadline
from engines.action import Effect, action
from engines.aftermath import Aftermath, Goal
from engines.engine import lacking
from engines.errors import (
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    InvalidParams,
    PrivilegeMissing,
)
from engines.mysql.databases import counted, grants_on, look_up
from engines.mysql.facts import granted, granted_on, has_system_users
from engines.mysql.identifiers import Identifier, shown
from engines.mysql.made import made_in
from engines.mysql.requirements import REQUIREMENTS
from engines.names import ExistingLogicalDatabase, named
from engines.preview import Affected, Change, Preview, preview_of

if TYPE_CHECKING:
    from engines.mysql.driver import Session
    from engines.mysql.server import MySQLServer

NO_FOREIGN_KEYS = "SET SESSION foreign_key_checks = 0"

# In MariaDB's own mode, DROP PACKAGE is a syntax error before 11.3.
WITH_PACKAGES = "SET SESSION sql_mode = 'ORACLE'"

TABLES = "SHOW FULL TABLES FROM %s"

ROUTINES = """
    SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE
      FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s"""

EVENTS = "SELECT EVENT_SCHEMA, EVENT_NAME, 'EVENT' FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s"

# MySQL since 9.2: code in JavaScript that routines share.
LIBRARIES = """
    SELECT LIBRARY_SCHEMA, LIBRARY_NAME, 'LIBRARY'
      FROM information_schema.LIBRARIES WHERE LIBRARY_SCHEMA = %s"""

# Triggers go with their tables, a package body with its package, an index or a sequence's table with its object.
# In this order: an event could fill a table again, and MySQL refuses to drop what a system user has defined, which may
# be anything but a table: that is met before any data is gone.
DROP = {
    "EVENT": "DROP EVENT IF EXISTS %s.%s",
    "PROCEDURE": "DROP PROCEDURE IF EXISTS %s.%s",
    "FUNCTION": "DROP FUNCTION IF EXISTS %s.%s",
    "PACKAGE": "DROP PACKAGE IF EXISTS %s.%s",
    "PACKAGE BODY": "DROP PACKAGE BODY IF EXISTS %s.%s",
    "LIBRARY": "DROP LIBRARY IF EXISTS %s.%s",
    "VIEW": "DROP VIEW IF EXISTS %s.%s",
    "SYSTEM VIEW": "DROP VIEW IF EXISTS %s.%s",
    "BASE TABLE": "DROP TABLE IF EXISTS %s.%s",
    "SYSTEM VERSIONED": "DROP TABLE IF EXISTS %s.%s",
    "SEQUENCE": "DROP SEQUENCE IF EXISTS %s.%s",
}

ROUNDS = 3
"""How often to look again, for an application that makes new tables meanwhile."""


TRIGGERS = """
    SELECT TRIGGER_SCHEMA, TRIGGER_NAME
      FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s"""

SIZES = """
    SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_ROWS, DATA_LENGTH + INDEX_LENGTH
      FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"""

STATISTICS_EXPIRY = "SELECT @@SESSION.information_schema_stats_expiry"

EXPIRE_STATISTICS = "SET SESSION information_schema_stats_expiry = %s"

KINDS = {"BASE TABLE": "table", "SYSTEM VERSIONED": "table", "SYSTEM VIEW": "view"}
"""Words for people, where the server's own are others."""

WITH_ROWS = frozenset({"BASE TABLE", "SYSTEM VERSIONED"})


class Found(NamedTuple):
    """An object in the logical database; the kind is a key of `DROP`."""

    kind: str
    name: str


SHOWING = ("DROP", "ALTER ROUTINE", "EVENT")
"""Privileges without which an account is not shown the tables (MariaDB), the routines, the events."""


async def look_into(server: MySQLServer, params: ExistingLogicalDatabase) -> list[str]:
    """List what is in a logical database, each with when it was made.

    Raises: PrivilegeMissing (there may be something that cannot be seen)
    """
    name = params.database_name

    def look(session: Session) -> list[str]:
        if not granted_on(session.facts.grants, name) >= {*SHOWING}:
            raise PrivilegeMissing
        return made_in(session, name)

    return await server.read(look)


async def preview_reset(server: MySQLServer, params: ExistingLogicalDatabase) -> Preview:
    """Tell what reset-database would remove.

    Raises: Protected, LogicalDatabaseNotFound, PrivilegeMissing
    """
    name = params.database_name

    def look(session: Session) -> Preview:
        check(server, session, name)
        inside = affected_in(session, name)
        facts = session.facts
        unsure = (
            has_system_users(facts.flavour, facts.version) and "SYSTEM_USER" not in granted(facts.grants) and inside
        )
        remedy = REQUIREMENTS["SYSTEM_USER"].remedy(server)
        warnings = hidden_from(session, name, inside)
        if unsure:
            warnings.append(
                f"Missing: SYSTEM_USER. Remedy: {remedy} Without it the server refuses to drop what a system user has "
                "defined."
            )
        return preview_of(
            f"Removes {counted(len(inside), 'object')} from the logical database {shown(name)}, which stays.",
            inside,
            keeps=[
                f"the logical database {shown(name)} with its character set and collation",
                *grants_on(session, name),
            ],
            warnings=warnings,
        )

    return await server.write(look)


@action(
    "reset-database",
    effect=Effect.DESTRUCTIVE,
    privileges=(*SHOWING, "SYSTEM_USER"),
    deadline=deadline.LONGEST,
    example_params={"database_name": "custom-db"},
    example_result=None,
    aftermath=Aftermath(look=look_into, goal=Goal.GONE),
    preview=preview_reset,
    logical_database=named,
)
async def reset_database(server: MySQLServer, params: ExistingLogicalDatabase) -> None:
    """Delete everything inside a logical database: tables, views, routines, events, triggers, sequences.

    The logical database itself stays, with its character set, its collation and the grants on it; so the
    deployment's own can be reset too. Tables go even when another logical database refers to them with a foreign key.
    One that was interrupted is completed by doing it again.

    Raises: Protected, LogicalDatabaseNotFound, Conflict
    """
    name = params.database_name
    removed: list[Found] = []

    def reset(session: Session) -> None:
        check(server, session, name)
        session.prepare_to_write()
        try:
            session.execute(NO_FOREIGN_KEYS)
            if session.facts.flavour == "mariadb":
                session.execute(WITH_PACKAGES)
            empty(session, name, removed)
        finally:
            # Its mode and its foreign_key_checks are not what the next user expects.
            session.close()

    try:
        await server.write(reset)
    except (ConnectionLost, DeadlineExceeded) as unfinished:
        raise await with_what_is_left(server, name, unfinished) from unfinished
    except (PrivilegeMissing, InvalidParams) as refused:
        if not removed:
            raise
        raise await with_what_is_gone(server, len(removed), refused) from refused


def check(server: MySQLServer, session: Session, name: str) -> None:
    """Make sure that a logical database is there, and that the account sees all that is in it.

    Raises: Protected, LogicalDatabaseNotFound, PrivilegeMissing
    """
    look_up(server, session, name)
    check_privileges(server, session, name)


def check_privileges(server: MySQLServer, session: Session, name: str) -> None:
    """Refuse where the server would hide objects from the account, and nothing seem to be left.

    Raises: PrivilegeMissing
    """
    held = granted_on(session.facts.grants, name)
    missing = [REQUIREMENTS[privilege] for privilege in SHOWING if privilege not in held]
    if missing:
        told = [f"Missing: {each.name}. Remedy: {each.remedy(server)}" for each in missing]
        raise PrivilegeMissing(
            " ".join(["The engine account cannot see or drop all that there may be.", *told]),
            privilege=", ".join(each.name for each in missing),
        )


def empty(session: Session, name: str, removed: list[Found]) -> None:
    """Drop what is there until nothing is, and note down what is gone.

    Raises: PrivilegeMissing; Conflict, when something is there again and again
    """
    for _ in range(ROUNDS):
        found = sorted(objects_in(session, name), key=lambda each: list(DROP).index(each.kind))
        if not found:
            return
        for each in found:
            session.execute(DROP[each.kind], Identifier(name), Identifier(each.name))
            removed.append(each)
    left = list(objects_in(session, name))
    if left:
        raise Conflict(f"Somebody makes new objects in it all the time: {len(left)} are there after {ROUNDS} rounds.")


def objects_in(session: Session, name: str) -> Iterator[Found]:
    """List what is in a logical database, but for what goes with something else."""
    for table, kind in session.execute(TABLES, Identifier(name)):
        yield Found(kind, table)
    facts = session.facts
    listed = [ROUTINES, EVENTS, *([LIBRARIES] if facts.flavour == "mysql" and facts.version >= (9, 2) else [])]
    for statement in listed:
        for schema, each, kind in session.execute(statement, name):
            # information_schema compares without regard to case.
            if schema == name:
                yield Found(kind, each)


def affected_in(session: Session, name: str) -> list[Affected]:
    """List what would go with everything inside a logical database, with its size; triggers go with their tables."""
    found = sorted(objects_in(session, name), key=lambda each: list(DROP).index(each.kind))
    facts = session.facts
    # Unless it is told to look, MySQL 8 gives figures of yesterday, and writes new ones down.
    fresh = session.execute(STATISTICS_EXPIRY) if facts.flavour == "mysql" and facts.version >= (8,) else ()
    try:
        if fresh:
            session.execute(EXPIRE_STATISTICS, 0)
        sizes = {table: (rows, size) for schema, table, rows, size in session.execute(SIZES, name) if schema == name}
    finally:
        if fresh:
            session.execute(EXPIRE_STATISTICS, fresh[0][0])
    nothing = (None, None)
    affected: list[Affected] = []
    for each in found:
        rows, size = sizes.get(each.name, nothing) if each.kind in WITH_ROWS else nothing
        affected.append(
            Affected(
                change=Change.REMOVE,
                kind=KINDS.get(each.kind, each.kind.lower()),
                name=each.name,
                rows=rows,
                bytes=size,
            )
        )
    triggers = [trigger for schema, trigger in session.execute(TRIGGERS, name) if schema == name]
    return [*affected, *(Affected(change=Change.REMOVE, kind="trigger", name=each) for each in triggers)]


def hidden_from(session: Session, name: str, affected: Sequence[Affected]) -> list[str]:
    """Warn of kinds of objects that the server does not show to this account."""
    held = granted_on(session.facts.grants, name)
    missing = [privilege for privilege in SHOWING if privilege not in held]
    warnings = [f"Without {', '.join(missing)} the account may not be shown all that there is."] if missing else []
    if "TRIGGER" not in held and any(each.kind == "table" for each in affected):
        warnings.append("Triggers go with their tables; without TRIGGER the account is not shown which there are.")
    return warnings


async def with_what_is_left(
    server: MySQLServer, name: str, unfinished: ConnectionLost | DeadlineExceeded
) -> ConnectionLost | DeadlineExceeded:
    """Add to a cut or late attempt how much is still there."""
    try:
        left = len(await server.look(lambda session: session.fetch(TABLES, Identifier(name))))
    except (EngineUnavailable, DeadlineExceeded, PrivilegeMissing):
        return unfinished
    return type(unfinished)(
        f"{unfinished.message} {left} tables and views are left in the logical database; doing it again completes it."
    )


async def with_what_is_gone(server: MySQLServer, removed: int, refused: EngineError) -> Conflict:
    """Make the error of an attempt that was refused half-way; its own would say that nothing was done."""
    try:
        missing = await lacking(server, (*SHOWING, "SYSTEM_USER"))
    except EngineError:
        missing = []
    told = " ".join([refused.message, *missing])
    return Conflict(
        f"{counted(removed, 'object')} {'was' if removed == 1 else 'were'} removed, then the engine refused: {told} "
        "Doing it again completes it."
    )
