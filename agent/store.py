"""What survives a restart of dbvalet: a few values by database and key, in one SQLite file.

The file is opened when something is first kept or when one is already there, so a sidecar that keeps nothing needs no
writable folder.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from agent.errors import SettingsError
from engines.errors import Precondition

SCHEMA_VERSION = 1

APPLICATION_ID = 0x6462766C
"""`dbvl`, in the header of the file: tells a state file from any other SQLite database."""

_SCHEMA = """
CREATE TABLE memory (
    database_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (database_id, key)
) STRICT, WITHOUT ROWID
"""


class Store:
    """The state file. Its methods are safe to call from any thread, and the file from several processes."""

    def __init__(self, url: str) -> None:
        """Check a file that is there; make none.

        Raises: SettingsError, when it is damaged, newer than this dbvalet, or no state file; it is left untouched
        """
        self._path = Path(url.removeprefix("sqlite:///"))
        self._lock = threading.Lock()
        try:
            if self._holds_something():
                self._check()
        except (sqlite3.Error, OSError) as problem:
            raise SettingsError("state", f"{self._path} cannot be read: {_reason(problem)}") from None

    def recall(self, database_id: str, key: str) -> Any:
        """Give a value, or None.

        Raises: OSError, when the file cannot be read
        """
        try:
            if not self._holds_something():
                return None
            with self._lock, closing(self._connect()) as connection:
                row = connection.execute(
                    "SELECT value FROM memory WHERE database_id = ? AND key = ?", (database_id, key)
                ).fetchone()
        except (sqlite3.Error, OSError) as problem:
            raise OSError(f"the state file {self._path} cannot be read: {_reason(problem)}") from problem
        return None if row is None else orjson.loads(row[0])

    def remember(self, database_id: str, key: str, value: Any) -> None:
        """Keep a value; it is on disk when this returns.

        Raises: OSError, when the file cannot be written
        """
        text = orjson.dumps(value).decode()
        try:
            with self._lock:
                self._make()
                with closing(self._connect()) as connection:
                    connection.execute(
                        "INSERT INTO memory (database_id, key, value) VALUES (?, ?, ?)"
                        " ON CONFLICT (database_id, key) DO UPDATE SET value = excluded.value",
                        (database_id, key, text),
                    )
        except (sqlite3.Error, OSError) as problem:
            raise OSError(f"the state file {self._path} cannot be written: {_reason(problem)}") from problem

    def _holds_something(self) -> bool:
        # A file of no bytes is what a start leaves behind that ended between making the file and filling it.
        return self._path.exists() and (self._path.is_dir() or self._path.stat().st_size > 0)

    def _make(self) -> None:
        """Make the file unless it is there, readable by its owner only; of several processes one fills it."""
        if self._holds_something():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                connection.execute(_SCHEMA)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5, isolation_level=None)
        # EXTRA also syncs the folder after the journal is deleted: else a power cut could bring the journal back, and
        # with it the value of before (sqlite.org/pragma.html#pragma_synchronous).
        connection.execute("PRAGMA synchronous = EXTRA")
        return connection

    def _check(self) -> None:
        # Not read-only: a process that was killed while writing leaves a journal, which has to be rolled back.
        with closing(sqlite3.connect(f"file:{quote(str(self._path))}?mode=rw", uri=True)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            intact = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if application != APPLICATION_ID or version < 1:
            raise SettingsError("state", f"{self._path} is not a state file of dbvalet")
        if intact != "ok":
            # Of several lines the last one says what is wrong; the others say where.
            raise SettingsError("state", f"{self._path} is damaged: {intact.splitlines()[-1]}")
        if version > SCHEMA_VERSION:
            raise SettingsError(
                "state", f"{self._path} was written by a newer dbvalet (schema {version}, known {SCHEMA_VERSION})"
            )


class DatabaseMemory:
    """The part of a store that belongs to one database: the `Memory` of its server."""

    def __init__(self, store: Store, database_id: str) -> None:
        self._store = store
        self._database_id = database_id

    async def recall(self, key: str) -> Any:
        """Give a value, or None.

        Raises: Precondition, when the state file cannot be read
        """
        try:
            return await asyncio.to_thread(self._store.recall, self._database_id, key)
        except OSError as problem:
            raise Precondition(_sentence(problem)) from problem

    async def remember(self, key: str, value: Any) -> None:
        """Keep a value; it is on disk when this returns.

        Raises: Precondition, when the state file cannot be written
        """
        try:
            await asyncio.to_thread(self._store.remember, self._database_id, key, value)
        except OSError as problem:
            raise Precondition(_sentence(problem)) from problem


def _reason(problem: sqlite3.Error | OSError) -> str:
    return str(problem) if isinstance(problem, sqlite3.Error) else problem.strerror or str(problem)


def _sentence(problem: OSError) -> str:
    text = str(problem)
    return f"{text[0].upper()}{text[1:]}. The key `state` of dbvalet's configuration says where it is."
