"""What survives a restart of dbvalet: a few values by database and key, in one SQLite file.

The file is opened when something is first kept or when one is already there, so a sidecar that keeps nothing needs no
writable folder.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from agent.errors import SettingsError

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE memory (
    database_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (database_id, key)
) STRICT, WITHOUT ROWID
"""


class Store:
    """The state file. Its methods are safe to call from any thread."""

    def __init__(self, url: str) -> None:
        """Check a file that is there; make none.

        Raises: SettingsError, when it is damaged, newer than this dbvalet, or no state file; it is left untouched
        """
        self._path = Path(url.removeprefix("sqlite:///"))
        self._lock = threading.Lock()
        if self._path.exists():
            self._check()

    def recall(self, database_id: str, key: str) -> Any:
        """Give a value, or None."""
        if not self._path.exists():
            return None
        with self._lock, closing(self._connect()) as connection:
            row = connection.execute(
                "SELECT value FROM memory WHERE database_id = ? AND key = ?", (database_id, key)
            ).fetchone()
        return None if row is None else orjson.loads(row[0])

    def remember(self, database_id: str, key: str, value: Any) -> None:
        """Keep a value; it is on disk when this returns.

        Raises: OSError, when the file cannot be written
        """
        with self._lock:
            self._create()
            with closing(self._connect()) as connection, connection:
                connection.execute(
                    "INSERT INTO memory (database_id, key, value) VALUES (?, ?, ?)"
                    " ON CONFLICT (database_id, key) DO UPDATE SET value = excluded.value",
                    (database_id, key, orjson.dumps(value).decode()),
                )

    def _create(self) -> None:
        if self._path.exists():
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                    connection.execute(_SCHEMA)
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._path.chmod(0o600)
        except sqlite3.OperationalError as problem:
            raise OSError(f"the state file {self._path} cannot be made: {problem}") from problem

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _check(self) -> None:
        try:
            with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as connection:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                intact = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.Error as problem:
            raise SettingsError("state", f"{self._path} cannot be read: {problem}") from None
        if intact != "ok":
            raise SettingsError("state", f"{self._path} is damaged: {intact}")
        if version > SCHEMA_VERSION:
            raise SettingsError(
                "state", f"{self._path} was written by a newer dbvalet (schema {version}, known {SCHEMA_VERSION})"
            )
        if version < 1:
            raise SettingsError("state", f"{self._path} is not a state file of dbvalet")


class DatabaseMemory:
    """The part of a store that belongs to one database: the `Memory` of its server."""

    def __init__(self, store: Store, database_id: str) -> None:
        self._store = store
        self._database_id = database_id

    async def recall(self, key: str) -> Any:
        """Give a value, or None."""
        return await asyncio.to_thread(self._store.recall, self._database_id, key)

    async def remember(self, key: str, value: Any) -> None:
        """Keep a value; it is on disk when this returns."""
        await asyncio.to_thread(self._store.remember, self._database_id, key, value)
