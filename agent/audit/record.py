"""The audit in the state."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from agent.audit.line import Change, Head, Row, write
from agent.state.tables import audit, audit_head


def append(connection: Connection, change: Change, at: datetime, status: int | None, code: str) -> Head:
    """Add a line to the end of the chain; others who would wait for the end of the transaction."""
    row = write(change, at, head(connection, lock=True), status, code)
    connection.execute(
        insert(audit).values(sequence=row.sequence, database_id=row.database_id, line=row.line, digest=row.digest)
    )
    connection.execute(update(audit_head).values(sequence=row.sequence, digest=row.digest))
    return Head(sequence=row.sequence, digest=row.digest)


def head(connection: Connection, *, lock: bool = False) -> Head:
    """Read which line is the last."""
    wanted = select(audit_head.c.sequence, audit_head.c.digest)
    sequence, digest = connection.execute(wanted.with_for_update() if lock else wanted).one()
    return Head(sequence=sequence, digest=digest)


def page(connection: Connection, *, after: int, limit: int, databases: Collection[str] | None = None) -> list[Row]:
    """Read lines in their order; only those of some databases, unless None."""
    wanted = select(audit).where(audit.c.sequence > after).order_by(audit.c.sequence).limit(limit)
    if databases is not None:
        wanted = wanted.where(audit.c.database_id.in_(databases))
    return [
        Row(sequence=each.sequence, database_id=each.database_id, line=each.line, digest=each.digest)
        for each in connection.execute(wanted)
    ]
