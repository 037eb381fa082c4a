"""What the routes beside the actions let a token do. Like actions, they can be allowed or denied to a token by name."""

from __future__ import annotations

from dataclasses import dataclass

from engines.action import Effect


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something that a route does to a database."""

    name: str
    effect: Effect


UPDATE_DATABASE = Task(name="update-database", effect=Effect.WRITE)
CANCEL_OPERATION = Task(name="cancel-operation", effect=Effect.WRITE)

CREATE_BACKUP = Task(name="create-backup", effect=Effect.WRITE)

# It changes nothing, but it hands out all data at once: more than who may look at queries and settings.
DOWNLOAD_BACKUP = Task(name="download-backup", effect=Effect.WRITE)

DELETE_BACKUP = Task(name="delete-backup", effect=Effect.DESTRUCTIVE)

RESTORE_BACKUP = Task(name="restore-backup", effect=Effect.DESTRUCTIVE)

TASKS = {
    each.name: each
    for each in (UPDATE_DATABASE, CANCEL_OPERATION, CREATE_BACKUP, DOWNLOAD_BACKUP, DELETE_BACKUP, RESTORE_BACKUP)
}
