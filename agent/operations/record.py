"""The record of an operation, and its rows. Each function works inside of a transaction of the state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import Connection, Row, delete, insert, select, update

from agent.operations.kind import LOGICAL
from agent.state.tables import backups, operations

MOST_KEPT = 1000
"""Operations of a database that are remembered, beside those of its backups."""


class Status(StrEnum):
    """How far an operation is. The last four are ends."""

    PENDING = "pending"
    RUNNING = "running"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    ERROR = "error"
    USER_ERROR = "user-error"
    """It could not be done as things are set up: its text says what to change."""
    CANCELLED = "cancelled"


ENDS = frozenset({Status.FINISHED, Status.ERROR, Status.USER_ERROR, Status.CANCELLED})


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One piece of work on one database."""

    id: str
    database_id: str
    type: str
    status: Status
    progress: int
    """Percent."""
    step: str
    """What is being done, for people."""
    error: str | None
    params: dict[str, Any]
    notes: list[str]
    """What a person should know of the outcome."""
    started_by: str
    created_at: datetime
    finished_at: datetime | None
    owner: str | None
    """The dbvalet that works on it; None when that one was stopped."""
    heartbeat: int
    """Counted up by the owner: one that stands still is no longer worked on."""
    clean_up_due: bool
    """Whether something is left behind on the server that could not be removed yet."""

    @property
    def is_open(self) -> bool:
        """Tell whether it has not ended."""
        return self.finished_at is None


def add(connection: Connection, operation: Operation) -> None:
    """Add an operation.

    Raises: IntegrityError, when another one of the same database is open
    """
    row = {name: getattr(operation, name) for name in operations.c.keys()}  # noqa: SIM118 - a mapping of columns
    row["params"], row["notes"] = orjson.dumps(operation.params).decode(), orjson.dumps(operation.notes).decode()
    connection.execute(insert(operations).values(row))


def find(connection: Connection, database_id: str, operation_id: str) -> Operation | None:
    """Find an operation of a database."""
    row = connection.execute(
        select(operations).where(operations.c.database_id == database_id, operations.c.id == operation_id)
    ).one_or_none()
    return None if row is None else _read(row)


def newest(connection: Connection, database_id: str) -> list[Operation]:
    """List the operations of a database, newest first: all that are remembered."""
    found = connection.execute(
        select(operations)
        .where(operations.c.database_id == database_id)
        .order_by(operations.c.created_at.desc(), operations.c.id)
    )
    return [_read(row) for row in found]


def open_one(connection: Connection, database_id: str) -> Operation | None:
    """Find the operation of a database that has not ended."""
    row = connection.execute(
        select(operations).where(operations.c.database_id == database_id, operations.c.finished_at.is_(None))
    ).one_or_none()
    return None if row is None else _read(row)


def open_ones(connection: Connection, database_ids: Iterable[str]) -> list[Operation]:
    """List the open operations of some databases, whoever works on them."""
    found = connection.execute(
        select(operations).where(
            operations.c.finished_at.is_(None),
            operations.c.database_id.in_(database_ids),
        )
    )
    return [_read(row) for row in found]


def open_of_others(connection: Connection, database_ids: Iterable[str]) -> list[Operation]:
    """List the open operations of databases that are not among these."""
    found = connection.execute(
        select(operations).where(operations.c.finished_at.is_(None), operations.c.database_id.not_in(database_ids))
    )
    return [_read(row) for row in found]


def forget_old(connection: Connection, database_id: str, kept: int) -> None:
    """Remove the oldest ended operations of a database, but those by which backups tell what became of them."""
    oldest = connection.execute(
        select(operations.c.created_at)
        .where(operations.c.database_id == database_id)
        .order_by(operations.c.created_at.desc())
        .offset(kept)
        .limit(1)
    ).scalar()
    if oldest is None:
        return
    of_backups = select(backups.c.operation_id).where(backups.c.database_id == database_id)
    connection.execute(
        delete(operations).where(
            operations.c.database_id == database_id,
            operations.c.created_at <= oldest,
            operations.c.finished_at.is_not(None),
            operations.c.clean_up_due.is_(False),
            operations.c.id.not_in(of_backups),
        )
    )


def with_clean_up_due(connection: Connection, database_ids: Iterable[str]) -> list[Operation]:
    """List the operations that left something behind on databases that are free now."""
    busy = select(operations.c.database_id).where(operations.c.finished_at.is_(None))
    found = connection.execute(
        select(operations).where(
            operations.c.clean_up_due.is_(True),
            operations.c.database_id.in_(database_ids),
            operations.c.database_id.not_in(busy),
        )
    )
    return [_read(row) for row in found]


def take_over(connection: Connection, abandoned: Operation, owner: str) -> bool:
    """Become the owner of an operation as it was seen; of several who try one succeeds."""
    changed = connection.execute(
        update(operations)
        .where(
            operations.c.id == abandoned.id,
            operations.c.finished_at.is_(None),
            operations.c.owner.is_not_distinct_from(abandoned.owner),
            operations.c.heartbeat == abandoned.heartbeat,
        )
        .values(owner=owner, heartbeat=abandoned.heartbeat + 1)
    )
    return changed.rowcount == 1


def beat(connection: Connection, operation_id: str, owner: str, progress: int, step: str) -> Status | None:
    """Tell that an operation is worked on, and how far it is; give its status, or None when it is no longer ours."""
    mine = (operations.c.id == operation_id, operations.c.owner == owner, operations.c.finished_at.is_(None))
    connection.execute(
        update(operations).where(*mine).values(heartbeat=operations.c.heartbeat + 1, progress=progress, step=step)
    )
    connection.execute(
        update(operations).where(*mine, operations.c.status == Status.PENDING).values(status=Status.RUNNING)
    )
    status = connection.execute(select(operations.c.status).where(*mine)).scalar()
    return None if status is None else Status(status)


def keep_params(connection: Connection, operation_id: str, owner: str | None, params: dict[str, Any]) -> bool:
    """Write down what an operation needs to go on after a crash; tell whether it is still ours."""
    changed = connection.execute(
        update(operations)
        .where(operations.c.id == operation_id, operations.c.owner == owner, operations.c.finished_at.is_(None))
        .values(params=orjson.dumps(params).decode())
    )
    return changed.rowcount == 1


def ask_to_cancel(connection: Connection, operation_id: str) -> None:
    """Mark an open operation, for its owner to see."""
    connection.execute(
        update(operations)
        .where(operations.c.id == operation_id, operations.c.finished_at.is_(None))
        .values(status=Status.CANCELLING)
    )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an operation ended."""

    status: Status
    error: str | None = None
    notes: tuple[str, ...] = ()
    clean_up_due: bool = False


def finish(connection: Connection, operation_id: str, owner: str, outcome: Outcome, now: datetime) -> bool:
    """End an operation, if it is still ours; whether it was."""
    values: dict[str, Any] = {
        "status": outcome.status,
        "error": outcome.error,
        "notes": orjson.dumps(outcome.notes).decode(),
        "clean_up_due": outcome.clean_up_due,
        "finished_at": now,
    }
    if outcome.status is Status.FINISHED:
        values["progress"], values["step"] = 100, "done"
    ended = connection.execute(
        update(operations)
        .where(operations.c.id == operation_id, operations.c.owner == owner, operations.c.finished_at.is_(None))
        .values(values)
    )
    return ended.rowcount == 1


def release(connection: Connection, operation_id: str, owner: str) -> None:
    """Leave an operation to whoever comes next."""
    connection.execute(
        update(operations)
        .where(operations.c.id == operation_id, operations.c.owner == owner, operations.c.finished_at.is_(None))
        .values(owner=None)
    )


def cleaned_up(connection: Connection, database_id: str, logical_database: str | None) -> list[Operation]:
    """Tell that nothing is left behind on a logical database any more, and give the operations that had left it.

    logical_database: None is the deployment's own
    """
    due = operations.select().where(operations.c.database_id == database_id, operations.c.clean_up_due.is_(True))
    those = [each for each in map(_read, connection.execute(due)) if each.params.get(LOGICAL) == logical_database]
    for each in those:
        connection.execute(update(operations).where(operations.c.id == each.id).values(clean_up_due=False))
    return those


def _read(row: Row[Any]) -> Operation:
    fields = dict(row._mapping)  # pyright: ignore[reportPrivateUsage] - SQLAlchemy's way to write "public, but no column"
    fields["status"] = Status(fields["status"])
    fields["params"], fields["notes"] = orjson.loads(fields["params"]), orjson.loads(fields["notes"])
    return Operation(**fields)
