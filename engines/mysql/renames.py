"""Rename many tables in one statement, and put in order what a server leaves behind that dies in the middle of it.

MySQL 8.0 and MariaDB 10.6 and later make all of it or nothing. Older ones rename table by table, and each in two steps:
the one under way is lost to them when they die between those, its file of rows already under the other name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from engines.errors import DeadlineExceeded, EngineError, EngineUnavailable
from engines.mysql import journal
from engines.mysql.contents import database_exists, tables_in
from engines.mysql.identifiers import Identifier
from engines.mysql.journal import DROP_TABLE, Places

if TYPE_CHECKING:
    from engines.mysql.driver import Session
    from engines.mysql.facts import Facts

RENAME = "RENAME TABLE "

MOVE = "%s.%s TO %s.%s"

TOUCH = "SELECT 1 FROM %s.%s LIMIT 0"


def rename(session: Session, moves: Sequence[tuple[str, str, str, str]]) -> None:
    """Rename tables in one statement."""
    if not moves:
        return
    names = [Identifier(name) for move in moves for name in move]
    session.execute(RENAME + ", ".join([MOVE] * len(moves)), *names)


def renames_under_locks(facts: Facts) -> bool:
    """Tell whether RENAME TABLE works under LOCK TABLES: error 1192 on MariaDB (11.8 too)."""
    return facts.flavour == "mysql" and facts.version >= (8, 0, 13)


def renames_at_once(facts: Facts) -> bool:
    """Tell whether a crash undoes a RENAME TABLE of several tables as a whole."""
    return facts.version >= ((8,) if facts.flavour == "mysql" else (10, 6))


def was_cut_in_two(session: Session, places: Places, noted: Mapping[str, bytes]) -> bool:
    """Tell whether some of the tables have been moved and the journal does not say so."""
    if renames_at_once(session.facts) or "old" not in noted or "undo" in noted:
        return False
    fresh, before = _tables(session, places.fresh), _tables(session, places.before)
    return any(name in before for name in journal.old_of(noted).tables) or any(
        name not in fresh for name in journal.plan_of(noted).tables
    )


def complete(session: Session, places: Places, noted: Mapping[str, bytes]) -> bool:
    """Move the tables that are left; tell that it cannot be done when the server has lost a new one.

    An old one that it has lost was to be dropped anyway.
    """
    fresh, before = _tables(session, places.fresh), _tables(session, places.before)
    waiting = [name for name in journal.plan_of(noted).tables if name in fresh]
    if _lost(session, places.fresh, waiting):
        return False
    now = _tables(session, places.database)
    # A table that is in none of the three was moved in; one that waits has not taken the place of the old one.
    old = [name for name in journal.old_of(noted).tables if name in now and name not in before]
    old = [name for name in old if name in waiting or name not in journal.plan_of(noted).tables]
    lost = _lost(session, places.database, old)
    for name in lost:
        session.execute(DROP_TABLE, Identifier(places.database), Identifier(name))
    rename(
        session,
        [
            *((places.database, name, places.before, name) for name in old if name not in lost),
            *((places.fresh, name, places.database, name) for name in waiting),
        ],
    )
    return True


def go_back(session: Session, places: Places, noted: Mapping[str, bytes]) -> None:
    """Bring the old tables back, all of which have been moved out when a new one gets lost."""
    fresh, before = _tables(session, places.fresh), _tables(session, places.before)
    now = _tables(session, places.database)
    old = [name for name in journal.old_of(noted).tables if name in before]
    for name in journal.plan_of(noted).tables:
        if name in now and (name not in fresh or name in old):
            session.execute(DROP_TABLE, Identifier(places.database), Identifier(name))
    rename(session, [(places.before, name, places.database, name) for name in old])


def _tables(session: Session, database: str) -> dict[str, str]:
    return tables_in(session, database) if database_exists(session, database) else {}


def _lost(session: Session, database: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if not _is_usable(session, database, name)]


def _is_usable(session: Session, database: str, name: str) -> bool:
    try:
        session.execute(TOUCH, Identifier(database), Identifier(name))
    except (EngineUnavailable, DeadlineExceeded):
        raise
    except EngineError:
        return False
    return True
