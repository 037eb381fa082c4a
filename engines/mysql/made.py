"""When what is in a logical database was made: that tells it from what others make anew under the same names."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from engines.mysql.facts import drops_at_once

if TYPE_CHECKING:
    from engines.mysql.driver import Session

TABLES_MADE = "SELECT TABLE_SCHEMA, TABLE_NAME, CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"
"""NULL for a view, but on MySQL 8 and later."""

ROUTINES_MADE = """
    SELECT ROUTINE_SCHEMA, ROUTINE_NAME, CREATED
      FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s"""

EVENTS_MADE = "SELECT EVENT_SCHEMA, EVENT_NAME, CREATED FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s"


def made_in(session: Session, name: str) -> list[str]:
    """List what is in a logical database, each with when it was made."""
    inside = _made_in(session, name)
    if inside and not any(made_at for _, made_at in inside):
        # Views alone, with no time: a reset takes them before the tables, so they may have been made anew.
        return [f"{name} {uuid4()}"]
    return [f"{thing} {made_at}" for thing, made_at in inside]


def known_by(session: Session, name: str) -> list[str]:
    """Give that by which a logical database is known again, which is what is in it: it has nothing of its own.

    What is left of it after a deletion that stopped half-way is a part of that, where the server may stop there.
    """
    inside = _made_in(session, name)
    if not any(made_at for _, made_at in inside):
        # Nobody can tell it from one that was made anew: it is never the same twice.
        return [f"{name} {uuid4()}"]
    listed = sorted(f"{thing} {made_at}" for thing, made_at in inside)
    facts = session.facts
    # As one: what is there in part was not left over by a deletion, but made by somebody else.
    return [f"{name}: {', '.join(listed)}"] if drops_at_once(facts.flavour, facts.version) else listed


def _made_in(session: Session, name: str) -> list[tuple[str, datetime | None]]:
    rows = [row for statement in (TABLES_MADE, ROUTINES_MADE, EVENTS_MADE) for row in session.fetch(statement, name)]
    # information_schema compares without regard to case.
    return [(thing, made_at) for schema, thing, made_at in rows if schema == name]
