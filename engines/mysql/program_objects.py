"""Read the program objects of a logical database on the server, make them, drop them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from engines.errors import BackupFailed, DeadlineExceeded, EngineError, EngineUnavailable, PrivilegeMissing
from engines.mysql.contents import VIEWS, character_set_of, tables_in
from engines.mysql.identifiers import Identifier, shown
from engines.mysql.program import KINDS, ProgramObject, disabled, encodable, in_order, settings_of
from engines.mysql.reset import DROP, EVENTS, LIBRARIES, ROUTINES, WITH_PACKAGES

if TYPE_CHECKING:
    from engines.mysql.driver import Session

USE = "USE %s"

TRIGGERS = """
    SELECT TRIGGER_SCHEMA, TRIGGER_NAME, 'TRIGGER' FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s
     ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER"""

SHOW = {
    "LIBRARY": "SHOW CREATE LIBRARY %s",
    "PACKAGE": "SHOW CREATE PACKAGE %s",
    "PACKAGE BODY": "SHOW CREATE PACKAGE BODY %s",
    "FUNCTION": "SHOW CREATE FUNCTION %s",
    "PROCEDURE": "SHOW CREATE PROCEDURE %s",
    "TRIGGER": "SHOW CREATE TRIGGER %s",
    "VIEW": "SHOW CREATE VIEW %s",
    "EVENT": "SHOW CREATE EVENT %s",
}

DROP_TRIGGER = "DROP TRIGGER IF EXISTS %s.%s"

# Fails where a view names what is no longer there.
COLUMNS = "SHOW COLUMNS FROM %s"

ORDINARY = (
    "SET SESSION sql_mode = '', character_set_client = utf8mb4, collation_connection = utf8mb4_general_ci,"
    " time_zone = '+00:00'"
)

# The character set goes with it.
COLLATE = "ALTER DATABASE %s COLLATE %s"


def read_program(session: Session, database: str, kinds: Collection[str] = KINDS) -> list[ProgramObject]:
    """Read the program objects of a logical database, in the order in which they can be made.

    Raises: PrivilegeMissing, when the server hides one of them
    """
    session.execute(USE, Identifier(database))
    found = [_read(session, kind, name) for kind, name in names_of(session, database) if kind in kinds]
    by_kind = {kind: [each for each in found if each.kind == kind] for kind in KINDS}
    return [each for kind in KINDS for each in (in_order(by_kind[kind]) if kind == "VIEW" else by_kind[kind])]


def names_of(session: Session, database: str) -> Iterator[tuple[str, str]]:
    """List the program objects, each as kind and name; the triggers of a table in the order in which they act."""
    facts = session.facts
    for name, kind in tables_in(session, database).items():
        if kind in VIEWS:
            yield "VIEW", name
    libraries = [LIBRARIES] if facts.flavour == "mysql" and facts.version >= (9, 2) else []
    for statement in (ROUTINES, EVENTS, TRIGGERS, *libraries):
        for schema, name, kind in session.execute(statement, database):
            if schema == database:  # information_schema compares without regard to case
                yield kind, name


def _read(session: Session, kind: str, name: str) -> ProgramObject:
    [row] = session.execute(SHOW[kind], Identifier(name))
    if kind == "VIEW":
        _, statement, client, connection = row
        view = ProgramObject(kind=kind, name=name, statement=statement, client=client, connection=connection)
        return encodable(replace(view, broken=_is_broken(session, name)))
    time_zone = "+00:00"
    if kind == "EVENT":
        _, sql_mode, time_zone, statement, *of_session = row
    else:
        _, sql_mode, statement, *of_session = row
    if not statement:
        raise PrivilegeMissing(f"The engine account may not see the statement of the {kind.lower()} {shown(name)}.")
    read = ProgramObject(kind=kind, name=name, statement=statement, sql_mode=sql_mode, time_zone=time_zone)
    if of_session:
        client, connection, collation = of_session[:3]
        read = replace(read, client=client, connection=connection, collation=collation)
    return encodable(read)


def _is_broken(session: Session, view: str) -> bool:
    try:
        session.execute(COLUMNS, Identifier(view))
    except (EngineUnavailable, DeadlineExceeded):
        raise
    except EngineError:
        return True
    return False


def make(session: Session, database: str, wanted: Sequence[ProgramObject]) -> None:
    """Make program objects in a logical database; one that needs another comes after it, whatever the order.

    Raises: BackupFailed, naming the object and what the server says
    """
    session.execute(USE, Identifier(database))
    _, ordinary = character_set_of(session, database)
    collation = ordinary
    left = [each for each in wanted if not each.broken]
    try:
        while left:
            refused: dict[tuple[str, str], EngineError] = {}
            for each in left:
                if each.collation not in (None, collation):
                    collation = each.collation or ordinary
                    session.execute(COLLATE, Identifier(database), collation)
                try:
                    _make(session, each)
                except (EngineUnavailable, DeadlineExceeded):
                    raise
                except EngineError as error:
                    refused[each.key] = error
            if len(refused) == len(left):
                first = refused[left[0].key]
                cause = PrivilegeMissing if isinstance(first, PrivilegeMissing) else BackupFailed
                raise cause(f"The {left[0]} cannot be made: {first.message}") from first
            left = [each for each in left if each.key in refused]
    finally:
        if collation != ordinary:
            session.execute(COLLATE, Identifier(database), ordinary)


def _make(session: Session, each: ProgramObject) -> None:
    session.execute(settings_of(each))
    try:
        session.execute(each.encoded())
    finally:
        session.execute(ORDINARY)


def drop(session: Session, database: str, keys: Collection[tuple[str, str]]) -> None:
    """Drop program objects, events first."""
    in_turn = [key for kind in reversed(KINDS) for key in keys if key[0] == kind]
    packages = session.facts.flavour == "mariadb" and any(kind.startswith("PACKAGE") for kind, _ in keys)
    if packages:
        session.execute(WITH_PACKAGES)
    for kind, name in in_turn:
        session.execute(DROP_TRIGGER if kind == "TRIGGER" else DROP[kind], Identifier(database), Identifier(name))
    if packages:
        session.execute(ORDINARY)


def bring_about(
    session: Session, database: str, wanted: Sequence[ProgramObject], old: Collection[tuple[str, str]]
) -> None:
    """Drop what is old and not wanted, make what is wanted and missing; what is the same already is not touched.

    So it can be done again after any interruption, and the privileges on single routines stay where they can.

    Raises: BackupFailed
    """
    keys = {each.key for each in wanted}
    current = {each.key: each for each in read_program(session, database)}
    same = {each.key for each in wanted if _is_same(current.get(each.key), each)}
    drop(session, database, [key for key in current if key not in same and (key in keys or key in old)])
    there = set(names_of(session, database))  # a package takes its body along
    make(session, database, [each for each in wanted if each.key not in there])


def lacking(session: Session, database: str, wanted: Sequence[ProgramObject]) -> list[str]:
    """Tell which of the objects that were brought about are not there, or not as they were.

    Of an event whose time has passed the server says a note (1588): it makes none, or with PRESERVE a disabled one.
    """
    current = {each.key: each for each in read_program(session, database)}
    told: list[str] = []
    for each in wanted:
        found = current.get(each.key)
        if each.kind == "EVENT" and found is None:
            told.append(f"The {each} is not there, as its time has passed: make it again with another.")
        elif found is None and not each.broken:
            told.append(f"The {each} is not there any more.")
        elif each.kind == "EVENT" and not _is_same(found, each) and _is_same(found, disabled(each)):
            told.append(f"The {each} is disabled, as its time has passed.")
    return told


def _is_same(current: ProgramObject | None, wanted: ProgramObject) -> bool:
    return current is not None and replace(current, broken=wanted.broken) == wanted
