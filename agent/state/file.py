"""The state file as the standard library sees it: a few values by database and key, and whether there is more.

The file is opened when something is first kept or when one is already there, so a sidecar that keeps nothing needs no
writable folder; and one that only performs actions needs no more than this module.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from agent.errors import SettingsError

SCHEMA_VERSION = 4
"""The number of the newest migration."""

APPLICATION_ID = 0x6462766C
"""`dbvl`, in the header of the file: tells a state file from any other SQLite database."""

_NEW = Path(__file__).with_name("new.sql")
"""What a new file gets: what all migrations together make, without the toolkit that they need."""

_FIND = "SELECT value FROM memory WHERE database_id = ? AND key = ?"

_KEEP = """
INSERT INTO memory (database_id, key, value) VALUES (?, ?, ?)
    ON CONFLICT (database_id, key) DO UPDATE SET value = excluded.value
"""


class StateFile:
    """The state file. Its methods are safe to call from any thread, and the file from several processes."""

    def __init__(self, path: Path) -> None:
        """Check a file that is there; make none.

        Raises: SettingsError, when it is damaged, newer than this dbvalet, or no state file; it is left untouched
        """
        self.path = path
        self.is_behind = False
        """Whether it has to be migrated before anything else."""
        self._lock = threading.Lock()
        try:
            if self._holds_something():
                self._check()
        except (sqlite3.Error, OSError) as problem:
            raise SettingsError("state", f"{self.path} cannot be read: {_reason(problem)}") from None

    def recall(self, database_id: str, key: str) -> Any:
        """Give a value, or None.

        Raises: OSError, when the file cannot be read
        """
        try:
            if not self._holds_something():
                return None
            with self._lock, closing(self._connect()) as connection:
                row = connection.execute(_FIND, (database_id, key)).fetchone()
        except (sqlite3.Error, OSError) as problem:
            raise OSError(f"the state file {self.path} cannot be read: {_reason(problem)}") from problem
        return None if row is None else orjson.loads(row[0])

    def remember(self, database_id: str, key: str, value: Any) -> None:
        """Keep a value; it is on disk when this returns.

        Raises: OSError, when the file cannot be written
        """
        text = orjson.dumps(value).decode()
        try:
            with self._lock:
                self.make()
                with closing(self._connect()) as connection:
                    connection.execute(_KEEP, (database_id, key, text))
        except (sqlite3.Error, OSError) as problem:
            raise OSError(f"the state file {self.path} cannot be written: {_reason(problem)}") from problem

    def keep_first(self, database_id: str, key: str, value: Any) -> Any:
        """Keep a value unless there is one, and give the one that is kept: the same to all who ask at once.

        Raises: OSError, when the file cannot be written
        """
        text = orjson.dumps(value).decode()
        try:
            with self._lock:
                self.make()
                with closing(self._connect()) as connection:
                    connection.execute(
                        "INSERT INTO memory (database_id, key, value) VALUES (?, ?, ?)"
                        " ON CONFLICT (database_id, key) DO NOTHING",
                        (database_id, key, text),
                    )
        except (sqlite3.Error, OSError) as problem:
            raise OSError(f"the state file {self.path} cannot be written: {_reason(problem)}") from problem
        return self.recall(database_id, key)

    def change(self, database_id: str, key: str, change: Callable[[Any], Any]) -> Any:
        """Keep what `change` makes of a value, or of None, and give it; of several who ask at once, one after another.

        Raises: OSError, when the file cannot be written
        """
        try:
            with self._lock:
                self.make()
                # Closed without COMMIT, it is as if nothing had been said.
                with closing(self._connect()) as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    row = connection.execute(_FIND, (database_id, key)).fetchone()
                    value = change(None if row is None else orjson.loads(row[0]))
                    connection.execute(_KEEP, (database_id, key, orjson.dumps(value).decode()))
                    connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as problem:
            raise OSError(f"the state file {self.path} cannot be written: {_reason(problem)}") from problem
        return value

    def holds_work(self) -> bool:
        """Tell whether there is more than values: settings of a database, an operation, a backup.

        Raises: OSError, when the file cannot be read
        """
        try:
            if not self._holds_something():
                return False
            with self._lock, closing(self._connect()) as connection:
                found = connection.execute(
                    "SELECT EXISTS (SELECT 1 FROM database_settings)"
                    " OR EXISTS (SELECT 1 FROM operations) OR EXISTS (SELECT 1 FROM backups)"
                ).fetchone()
        except (sqlite3.Error, OSError) as problem:
            raise OSError(f"the state file {self.path} cannot be read: {_reason(problem)}") from problem
        return bool(found[0])

    def _holds_something(self) -> bool:
        # A file of no bytes is what a start leaves behind that ended between making the file and filling it.
        return self.path.exists() and (self.path.is_dir() or self.path.stat().st_size > 0)

    def make(self) -> None:
        """Make the file unless it is there, readable by its owner only; of several processes one fills it.

        Raises: OSError, sqlite3.Error
        """
        if self._holds_something():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _NEW.read_text().split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=5, isolation_level=None)
        # EXTRA also syncs the folder after the journal is deleted: else a power cut could bring the journal back, and
        # with it the value of before (sqlite.org/pragma.html#pragma_synchronous).
        connection.execute("PRAGMA synchronous = EXTRA")
        return connection

    def _check(self) -> None:
        # Not read-only: a process that was killed while writing leaves a journal, which has to be rolled back.
        with closing(sqlite3.connect(f"file:{quote(str(self.path))}?mode=rw", uri=True)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            intact = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if application != APPLICATION_ID or version < 1:
            raise SettingsError("state", f"{self.path} is not a state file of dbvalet")
        if intact != "ok":
            # Of several lines the last one says what is wrong; the others say where.
            raise SettingsError("state", f"{self.path} is damaged: {intact.splitlines()[-1]}")
        self.is_behind = version < SCHEMA_VERSION
        if version > SCHEMA_VERSION:
            raise SettingsError(
                "state", f"{self.path} was written by a newer dbvalet (schema {version}, known {SCHEMA_VERSION})"
            )


def _reason(problem: sqlite3.Error | OSError) -> str:
    return str(problem) if isinstance(problem, sqlite3.Error) else problem.strerror or str(problem)
