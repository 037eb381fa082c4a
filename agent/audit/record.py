"""The audit in the state."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from agent.audit.line import Change, Head, Row, write
from agent.state.tables import audit, audit_head
from engines.errors import Precondition


def append(connection: Connection, change: Change, at: datetime, status: int | None, code: str) -> Head:
    """Add a line to the end of the chain; others who would wait for the end of the transaction.

    Raises: Precondition, when there is a line after the last one
    """
    row = write(change, at, head(connection, lock=True), status, code)
    line = insert(audit).values(sequence=row.sequence, database_id=row.database_id, line=row.line, digest=row.digest)
    try:
        connection.execute(line)
    except IntegrityError as problem:
        # Not for those who await one of a row of their own, and take it for somebody who was faster.
        raise Precondition(
            f"The audit has a line {row.sequence} that is not dbvalet's: `dbvalet audit verify` tells more."
        ) from problem
    connection.execute(update(audit_head).values(sequence=row.sequence, digest=row.digest))
    return Head(sequence=row.sequence, digest=row.digest)


def touch(connection: Connection) -> None:
    """Write what is there once more: what is taken back never reaches a disk, and shows nothing of one that is full."""
    connection.execute(update(audit_head).values(digest=audit_head.c.digest))


def head(connection: Connection, *, lock: bool = False) -> Head:
    """Read which line is the last."""
    wanted = select(audit_head.c.sequence, audit_head.c.digest)
    sequence, digest = connection.execute(wanted.with_for_update() if lock else wanted).one()
    return Head(sequence=sequence, digest=digest)


def at_one_moment(connection: Connection) -> None:
    """Let a transaction see the state as it is at its next statement, and no line that is added while it reads."""
    # A file is read by one who keeps all writers out; elsewhere each statement would see what others have committed.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


def page(
    connection: Connection,
    *,
    after: int,
    limit: int,
    databases: Collection[str] | None = None,
    hidden: Collection[str] = (),
) -> list[Row]:
    """Read lines in their order; only those of some databases, unless None, and none of those that are hidden."""
    wanted = select(audit).where(audit.c.sequence > after).order_by(audit.c.sequence).limit(limit)
    if databases is not None:
        wanted = wanted.where(audit.c.database_id.in_(databases))
    if hidden:
        wanted = wanted.where(or_(audit.c.database_id.is_(None), audit.c.database_id.not_in(hidden)))
    return [
        Row(sequence=each.sequence, database_id=each.database_id, line=each.line, digest=each.digest)
        for each in connection.execute(wanted)
    ]
