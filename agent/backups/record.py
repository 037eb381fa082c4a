"""The record of a backup, and its rows. Each function works inside of a transaction of the state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import orjson
from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from agent.errors import OperationLost
from agent.state.tables import backups, operations


class BackupStatus(StrEnum):
    """How far a backup is, in the words of the documented API."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    DONE = "done"
    ERROR = "error"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


Method = Literal["manual", "periodic", "safety"]
"""Asked for, by the schedule, or made of what was about to be destroyed."""

OF_OPERATION = {
    "pending": BackupStatus.SCHEDULED,
    "running": BackupStatus.RUNNING,
    "cancelling": BackupStatus.CANCELLING,
    "cancelled": BackupStatus.CANCELLED,
    "finished": BackupStatus.DONE,
    "error": BackupStatus.ERROR,
    "user-error": BackupStatus.ERROR,
}
"""What the status of an operation is called where it is shown as a backup or a restoration."""


@dataclass(frozen=True, kw_only=True)
class Backup:
    """One backup of one database."""

    id: str
    database_id: str
    operation_id: str
    name: str
    method: Method
    started_by: str | None
    """The token that asked for it, or what dbvalet itself begins it as; None once its operation is forgotten."""
    logical_database: str | None
    """None is the deployment's own."""
    status: BackupStatus
    error: str | None
    created_at: datetime
    finished_at: datetime | None
    size: int | None
    """Bytes of its archive, once it is done."""
    sha256: str | None
    manifest: dict[str, Any] | None

    @property
    def is_done(self) -> bool:
        """Tell whether it can be restored."""
        return self.status is BackupStatus.DONE

    @property
    def place(self) -> str:
        """Where its archive stands in the storage."""
        return f"{self.database_id}/{self.id}.tar.gz"


def add(
    connection: Connection,
    *,
    backup_id: str,
    database_id: str,
    operation_id: str,
    method: Method,
    created_at: datetime,
    logical_database: str | None = None,
) -> None:
    """Add a backup that an operation is going to make."""
    connection.execute(
        insert(backups).values(
            id=backup_id,
            database_id=database_id,
            operation_id=operation_id,
            name=f"{created_at:%Y%m%d%H%M%S}_{database_id}",
            method=method,
            created_at=created_at,
            logical_database=logical_database,
        )
    )


def find(connection: Connection, backup_id: str) -> Backup | None:
    """Find a backup."""
    row = connection.execute(_with_operations().where(backups.c.id == backup_id)).one_or_none()
    return None if row is None else _read(row)


def newest(connection: Connection, database_id: str) -> list[Backup]:
    """List the backups of a database, newest first."""
    found = connection.execute(
        _with_operations()
        .where(backups.c.database_id == database_id)
        .order_by(backups.c.created_at.desc(), backups.c.id)
    )
    return [_read(row) for row in found]


def done(
    connection: Connection,
    backup: Backup,
    owner: str | None,
    *,
    size: int,
    sha256: str,
    manifest: bytes,
    now: datetime,
) -> None:
    """Write down that the archive of a backup stands in the storage, whole, for who still works on its operation.

    Raises: OperationLost, when that is another dbvalet by now, which removes what there is of it
    """
    # Locked: who takes it over at this moment sees the backup done, or has it before this.
    ours = (
        select(operations.c.id)
        .where(operations.c.id == backup.operation_id, operations.c.owner == owner, operations.c.finished_at.is_(None))
        .with_for_update()
    )
    if connection.execute(ours).one_or_none() is None:
        raise OperationLost
    connection.execute(
        update(backups)
        .where(backups.c.id == backup.id)
        .values(size=size, sha256=sha256, manifest=manifest.decode(), finished_at=now)
    )


def remove(connection: Connection, backup_id: str) -> None:
    """Forget a backup."""
    connection.execute(delete(backups).where(backups.c.id == backup_id))


def _with_operations() -> Select[Any]:
    return select(
        backups,
        operations.c.status,
        operations.c.error,
        operations.c.started_by,
        operations.c.finished_at.label("ended_at"),
    ).join_from(backups, operations, backups.c.operation_id == operations.c.id, isouter=True)


def _read(row: Row[Any]) -> Backup:
    # A crash between the two leaves a backup that is done and an operation that is not yet: the backup is right.
    is_done = row.sha256 is not None
    status = OF_OPERATION.get(row.status, BackupStatus.ERROR)
    if status is BackupStatus.DONE:
        status = BackupStatus.ERROR
    return Backup(
        id=row.id,
        database_id=row.database_id,
        operation_id=row.operation_id,
        name=row.name,
        method=row.method,
        started_by=row.started_by,
        logical_database=row.logical_database,
        status=BackupStatus.DONE if is_done else status,
        error=None if is_done else row.error,
        created_at=row.created_at,
        finished_at=row.finished_at or row.ended_at,
        size=row.size,
        sha256=row.sha256,
        manifest=orjson.loads(row.manifest) if row.manifest else None,
    )
