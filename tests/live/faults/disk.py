"""A disk that can be made full, and has room again, without a byte being written to it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CAN_MOUNT = os.geteuid() == 0


@dataclass(frozen=True)
class Disk:
    """A file system in memory."""

    place: Path
    size: str

    @contextmanager
    def full(self) -> Iterator[None]:
        """Leave no room for anything more, until the block ends."""
        found = os.statvfs(self.place)
        # The kernel takes no size below what is used, and 0 for no limit at all.
        used = max((found.f_blocks - found.f_bfree) * found.f_frsize, 4096)
        self._resize(str(used))
        try:
            yield
        finally:
            self._resize(self.size)

    def _resize(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.place], check=True)


@contextmanager
def new_disk(place: Path, size: str) -> Iterator[Disk | None]:
    """Mount one; None where that is not allowed: then the folder is an ordinary one."""
    place.mkdir(parents=True)
    if not CAN_MOUNT:
        yield None
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "tmpfs", place], check=True)
    try:
        yield Disk(place, size)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
