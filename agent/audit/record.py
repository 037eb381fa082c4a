"""The audit in the state."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, insert, or_, select, text, update
from sqlalchemy import Row as RowOf
from sqlalchemy.exc import IntegrityError

from agent.audit.line import Change, Head, Row, Tampered, the_last, write
from agent.state.tables import audit, audit_head
from engines.errors import Precondition


def append(connection: Connection, change: Change, at: datetime, status: int | None, code: str) -> Head:
    """Add a line to the end of the chain; others who would wait for the end of the transaction.

    Raises: Precondition, when there is a line after the last one, or it is not known which one that is
    """
    try:
        last = head(connection, lock=True)
    except Tampered as problem:
        raise Precondition(f"{problem} `dbvalet audit verify` tells more.") from problem
    row = write(change, at, last, status, code)
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
    """Read which line is the last.

    Raises: Tampered
    """
    return the_last(heads(connection, lock=lock))


def heads(connection: Connection, *, lock: bool = False) -> list[tuple[Any, Any]]:
    """Read sequence and digest of all that stand there as the last line: one, unless somebody else has changed it."""
    wanted = select(audit_head.c.sequence, audit_head.c.digest)
    return [
        (each.sequence, each.digest) for each in _as_it_stands(connection, wanted.with_for_update() if lock else wanted)
    ]


def count(connection: Connection) -> int:
    """Count the lines."""
    return connection.execute(select(func.count()).select_from(audit)).scalar_one()


def at_one_moment(connection: Connection) -> None:
    """Let a transaction see the state as it is at its next statement, and no line that is added while it reads."""
    # A file is read by one who keeps all writers out; elsewhere each statement would see what others have committed.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


def page(
    connection: Connection,
    *,
    after: Any,
    limit: int,
    databases: Collection[str] | None = None,
    hidden: Collection[str] = (),
) -> list[Row]:
    """Read lines in their order; only those of some databases, unless None, and none of those that are hidden.

    after: a sequence; None is before all that stand there, those with a number that dbvalet gives none included
    """
    wanted = select(audit).order_by(audit.c.sequence).limit(limit)
    if after is not None:
        wanted = wanted.where(audit.c.sequence > after)
    if databases is not None:
        wanted = wanted.where(audit.c.database_id.in_(databases))
    if hidden:
        wanted = wanted.where(or_(audit.c.database_id.is_(None), audit.c.database_id.not_in(hidden)))
    return [
        Row(sequence=each.sequence, database_id=each.database_id, line=each.line, digest=each.digest)
        for each in _as_it_stands(connection, wanted)
    ]


def _as_it_stands(connection: Connection, wanted: Select[Any]) -> Sequence[RowOf[Any]]:
    """Read rows whatever their texts hold: a file takes bytes that are no UTF-8 too, which become lone surrogates."""
    driver = connection.connection.dbapi_connection
    if not isinstance(driver, sqlite3.Connection):
        return connection.execute(wanted).all()
    usual = driver.text_factory
    driver.text_factory = _decoded
    try:
        return connection.execute(wanted).all()
    finally:
        driver.text_factory = usual


def _decoded(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")
