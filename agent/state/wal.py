"""A state file that stays open: in WAL mode, where a commit is one sync of the log instead of four of several files.

The log and its index, FILE-wal and FILE-shm, are there while the file is open, and after the end of a process that was
killed: then what the log has belongs to the file, and the next one to open it reads it (https://www.sqlite.org/wal.html).
No file of the three may be opened and closed past SQLite while this process has it open: closing it would give up the
locks of all connections of the process (https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled).
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

BUSY_SECONDS = 5.0
"""How long somebody else's transaction is waited for."""

LOG_PAGES = 400
"""How far the log may grow before it is copied back, in pages of 4 KiB: with a thousand, as is usual, it could fill a
small disk, and a disk that is full keeps it from being copied back."""

CACHE_KIB = 256
"""Of a connection that is kept. The pages of a transaction are few, and an idle process is to be small."""


def connect(path: Path) -> sqlite3.Connection:
    """Open a file that is there; what is committed over the connection is on disk.

    Raises: sqlite3.Error
    """
    # The driver's own transactions begin at the first write only: two that have read would then refuse each other.
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        # EXTRA also syncs the folder after a rollback journal is deleted: else a power cut could bring the journal
        # back, and with it the value of before (sqlite.org/pragma.html#pragma_synchronous). In WAL mode it is FULL.
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def log_of(path: Path) -> Path:
    """Give where the log of a file stands; SQLite follows links first."""
    return Path(f"{os.path.realpath(path)}-wal")


_LATER = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL}
"""Somebody else has it open, or the disk is full: the next one to write tries again."""

_WITHOUT_WAL = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_READONLY}
"""The index cannot be had: a file system without shared memory."""


class KeptOpen:
    """A connection to a file that is kept, and so keeps the log: the last one to close a file copies it back.

    Who uses it takes turns.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._real = path
        self._seen: dict[Path, tuple[int, int] | None] = {}
        self._is_settled = False
        """Whether it is known if the file can be in WAL mode."""

    def connection(self) -> sqlite3.Connection:
        """Give the connection to the file that is at its path now.

        Raises: sqlite3.Error
        """
        if self._connection is not None and identity(self._path) != self._seen[self._real]:
            self.close()
        if self._connection is None:
            self._real = Path(os.path.realpath(self._path))
            self._connection = self._opened()
            self._note()
        return self._connection

    def use_wal(self) -> None:
        """Bring the file into WAL mode, unless it cannot be: then it is used as it is.

        Raises: sqlite3.Error
        """
        connection = self.connection()
        if self._is_settled:
            return
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # Opens the log and its index, and shows that both can be written.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            self._is_settled = True
        except sqlite3.Error as problem:
            code = problem.sqlite_errorcode & 0xFF
            if code not in _WITHOUT_WAL | _LATER:
                self.close()
                raise
            self._is_settled = code not in _LATER
            if code != sqlite3.SQLITE_BUSY:
                self._do_without()
        self.connection().execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
        self._note()

    def close(self) -> None:
        """Close it. A file that was taken from its path, or replaced, takes along what the log has."""
        if self._connection is None:
            return
        connection, self._connection, self._is_settled = self._connection, None, False
        if identity(self._real) == self._seen[self._real]:
            connection.close()
            return
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        # The next file here must not be taken for the one that they belong to.
        for each in self._beside():
            if self._seen[each] is not None and identity(each) == self._seen[each]:
                with suppress(OSError):
                    each.unlink()

    def end(self) -> None:
        """Close it, and leave a file that needs no other beside it, unless somebody else has it open."""
        if self._connection is not None and identity(self._real) == self._seen[self._real]:
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA busy_timeout = 0")
                self._connection.execute("PRAGMA journal_mode = DELETE")
        self.close()

    def _opened(self) -> sqlite3.Connection:
        connection = connect(self._path)
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        return connection

    def _do_without(self) -> None:
        """Bring back a file that is in WAL mode and cannot be read, for want of the index."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        with suppress(sqlite3.Error), closing(connect_alone(self._path)) as alone:
            alone.execute("PRAGMA journal_mode = DELETE")

    def _beside(self) -> tuple[Path, Path]:
        return Path(f"{self._real}-wal"), Path(f"{self._real}-shm")

    def _note(self) -> None:
        self._seen = {each: identity(each) for each in (self._real, *self._beside())}


def connect_alone(path: Path) -> sqlite3.Connection:
    """Open a file for one connection, which needs no shared index.

    Raises: sqlite3.Error
    """
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=0, isolation_level=None)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA synchronous = EXTRA")
    return connection


def identity(path: Path) -> tuple[int, int] | None:
    """Tell a file from one that takes its place; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
