"""The state file as the standard library sees it: a few values by database and key, and whether there is more.

The file is opened when something is first kept or when one is already there, so a sidecar that keeps nothing needs no
writable folder; and one that only performs actions needs no more than this module.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from agent.errors import SettingsError
from agent.state.wal import KeptOpen, connect, identity, log_of

SCHEMA_VERSION = 4
"""The number of the newest migration."""

APPLICATION_ID = 0x6462766C
"""`dbvl`, in the header of the file: tells a state file from any other SQLite database."""

ROOM = 128 * 1024
"""Bytes of the disk that are free before something is begun: for a line of the audit, an answer, and their pages."""

_NEW = Path(__file__).with_name("new.sql")
"""What a new file gets: what all migrations together make, without the toolkit that they need."""

_FIND = "SELECT value FROM memory WHERE database_id = ? AND key = ?"

_KEEP = """
INSERT INTO memory (database_id, key, value) VALUES (?, ?, ?)
    ON CONFLICT (database_id, key) DO UPDATE SET value = excluded.value
"""


_MAKING = threading.Lock()
"""Of all in this process that could make a file: who closes one past SQLite gives up the locks of all the others."""


class StateFile:
    """The state file. Its methods are safe to call from any thread, and the file from several processes."""

    def __init__(self, path: Path, *, stays: bool = False) -> None:
        """Check a file that is there; make none.

        stays: keep it open from its first use on, in WAL mode from the first thing on that is kept; `close` it then

        Raises: SettingsError, when it is damaged, newer than this dbvalet, or no state file; it is left untouched
        """
        self.path = path
        self._kept = KeptOpen(path) if stays else None
        self.is_behind = False
        """Whether it has to be migrated before anything else."""
        self._lock = threading.RLock()
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
            with self._opened() as connection:
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
            with self._made() as connection:
                connection.execute(_KEEP, (database_id, key, text))
        except (sqlite3.Error, OSError) as problem:
            raise OSError(f"the state file {self.path} cannot be written: {_reason(problem)}") from problem

    def keep_first(self, database_id: str, key: str, value: Any) -> Any:
        """Keep a value unless there is one, and give the one that is kept: the same to all who ask at once.

        Raises: OSError, when the file cannot be written
        """
        text = orjson.dumps(value).decode()
        try:
            with self._made() as connection:
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
            # Left without COMMIT, it is as if nothing had been said.
            with self._made() as connection:
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
            with self._opened() as connection:
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

    @property
    def stays(self) -> bool:
        """Tell whether it is kept open."""
        return self._kept is not None

    def make(self) -> None:
        """Make the file unless it is there, readable by its owner only; of several processes one fills it.

        Raises: OSError, sqlite3.Error
        """
        with self._lock, _MAKING:
            if self._holds_something():
                return
            if self._kept is not None:
                self._kept.close()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(connect(self.path)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                    for statement in _NEW.read_text().split(";\n"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                connection.execute("COMMIT")

    def connect(self) -> sqlite3.Connection:
        """Open another connection to the file, which has to be there.

        Raises: sqlite3.Error, OSError
        """
        self.settle()
        return connect(self.path)

    def require_room(self) -> None:
        """See that the disk has room for what the next changes write.

        Raises: OSError, when it has not
        """
        disk = os.statvfs(self.path.parent)
        if disk.f_bavail * disk.f_frsize < ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def settle(self) -> tuple[int, int] | None:
        """Make ready for a transaction, and give which file it is that stands at its path now.

        Raises: sqlite3.Error, OSError
        """
        if self._kept is not None and self._holds_something():
            with self._lock:
                self._kept.use_wal()
        return identity(self.path)

    def close(self) -> None:
        """Close what is kept open; one file is left behind."""
        if self._kept is not None:
            with self._lock:
                self._kept.end()

    @contextmanager
    def _made(self) -> Generator[sqlite3.Connection]:
        """Give a connection to a file that is made unless it is there.

        Raises: OSError, sqlite3.Error
        """
        with self._lock:
            self.make()
            self.settle()
            with self._opened() as connection:
                yield connection

    @contextmanager
    def _opened(self) -> Generator[sqlite3.Connection]:
        """Give a connection to a file that is there.

        Raises: sqlite3.Error
        """
        with self._lock:
            if self._kept is None:
                with closing(connect(self.path)) as connection:
                    yield connection
                return
            try:
                yield self._kept.connection()
            except BaseException:
                # Whatever went wrong, the next one begins anew.
                self._kept.close()
                raise

    def _check(self) -> None:
        # Not read-only: a process that was killed while writing leaves a journal, which has to be rolled back. A log is
        # only read: when the file is closed it would be copied into one that may be damaged.
        mode = "ro" if log_of(self.path).exists() else "rw"
        with closing(sqlite3.connect(f"file:{quote(str(self.path))}?mode={mode}", uri=True)) as connection:
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
