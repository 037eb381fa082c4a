"""Where archives are kept: anything that fsspec reaches, a folder by default. All but `in_time` and `begin` block."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, wraps
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryFile
from typing import Any, BinaryIO, ParamSpec, TypeVar, cast

from agent.errors import AgentError, ArchiveNotFound
from engines import deadline
from engines.backup import BLOCK
from engines.errors import BackupDamaged, EngineError

P = ParamSpec("P")
T = TypeVar("T")

STORAGE = "the storage"
"""What is waited for, in the words of `engines.deadline`."""

ANSWER_SECONDS = 8.0
"""How long a request waits for the storage: a disk of another host may stand still, and a bucket be out of reach."""

LATE = "the storage does not answer in time, and may still do later what it was asked for"

_THREADS = 4
"""For requests alone, and no more of them, so that what queues up before a storage that stands still is refused."""

Check = Callable[[], None]
"""Raises GivenUp when the work is to be given up; called with every block."""


class GivenUp(Exception):
    """Nobody waits for this work any more."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file as it was written, and found again."""

    size: int
    sha256: str


def _as_os_errors(method: Callable[P, T]) -> Callable[P, T]:
    """Turn what a storage's own library raises into OSError: a bucket that cannot be reached is no bug."""

    @wraps(method)
    def told(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (OSError, AgentError, EngineError, GivenUp):
            raise
        except Exception as problem:
            raise OSError(f"{type(problem).__name__}: {problem}") from problem

    return told


class Storage:
    """Files below one place, named like `ad-pg/0123.tar.gz`."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        """Touch nothing: a folder is made when something is first kept."""
        self._url = url
        self._options = options
        self._opened: tuple[Any, str] | None = None
        self._threads = ThreadPoolExecutor(_THREADS, "storage")

    async def in_time(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Let a thread call something that blocks, for a request, which cannot wait for as long as a backup can.

        Raises: OSError, when there is no answer within `ANSWER_SECONDS`; whatever `method` raises
        """
        with deadline.waiting_for(STORAGE):
            answer = asyncio.get_running_loop().run_in_executor(self._threads, partial(method, *args, **kwargs))
            try:
                await asyncio.wait({answer}, timeout=ANSWER_SECONDS)
            finally:
                # What no thread has begun is not done any more; of what one has begun nobody hears the end.
                was_late = answer.cancel()
            if was_late:
                raise OSError(LATE)
            return answer.result()

    def begin(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Let a thread call something that blocks, for a request that says itself how long it waits."""
        return self._threads.submit(method, *args, **kwargs)

    @_as_os_errors
    def write(self, name: str, make: Callable[[BinaryIO], None], check: Check) -> Written:
        """Let `make` write a file under a temporary name, read it back, and give it its name only then.

        Raises: OSError, BackupDamaged when what is read back is not what was written; nothing is left in both cases
        """
        files, place, unfinished = self._at(name)
        self._make_folder(Path(place).parent)
        try:
            with files.open(unfinished, "wb") as target:
                hashing = _Hashing(target, check)
                make(cast(BinaryIO, hashing))
                self._make_durable(target)
            written = Written(size=hashing.size, sha256=hashing.digest.hexdigest())
            self._read_back(unfinished, written, check)
            files.mv(unfinished, place)
            self._make_durable_name(Path(place))
        except BaseException:
            self._remove(unfinished)
            raise
        return written

    @_as_os_errors
    def try_to_write(self, folder: str) -> None:
        """Make sure that files can be written to a folder like `ad-pg`, and leave nothing there.

        Raises: OSError
        """
        files, place, unfinished = self._at(f"{folder}/{token_hex(12)}")
        if self._is_folder():
            try_folder(Path(place).parent)
            return
        try:
            with files.open(unfinished, "wb") as target:
                target.write(b"A dry run: this file goes again at once.\n")
        finally:
            self._remove(unfinished)

    @_as_os_errors
    def open(self, name: str) -> BinaryIO:
        """Open a file to read it from any position.

        Raises: ArchiveNotFound, OSError
        """
        files, place, _ = self._at(name)
        try:
            return files.open(place, "rb")
        except FileNotFoundError:
            raise ArchiveNotFound from None

    @_as_os_errors
    def size(self, name: str) -> int:
        """Give the size of a file in bytes.

        Raises: ArchiveNotFound, OSError
        """
        files, place, _ = self._at(name)
        try:
            return int(files.size(place))
        except FileNotFoundError:
            raise ArchiveNotFound from None

    @_as_os_errors
    def remove(self, name: str) -> None:
        """Remove a file, and what was written of it under its temporary name; absent ones are well.

        Raises: OSError
        """
        _, place, unfinished = self._at(name)
        self._remove(unfinished)
        self._remove(place)

    def _at(self, name: str) -> tuple[Any, str, str]:
        files, root = self._open()
        folder, _, last = f"{root}/{name}".rpartition("/")
        return files, f"{folder}/{last}", f"{folder}/.{last}.part"

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec

            opened: tuple[Any, str] = cast(Any, fsspec).core.url_to_fs(self._url, **self._options)
            # What others put there is seen at once.
            opened[0].use_listings_cache = False
            self._opened = opened[0], opened[1].rstrip("/")
        return self._opened

    def _is_folder(self) -> bool:
        return "file" in self._open()[0].protocol

    def _make_folder(self, folder: Path) -> None:
        """A backup holds all data of a database: its folder is for its owner only."""
        if self._is_folder():
            folder.parent.mkdir(0o700, parents=True, exist_ok=True)
            folder.mkdir(0o700, exist_ok=True)

    def _make_durable(self, target: Any) -> None:
        if self._is_folder():
            target.flush()
            os.fchmod(target.fileno(), 0o600)
            os.fsync(target.fileno())

    def _make_durable_name(self, place: Path) -> None:
        if self._is_folder():
            folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _read_back(self, place: str, written: Written, check: Check) -> None:
        files, _ = self._open()
        digest, size = sha256(), 0
        with files.open(place, "rb") as source:
            while block := source.read(BLOCK):
                check()
                digest.update(block)
                size += len(block)
        if (size, digest.hexdigest()) != (written.size, written.sha256):
            raise BackupDamaged("What was read back from the storage is not what was written to it.")

    def _remove(self, place: str) -> None:
        files, _ = self._open()
        if files.exists(place):
            files.rm_file(place)


def try_folder(folder: Path) -> None:
    """Make sure that files can be written to a folder, or that it can be made; neither it nor a file stays.

    A folder that is not there is not made, since one that is taken away again could be another's by then: a file
    without a name is written to the nearest one above it instead.

    Raises: OSError
    """
    there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    try:
        with TemporaryFile(dir=there):
            return
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, str(there)) from problem


class _Hashing:
    """A file that counts and hashes what is written to it."""

    def __init__(self, target: Any, check: Check) -> None:
        self._target = target
        self._check = check
        self.digest = sha256()
        self.size = 0

    def write(self, block: bytes) -> int:
        self._check()
        self.digest.update(block)
        self.size += len(block)
        return self._target.write(block)

    def flush(self) -> None:
        """Leave it to the target when to flush."""
