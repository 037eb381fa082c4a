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

RESTORE_TO_INSTANT = Task(name="restore-to-instant", effect=Effect.DESTRUCTIVE)

CHANGE_FEATURES = Task(name="change-features", effect=Effect.WRITE)

# A log may hold statements with what was written in them: more than who may look at settings.
READ_LOGS = Task(name="read-logs", effect=Effect.WRITE)

# The URL that is declared for applications, with its password.
READ_CREDENTIALS = Task(name="read-credentials", effect=Effect.WRITE)

UPGRADE_DATABASE = Task(name="upgrade-database", effect=Effect.DESTRUCTIVE)

CHANGE_FIREWALL = Task(name="change-firewall", effect=Effect.WRITE)

CREATE_USER = Task(name="create-user", effect=Effect.WRITE)

CHANGE_USER = Task(name="change-user", effect=Effect.WRITE)

DELETE_USER = Task(name="delete-user", effect=Effect.DESTRUCTIVE)

# Of no database: a token sees the lines of those in its scope. Who may destroy something may see who did.
READ_AUDIT = Task(name="read-audit", effect=Effect.DESTRUCTIVE)

TASKS = {
    each.name: each
    for each in (
        UPDATE_DATABASE,
        CANCEL_OPERATION,
        CHANGE_FEATURES,
        READ_LOGS,
        READ_CREDENTIALS,
        UPGRADE_DATABASE,
        CHANGE_FIREWALL,
        CREATE_BACKUP,
        DOWNLOAD_BACKUP,
        DELETE_BACKUP,
        RESTORE_BACKUP,
        RESTORE_TO_INSTANT,
        CREATE_USER,
        CHANGE_USER,
        DELETE_USER,
        READ_AUDIT,
    )
}
