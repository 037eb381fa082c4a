"""Put a restored logical database in the place of the old one, so that a crash at any moment leaves one of them whole.

    app                    the deployment's own; never dropped, as its grants and its character set belong to it
    app_dbvalet_restore    where a backup is loaded first
    app_dbvalet_before     takes the old tables, and the journal of the restore, from its beginning to its end

One RENAME TABLE moves the old tables out, the new ones in, and gives the journal another name: as long as it is called
`dbvalet_restore_loading` everything is undone, from then on everything is finished (see `renames` for servers whose
RENAME TABLE is not atomic). Views, routines and events cannot be moved between logical databases: they are made after
it, from the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING

import orjson

from engines.errors import BackupFailed, Conflict, DeadlineExceeded
from engines.mysql import journal, program, program_objects
from engines.mysql.connection import end_holder
from engines.mysql.contents import VIEWS, Contents, character_set_of, database_exists, tables_in
from engines.mysql.identifiers import Identifier, shown
from engines.mysql.in_use import holders
from engines.mysql.journal import DROP_TABLE, LOADING, SWAPPED, Old, Places, Plan
from engines.mysql.renames import complete, go_back, rename, renames_at_once, renames_under_locks, was_cut_in_two
from engines.mysql.reset import DROP

if TYPE_CHECKING:
    from engines.mysql.driver import Session

CREATE_DATABASE = "CREATE DATABASE %s CHARACTER SET %s COLLATE %s"

ALTER_DATABASE = "ALTER DATABASE %s CHARACTER SET %s COLLATE %s"

# A sequence that a default names must be there when its table is loaded, in the database that the default names.
PLACEHOLDER = "CREATE SEQUENCE %s.%s"

WAIT = "SET SESSION lock_wait_timeout = %s"

PATIENT_SECONDS = 60
"""How long to wait for an application's locks once there is no way back."""

IN_PLACE = "in_place"
"""In the journal once the application's logical database is as it is to be. It is left alone from then on, however
often the rest is tried: what is made there later is the application's own."""

LOCK = "LOCK TABLES "

UNLOCK = "UNLOCK TABLES"

REFERENCES = """
    SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, REFERENCED_TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA
      FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE UNIQUE_CONSTRAINT_SCHEMA = %s"""


class Outcome(Enum):
    """What became of a restore that had been interrupted."""

    NOTHING = "there was none"
    UNDONE = "the old data are in their place"
    FINISHED = "the restored data are in their place"


def check_nothing_is_in_the_way(session: Session, places: Places) -> None:
    """Raises: Conflict, when a logical database of a name that a restore needs is somebody else's."""
    for name in (places.fresh, places.before):
        if database_exists(session, name):
            raise Conflict(
                f"The logical database {shown(name)} is in the way: dbvalet makes one of this name while it restores, "
                "and did not make this one. Rename or drop it."
            )


def begin(session: Session, places: Places, contents: Contents, objects: bytes) -> None:
    """Make the place where the backup is loaded, and the journal before it.

    Raises: Conflict
    """
    there = tables_in(session, places.database) if database_exists(session, places.database) else None
    plan = Plan(
        character_set=contents.character_set,
        collation=contents.collation,
        tables=list(contents.tables),
        placeholders=[name for name in contents.sequences if name not in (there or {})],
    )
    session.execute(CREATE_DATABASE, Identifier(places.before), plan.character_set, plan.collation)
    journal.create(session, places)
    journal.note_down(session, places, "plan", orjson.dumps(asdict(plan)))
    journal.note_down(session, places, "program", objects)
    session.execute(CREATE_DATABASE, Identifier(places.fresh), plan.character_set, plan.collation)
    if there is None and plan.placeholders:
        session.execute(CREATE_DATABASE, Identifier(places.database), plan.character_set, plan.collation)
    for name in plan.placeholders:
        session.execute(PLACEHOLDER, Identifier(places.database), Identifier(name))


def try_out(session: Session, places: Places, contents: Contents, objects: Sequence[program.ProgramObject]) -> None:
    """Check what was loaded: every table is there, and the server accepts every view, routine, trigger and event.

    Raises: BackupFailed, PrivilegeMissing
    """
    there = {name for name, kind in tables_in(session, places.fresh).items() if kind not in VIEWS}
    missing = sorted(set(contents.tables) - there)
    if missing:
        raise BackupFailed(f"Of the tables of the backup {', '.join(map(shown, missing))} did not come to be.")
    tried = program.for_trial(objects)
    program_objects.make(session, places.fresh, tried)
    # A table with triggers cannot be moved to another logical database.
    program_objects.drop(session, places.fresh, [each.key for each in tried if each.kind in ("TRIGGER", "EVENT")])


def swap(session: Session, places: Places, contents: Contents) -> None:
    """Move the old tables out and the new ones in, in one step.

    Raises: Conflict, naming who holds the tables
    """
    if not database_exists(session, places.database):
        session.execute(CREATE_DATABASE, Identifier(places.database), contents.character_set, contents.collation)
    kinds = tables_in(session, places.database)
    character_set, collation = character_set_of(session, places.database)
    old = Old(
        character_set=character_set,
        collation=collation,
        tables=sorted(name for name, kind in kinds.items() if kind not in VIEWS),
        objects=list(program_objects.names_of(session, places.database)),
        referenced=sorted({row[3] for row in references_from_elsewhere(session, places)}),
    )
    in_the_way = [
        each
        for each in program_objects.read_program(session, places.database, ("TRIGGER", "VIEW"))
        if each.kind == "TRIGGER" or each.name in contents.tables
    ]
    journal.note_down(session, places, "in_the_way", program.write(in_the_way, places.database, collation))
    journal.note_down(session, places, "old", orjson.dumps(asdict(old)))
    at_once = renames_at_once(session.facts)
    moves = [
        *([(places.before, LOADING, places.before, SWAPPED)] if at_once else []),
        *((places.database, name, places.before, name) for name in old.tables),
        *((places.fresh, name, places.database, name) for name in contents.tables),
    ]
    try:
        if in_the_way:
            _drop_in_the_way(session, places, in_the_way, moves)
        rename(session, moves)
        session.execute(UNLOCK)
        if not at_once:
            journal.note_down(session, places, "swapped", b"")
    except DeadlineExceeded as waited:
        told = f"The tables of {shown(places.database)} are in use. {holders(session, places.database)}"
        raise Conflict(f"{told} Nothing was changed.") from waited


def _drop_in_the_way(
    session: Session,
    places: Places,
    in_the_way: Sequence[program.ProgramObject],
    moves: Sequence[tuple[str, str, str, str]],
) -> None:
    program_objects.drop(session, places.database, [each.key for each in in_the_way if each.kind == "VIEW"])
    triggers = [each.key for each in in_the_way if each.kind == "TRIGGER"]
    if not triggers:
        return
    # Rows that are written without a trigger would stay if the swap failed, so nobody writes from here on.
    locked = [(schema, name) for schema, name, _, _ in moves]
    names = [Identifier(part) for pair in locked for part in pair]
    with suppress(Conflict):  # error 1785: with GTIDs, MySQL locks no tables of different engines together
        session.execute(LOCK + ", ".join(["%s.%s WRITE"] * len(locked)), *names)
    program_objects.drop(session, places.database, triggers)
    if not renames_under_locks(session.facts):
        session.execute(UNLOCK)


def references_from_elsewhere(session: Session, places: Places) -> list[tuple[str, str, str, str]]:
    """List the foreign keys of other logical databases: their schema, table and name, and the table they refer to."""
    return [
        (schema, table, name, referenced)
        for schema, table, name, referenced, parent in session.execute(REFERENCES, places.database)
        if parent == places.database != schema
    ]


def check_references(session: Session, places: Places, contents: Contents) -> None:
    """Raises: Conflict, when foreign keys of other logical databases would refer to nothing afterwards."""
    for schema, table, name, referenced in references_from_elsewhere(session, places):
        told = f"The foreign key {shown(name)} of {shown(table)} in {shown(schema)} refers to {shown(referenced)}"
        if referenced not in contents.tables:
            raise Conflict(f"{told}, which is not in the backup: drop that foreign key first. Nothing was changed.")
        if not renames_at_once(session.facts):
            raise Conflict(
                f"{told}: this version of the server cannot exchange it safely. Drop that foreign key first, and make "
                "it again afterwards. Nothing was changed."
            )


def settle(session: Session, places: Places) -> Outcome:
    """Finish or undo what a restore has left, after its swap or before; can itself be interrupted and done again.

    Raises: BackupFailed, Conflict, DeadlineExceeded
    """
    if not database_exists(session, places.before):
        return Outcome.NOTHING
    there = tables_in(session, places.before)
    name = next((each for each in (SWAPPED, LOADING) if each in there), None)
    if name is None:
        if not there and not list(program_objects.names_of(session, places.before)):
            journal.drop_place(session, places.before, Outcome.NOTHING.value)
        return Outcome.NOTHING
    end_holder(session, places.loader)
    session.execute(WAIT, PATIENT_SECONDS)
    noted = journal.read(session, places, name)
    if name == SWAPPED or "swapped" in noted:
        finish(session, places, noted, name)
    elif not was_cut_in_two(session, places, noted):
        undo(session, places, noted)
        return Outcome.UNDONE
    elif complete(session, places, noted):
        journal.note_down(session, places, "swapped", b"")
        finish(session, places, noted, name)
    else:
        go_back(session, places, noted)
        undo(session, places, noted)
        return Outcome.UNDONE
    journal.drop(session, places, name, Outcome.FINISHED.value)
    return Outcome.FINISHED


def undo(session: Session, places: Places, noted: Mapping[str, bytes]) -> None:
    """Put the old program objects back that were in the way, and take away what was loaded.

    Raises: FileLeftBehind; the old data are whole by then
    """
    if "undo" not in noted:
        journal.note_down(session, places, "undo", b"")
    if IN_PLACE not in noted:
        _put_back(session, places, noted)
        journal.note_down(session, places, IN_PLACE, b"")
    journal.drop_place(session, places.fresh, Outcome.UNDONE.value)
    journal.drop(session, places, LOADING, Outcome.UNDONE.value)


def _put_back(session: Session, places: Places, noted: Mapping[str, bytes]) -> None:
    if "old" in noted:
        # Making objects changes it for a moment.
        have_character_set(session, places.database, journal.old_of(noted))
        in_the_way = program.read(noted["in_the_way"])
        there = set(program_objects.names_of(session, places.database))
        if any(each.key not in there for each in in_the_way):
            # All of them, as triggers act in the order in which they were made.
            program_objects.drop(session, places.database, [each.key for each in in_the_way])
            program_objects.make(session, places.database, in_the_way)
    if "plan" in noted and database_exists(session, places.database):
        for name in orjson.loads(noted["plan"])["placeholders"]:
            session.execute(DROP["SEQUENCE"], Identifier(places.database), Identifier(name))


def finish(session: Session, places: Places, noted: Mapping[str, bytes], name: str) -> None:
    """Do what is left after the swap; there is no way back. The journal is called `name`.

    Raises: BackupFailed, DeadlineExceeded, FileLeftBehind
    """
    if IN_PLACE not in noted:
        plan, old = journal.plan_of(noted), journal.old_of(noted)
        have_character_set(session, places.database, plan)
        refer_to_the_new(session, places, old)
        objects = {(kind, name) for kind, name in old.objects}
        program_objects.bring_about(session, places.database, program.read(noted["program"]), objects)
        journal.note_down(session, places, IN_PLACE, b"", name)
    for table, kind in tables_in(session, places.before).items():
        if table not in (LOADING, SWAPPED):
            session.execute(DROP[kind], Identifier(places.before), Identifier(table))
    journal.drop_place(session, places.fresh, Outcome.FINISHED.value)


def have_character_set(session: Session, database: str, wanted: Plan | Old) -> None:
    """Give a logical database its default character set and collation."""
    if character_set_of(session, database) != (wanted.character_set, wanted.collation):
        session.execute(ALTER_DATABASE, Identifier(database), wanted.character_set, wanted.collation)


def refer_to_the_new(session: Session, places: Places, old: Old) -> None:
    """Let foreign keys of other logical databases, which went along with the old tables, refer to the new ones.

    They refer to a name: a table that gets it is the one, and takes them along when it is renamed.
    """
    for name in old.referenced:
        session.execute(DROP_TABLE, Identifier(places.before), Identifier(name))
        astray = [
            row for row in session.execute(REFERENCES, places.before) if row[3] == name and row[0] != places.before
        ]
        if astray and name in tables_in(session, places.database):
            rename(
                session,
                [(places.database, name, places.before, name), (places.before, name, places.database, name)],
            )
