"""Find out what changed in the structure of a logical database while it was dumped.

--single-transaction gives the rows of one moment, and does not keep tables from being made, changed or renamed:
https://dev.mysql.com/doc/refman/9.7/en/mysqldump.html#option_mysqldump_single-transaction. Each is as it is when its
turn comes, and the program objects are read afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from engines.errors import DeadlineExceeded, EngineError, EngineUnavailable
from engines.mysql.contents import VIEWS, tables_in
from engines.mysql.facts import granted, has_dynamic_privileges
from engines.mysql.identifiers import Identifier, shown
from engines.mysql.program import ProgramObject
from engines.mysql.program_objects import read_program
from engines.mysql.requirements import holds

if TYPE_CHECKING:
    from engines.mysql.driver import Session

NOW = "SELECT NOW()"

# Of other engines it is the time of a write (ARCHIVE), and their tables are not of one moment anyway.
CREATED = """
    SELECT TABLE_NAME, CREATE_TIME, TABLE_SCHEMA
      FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND ENGINE = 'InnoDB'"""

DEFINITION = "SHOW CREATE TABLE %s.%s"

# Only MySQL 8 and later, and only where the account holds PROCESS. What a RENAME takes along, and nothing else has.
IDS = """
    SELECT NAME, TABLE_ID FROM information_schema.INNODB_TABLES WHERE LEFT(NAME, CHAR_LENGTH(%s)) = %s"""

ENCODED = re.compile(r"@([0-9a-f]{4})")
"""A character in the name of a file: https://dev.mysql.com/doc/refman/9.7/en/identifier-mapping.html"""

COUNTER = re.compile(r" AUTO_INCREMENT=\d+")
"""Moves on with every row."""


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What a logical database is, apart from its rows."""

    at: datetime
    """By the server's clock, before it was read."""
    objects: Sequence[ProgramObject]
    definitions: Mapping[str, bytes | None]
    """Of each table and sequence the hash of its statement; None where the server does not give it."""
    created: Mapping[str, datetime | None]
    """Of InnoDB's tables. A RENAME takes it along on MySQL, and sets it anew on MariaDB; a TRUNCATE leaves it."""
    ids: Mapping[str, frozenset[int]]
    """Of InnoDB's tables, several where one has partitions; empty where the account may not know."""


def read_structure(session: Session, database: str) -> Structure:
    """Read what a logical database is.

    Raises: PrivilegeMissing, when the server hides something
    """
    at = session.execute(NOW)[0][0]
    return Structure(
        at=at,
        objects=read_program(session, database),
        definitions={
            name: _definition(session, database, name)
            for name, kind in tables_in(session, database).items()
            if kind not in VIEWS
        },
        created={name: created for name, created, schema in session.execute(CREATED, database) if schema == database},
        ids=_ids(session, database),
    )


def _ids(session: Session, database: str) -> dict[str, frozenset[int]]:
    """Give the numbers of tables, by their names."""
    facts = session.facts
    if not (has_dynamic_privileges(facts.flavour, facts.version) and holds(granted(facts.grants), "PROCESS")):
        return {}
    found: dict[str, frozenset[int]] = {}
    for path, number in session.execute(IDS, f"{database}/", f"{database}/"):
        # What follows a # is a partition: one in a name is encoded.
        name = ENCODED.sub(lambda code: chr(int(code[1], 16)), path.partition("/")[2].partition("#")[0])
        found[name] = found.get(name, frozenset()) | {number}
    return found


def _definition(session: Session, database: str, name: str) -> bytes | None:
    try:
        statement = session.execute(DEFINITION, Identifier(database), Identifier(name))[0][1]
    except (EngineUnavailable, DeadlineExceeded):
        raise
    except EngineError:  # it was dropped just now, or is broken
        return None
    return sha256(COUNTER.sub("", statement).encode()).digest()


def changes(before: Structure, after: Structure) -> list[str]:
    """Tell what changed so that what was dumped meanwhile may not fit together; empty when nothing did.

    A table that was only made or dropped is none of it: it is in the dump or not.
    """
    return [*_changed_objects(before, after), *_changed_tables(before, after)]


def gone(before: Structure, after: Structure) -> list[str]:
    """Tell which tables are no longer there."""
    return [f"the table {shown(name)} was dropped" for name in sorted(before.definitions.keys() - after.definitions)]


def _changed_objects(before: Structure, after: Structure) -> Iterator[str]:
    # An event needs nothing to be there when it is made, and goes by itself when its time has come.
    old = {each.key: each for each in before.objects if each.kind != "EVENT"}
    new = {each.key: each for each in after.objects if each.kind != "EVENT"}
    for key in sorted(old.keys() | new.keys()):
        if key not in new:
            yield f"the {old[key]} was dropped"
        elif key not in old:
            yield f"the {new[key]} was made"
        elif old[key] != new[key]:
            yield f"the {new[key]} was changed"


def _changed_tables(before: Structure, after: Structure) -> Iterator[str]:
    was = {number: name for name, numbers in before.ids.items() for number in numbers}
    moved = {name for name, numbers in after.ids.items() if any(was.get(each, name) != name for each in numbers)}
    for name in sorted(after.definitions):
        created = after.created.get(name)
        if name in before.definitions:
            if after.definitions[name] != before.definitions[name]:
                yield f"the table {shown(name)} was changed"
            elif created != before.created.get(name) or name in moved:
                yield f"another table took the place of {shown(name)}"
        elif created is not None and created <= before.at:
            # Tables of the same definition and second that changed places are seen by where the old one went.
            yield f"a table was renamed to {shown(name)}"
