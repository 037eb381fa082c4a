"""A dump as one file, `tar.gz`: packed and unpacked as a stream, a block at a time."""

from __future__ import annotations

import asyncio
import gzip
import tarfile
import threading
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from agent.backups.storage import Check, GivenUp
from engines.backup import BLOCK
from engines.errors import BackupDamaged
from engines.threads import in_own_thread

T = TypeVar("T")

COMPRESSION = 1
"""gzip's fastest: most dumps are compressed already, and the others shrink nearly as much."""

Told = Callable[[float], None]
"""Told the share that is done, from 0 to 1."""


async def stoppable(work: Callable[[Check], T]) -> T:
    """Do blocking work in a thread; when who waits is cancelled, the work is given up first."""
    given_up = threading.Event()

    def check() -> None:
        if given_up.is_set():
            raise GivenUp

    running = asyncio.ensure_future(in_own_thread(work, check))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        given_up.set()
        await asyncio.wait([running])
        raise


def pack(folder: Path, target: BinaryIO, told: Told) -> None:
    """Write the files of a folder into an archive; the manifest comes first.

    Raises: OSError
    """
    files = sorted(folder.iterdir(), key=lambda path: (path.name != "manifest.json", path.name))
    whole = sum(path.stat().st_size for path in files) or 1
    done = 0

    def counted(size: int) -> None:
        nonlocal done
        done += size
        told(done / whole)

    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=COMPRESSION, fileobj=target, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", bufsize=BLOCK) as archive,
    ):
        for path in files:
            with path.open("rb") as source:
                member = archive.gettarinfo(arcname=path.name, fileobj=source)
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                member.mode = 0o600
                archive.addfile(member, cast(Any, _Counting(source, counted)))


def unpack(source: BinaryIO, folder: Path, *, size: int, sha256_hex: str, told: Told, check: Check) -> None:
    """Unpack an archive into an empty folder.

    Raises: BackupDamaged, when it is not the archive that was written; OSError
    """
    hashed = _Hashed(source, lambda done: told(done / (size or 1)), check)
    try:
        with tarfile.open(fileobj=cast(Any, hashed), mode="r|gz", bufsize=BLOCK) as archive:
            for member in archive:
                inner = archive.extractfile(member)
                # What dbvalet packs are plain files; another name could lead out of the folder.
                if inner is None or not member.isreg() or Path(member.name).name != member.name:
                    raise BackupDamaged("The archive holds what dbvalet does not pack.")
                with (folder / member.name).open("xb") as target:
                    while block := inner.read(BLOCK):
                        target.write(block)
        while hashed.read(BLOCK):
            pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise BackupDamaged("The archive cannot be unpacked: it is not as it was written.") from problem
    if hashed.digest.hexdigest() != sha256_hex:
        raise BackupDamaged("The archive is not as it was written.")


class _Counting:
    """A file that tells how much of it was read."""

    def __init__(self, source: Any, counted: Callable[[int], None]) -> None:
        self._source = source
        self._counted = counted

    def read(self, size: int = -1) -> bytes:
        block = self._source.read(size)
        self._counted(len(block))
        return block


class _Hashed:
    """A stream that hashes what is read from it."""

    def __init__(self, source: Any, told: Callable[[int], None], check: Check) -> None:
        self._source = source
        self._told = told
        self._check = check
        self._done = 0
        self.digest = sha256()

    def read(self, size: int = -1) -> bytes:
        self._check()
        block = self._source.read(size)
        self.digest.update(block)
        self._done += len(block)
        self._told(self._done)
        return block
