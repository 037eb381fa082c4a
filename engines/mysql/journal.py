"""What a restore notes down on the server itself, so that another process can finish or undo it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import orjson

from engines.mysql.causes import FileLeftBehind
from engines.mysql.connection import lock_name
from engines.mysql.databases import LIST, kept_as, names_in
from engines.mysql.identifiers import Identifier, shown

if TYPE_CHECKING:
    from engines.mysql.driver import Session

LONGEST_NAME = 64
"""Characters, in a GRANT too, where a backslash is put before wildcards (MySQL: error 1059)."""

LOADING, SWAPPED = "dbvalet_restore_loading", "dbvalet_restore_swapped"
"""The names of the journal: before the swap, and after it."""

CREATE_JOURNAL = """
    CREATE TABLE %s.%s (
      name VARCHAR(20) NOT NULL, part INT NOT NULL, value LONGBLOB NOT NULL, PRIMARY KEY (name, part)
    ) ENGINE=InnoDB COMMENT='dbvalet is restoring a backup: it finishes or undoes that, and takes this away'"""

NOTE_DOWN = "INSERT INTO %s.%s VALUES (%s, %s, %s)"

READ_JOURNAL = "SELECT name, value FROM %s.%s ORDER BY name, part"

DROP_TABLE = "DROP TABLE IF EXISTS %s.%s"

PART = 1024 * 1024
"""Bytes of one row of the journal, so that no max_allowed_packet is too small for it."""

DROP_DATABASE = "DROP DATABASE IF EXISTS %s"


@dataclass(frozen=True, kw_only=True)
class Places:
    """The names of the three logical databases."""

    database: str
    fresh: str
    before: str

    @property
    def loader(self) -> str:
        """The lock by which a session that loads is known."""
        return lock_name("load", self.database)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the restore is to bring about; in the journal from its beginning."""

    character_set: str
    collation: str
    tables: Sequence[str]
    placeholders: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Old:
    """What there was when the tables were about to be swapped; in the journal from then on."""

    character_set: str
    collation: str
    tables: Sequence[str]
    objects: Sequence[tuple[str, str]]
    """Views, routines, triggers, events: kind and name."""
    referenced: Sequence[str]
    """Tables that other logical databases refer to with foreign keys."""


def places_of(session: Session, own: str) -> Places:
    """Name the logical databases of a restore of the one in the URL, as the server keeps it; there or not."""
    folds_case = session.facts.folds_case
    database = kept_as(own, names_in(session.execute(LIST)), folds_case) or (own.lower() if folds_case else own)
    return places_beside(database)


def places_beside(database: str) -> Places:
    """Name the logical databases of a restore; a name that is too long ends in its hash."""
    return Places(
        database=database, fresh=_beside(database, "_dbvalet_restore"), before=_beside(database, "_dbvalet_before")
    )


def _beside(database: str, suffix: str) -> str:
    name, base = database + suffix, database
    while len(name) + sum(map(name.count, "_%\\")) > LONGEST_NAME:
        base = base[:-1]
        name = f"{base}_{sha256(database.encode()).hexdigest()[:8]}{suffix}"
    return name


def create(session: Session, places: Places) -> None:
    """Begin the journal of a restore."""
    session.execute(CREATE_JOURNAL, Identifier(places.before), Identifier(LOADING))


def note_down(session: Session, places: Places, name: str, value: bytes, table: str = LOADING) -> None:
    """Write something into the journal, which is called `table` by now."""
    for part, start in enumerate(range(0, max(1, len(value)), PART)):
        session.execute(
            NOTE_DOWN, Identifier(places.before), Identifier(table), name, part, value[start : start + PART]
        )


def read(session: Session, places: Places, table: str) -> dict[str, bytes]:
    """Read the journal."""
    read: dict[str, bytes] = {}
    for name, value in session.execute(READ_JOURNAL, Identifier(places.before), Identifier(table)):
        read[name] = read.get(name, b"") + value
    return read


def plan_of(noted: Mapping[str, bytes]) -> Plan:
    """Read the plan out of a journal."""
    return Plan(**orjson.loads(noted["plan"]))


def old_of(noted: Mapping[str, bytes]) -> Old:
    """Read what there was out of a journal."""
    return Old(**orjson.loads(noted["old"]))


def drop(session: Session, places: Places, table: str, outcome: str) -> None:
    """Take the journal away, and the logical database that it is in; `outcome` says what is true by then.

    Raises: FileLeftBehind
    """
    # Last, and empty by then: a DROP DATABASE that is cut in the middle may have dropped the journal first.
    session.execute(DROP_TABLE, Identifier(places.before), Identifier(table))
    drop_place(session, places.before, outcome)


def drop_place(session: Session, name: str, outcome: str) -> None:
    """Drop a logical database of the restore; `outcome` says what is true whether that succeeds or not.

    Raises: FileLeftBehind, when a file is in its directory that the server does not know, or has lost in a crash
    """
    try:
        session.execute(DROP_DATABASE, Identifier(name))
    except FileLeftBehind as refused:
        raise FileLeftBehind(
            f"What was restored is to be cleaned up: {outcome}, but the server cannot drop {shown(name)}. "
            f"{refused.message}"
        ) from refused
