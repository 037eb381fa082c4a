"""What a restore notes down on the server, so that another process can finish or undo it.

A restore has a logical database of its own, DATABASE_dbvalet_restore. It is made in one step with a retention policy
that has the journal, by which it is known as ours, and holds the loaded points in a policy for each of the backup. As
long as nothing is decided it is dropped; from then on the real logical database is brought to what it holds.
"""

from __future__ import annotations

import base64
from collections.abc import Set as AbstractSet
from hashlib import sha256

from engines.errors import BackupFailed, Conflict
from engines.influxdb.backup.catalogue import Contents, Place, databases, policies_of, source
from engines.influxdb.backup.connection import Connection
from engines.influxdb.backup.files import from_json, to_json
from engines.influxdb.influxql import identifier

JOURNAL = "dbvalet_journal"
"""The retention policy."""

READ_JOURNAL = "SELECT *::field FROM %s"

RUN = "run"
"""The measurement in it that holds by which run of a restore it was made."""

LONGEST_NAME = 200

PART = 30_000
"""Bytes of one point of the journal: a string may have 64 KiB."""


def temporary_name(database: str) -> str:
    """Name the logical database of a restore; a name that is too long ends in its hash."""
    suffix = "_dbvalet_restore"
    if len(database.encode()) <= LONGEST_NAME:
        return f"{database}{suffix}"
    return f"{sha256(database.encode()).hexdigest()}{suffix}"


def temporary_policy(number: int) -> str:
    """Name the policy that holds the points of the backup's policy of this number."""
    return f"policy-{number}"


def is_ours(connection: Connection, name: str, there: AbstractSet[str]) -> bool:
    """Tell whether a logical database is that of a restore."""
    return name in there and any(each.name == JOURNAL for each in policies_of(connection, name))


def is_of(connection: Connection, run: str) -> bool:
    """Tell whether the logical database of a restore is there, and of this run of one."""
    name = temporary_name(connection.database)
    return is_ours(connection, name, databases(connection)) and _read(connection, RUN) == [run]


def require(connection: Connection, run: str) -> None:
    """Make sure that it is.

    Raises: Conflict, when another one has finished or undone it, and perhaps begun the next
    """
    if not is_of(connection, run):
        raise Conflict("Somebody took the journal of the restore away.")


def begin(connection: Connection, contents: Contents, there: AbstractSet[str], run: str) -> None:
    """Make the logical database of a restore, and note down what is going to be restored.

    run: tells this one from any other

    Raises: Conflict, when there is one of that name which is somebody else's
    """
    name = temporary_name(connection.database)
    if name in there:
        raise Conflict(
            f'The logical database "{name}" is in the way: dbvalet makes one of this name while it restores, and did '
            "not make this one. Copy and drop it."
        )
    connection.tell(f"CREATE DATABASE {identifier(name)} WITH DURATION INF REPLICATION 1 NAME {identifier(JOURNAL)}")
    _write(connection, f'{RUN} id="{run}" 0')
    text = base64.b64encode(to_json(contents)).decode()
    parts = [text[start : start + PART] for start in range(0, len(text), PART)]
    for number, part in enumerate(parts):
        _write(connection, f'contents part="{part}" {number}')
    mark(connection, "begun", len(parts))


def mark(connection: Connection, step: str, number: int = 1) -> None:
    """Say that a step is done."""
    _write(connection, f"{step} done={number}i 0")


def is_done(connection: Connection, step: str) -> bool:
    """Tell whether a step is done."""
    return bool(_read(connection, step))


def contents(connection: Connection) -> Contents:
    """Read what was noted down.

    Raises: BackupFailed, when it is not all there
    """
    parts = _read(connection, "contents")
    if _read(connection, "begun") != [len(parts)]:
        raise BackupFailed("The journal of the restore is not whole.")
    return from_json(base64.b64decode("".join(map(str, parts))))


def _write(connection: Connection, line: str) -> None:
    connection.write_points((temporary_name(connection.database), JOURNAL), line.encode())


def _read(connection: Connection, measurement: str) -> list[object]:
    journal = source(Place(temporary_name(connection.database), JOURNAL), measurement)
    # A few parts at a time, as each is long.
    return [row[1] for series in connection.stream(READ_JOURNAL % journal, 10) for row in series.rows]
