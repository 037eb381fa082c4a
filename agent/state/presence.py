"""Which dbvalets that share a state file live, told at once: without it a dead one is known by its silence alone."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path

_UNKNOWN_THERE = frozenset({errno.ENOSYS, errno.EOPNOTSUPP})
"""What a file system says that knows no such locks: nobody can take one, so nobody is taken for gone."""


class Presence:
    """A locked file for each owner of operations, beside the state file.

    The kernel lets go of the lock when the process ends, however it ends. Where files cannot be locked nothing is
    known. Its methods are safe to call from any thread.
    """

    def __init__(self, state_file: Path) -> None:
        self._beside = state_file
        self._held: dict[str, int] = {}
        self._claiming = threading.Lock()

    def claim(self, owner: str) -> None:
        """Show that an owner lives, until this process ends; also where its file was removed meanwhile.

        Raises: OSError, when that cannot be shown: what is begun then would be taken for that of a dead one
        """
        with self._claiming:
            held = self._held.get(owner)
            if held is not None and self._is_in_place(owner, held):
                return
            self._held[owner] = self._locked_file(owner)
            if held is not None:
                os.close(held)

    def is_gone(self, owner: str) -> bool:
        """Tell whether an owner is certainly gone; False when that is not known."""
        try:
            other = os.open(self._path(owner), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # Shared: of several who look at once none sees the lock of another.
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(other)
        return True

    def lives(self, owner: str) -> bool:
        """Tell whether an owner that showed itself before it began lives; also where files cannot be locked."""
        return owner in self._held or (self._path(owner).exists() and not self.is_gone(owner))

    def forget(self, owner: str) -> None:
        """Remove the file of an owner that is gone, or of this process when it ends; never that of one that lives."""
        with self._claiming:
            with suppress(OSError):
                self._path(owner).unlink()
            held = self._held.pop(owner, None)
            if held is not None:
                os.close(held)

    def _is_in_place(self, owner: str, held: int) -> bool:
        try:
            found = self._path(owner).stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(held))

    def _locked_file(self, owner: str) -> int:
        """Put a file that is locked already in its place: none who looks ever sees one that is not yet.

        Raises: OSError
        """
        place = self._path(owner)
        new = place.with_name(f"{place.name}.new")
        place.parent.mkdir(parents=True, exist_ok=True)
        made = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(made, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as problem:
                if problem.errno not in _UNKNOWN_THERE:
                    raise
            new.replace(place)
        except BaseException:
            os.close(made)
            raise
        return made

    def _path(self, owner: str) -> Path:
        return self._beside.with_name(f"{self._beside.name}-{owner}.lock")
