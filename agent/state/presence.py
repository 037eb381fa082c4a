"""Which dbvalets that share a state file live, told at once: without it a dead one is known by its silence alone."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class Presence:
    """A locked file for each owner of operations, beside the state file.

    The kernel lets go of the lock when the process ends, however it ends. Where files cannot be locked nothing is
    known.
    """

    def __init__(self, state_file: Path) -> None:
        self._beside = state_file
        self._held: dict[str, int] = {}

    def claim(self, owner: str) -> None:
        """Show that an owner lives, until this process ends."""
        if owner in self._held:
            return
        with suppress(OSError):  # then its heartbeat alone shows it
            self._beside.parent.mkdir(parents=True, exist_ok=True)
            self._held[owner] = os.open(self._path(owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._held[owner], fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_gone(self, owner: str) -> bool:
        """Tell whether an owner is certainly gone; False when that is not known."""
        try:
            other = os.open(self._path(owner), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(other)
        return True

    def lives(self, owner: str) -> bool:
        """Tell whether an owner that showed itself before it began lives; also where files cannot be locked."""
        return owner in self._held or (self._path(owner).exists() and not self.is_gone(owner))

    def forget(self, owner: str) -> None:
        """Remove the file of an owner that is gone, or of this process when it ends."""
        with suppress(OSError):
            self._path(owner).unlink()
        held = self._held.pop(owner, None)
        if held is not None:
            os.close(held)

    def _path(self, owner: str) -> Path:
        return self._beside.with_name(f"{self._beside.name}-{owner}.lock")
