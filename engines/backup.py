"""What an engine offers for backups of a deployment's logical database, and how its tools are run.

A dump is a folder of files and a manifest. Each engine's `backup` module says what is in it and how it comes back.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import orjson

from engines.errors import BackupDamaged, BackupFailed
from engines.threads import in_own_thread

MANIFEST = "manifest.json"
"""The file of a dump that lists the others."""

BLOCK = 1024 * 1024
"""Bytes that are in memory at a time."""

LAST_WORDS = 2000
"""Characters of a tool's messages that an error shows: the end of them, where the cause stands."""

TERMINATE_SECONDS = 10.0
"""How long a tool that was told to end may take before it is killed."""

Progress = Callable[[float, str], None]
"""Told as work goes on: percent from 0 to 100, and what is being done in words."""


@dataclass(frozen=True, kw_only=True)
class DumpedFile:
    """One file of a dump."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a dump holds."""

    engine: str
    flavour: str | None
    readable_version: str
    """Of the server that was dumped."""
    database: str
    tool: str
    """What made it, with its version."""
    created_at: datetime
    files: Mapping[str, DumpedFile]
    notes: Sequence[str] = field(default_factory=list[str])
    """What a person should know before restoring it."""


class Backups(Protocol):
    """Backups of the logical database that a server's URL names. Made from a Server; touches nothing when made."""

    async def missing(self) -> list[str]:
        """Tell why no backup can be made or restored here now, each with its remedy; empty when ready."""
        ...

    async def dump(self, folder: Path, progress: Progress) -> Manifest:
        """Write a dump into an empty folder, streaming; it is whole and checked when this returns.

        Raises: BackupFailed, Conflict (a restore was interrupted, or what is dumped changes all the time),
        EngineUnavailable, PrivilegeMissing, Precondition (no tool), OSError (disk full)
        """
        ...

    async def verify(self, folder: Path) -> Manifest:
        """Check a dump without the server: every file there, of its size and checksum, and whole by its own marks.

        Raises: BackupDamaged
        """
        ...

    async def restore(self, folder: Path, progress: Progress) -> list[str]:
        """Bring a dump back and give notes for a person: what was replaced, what could not be brought back.

        A failure, a cancellation or a crash leaves the old data, or new data that `clean_up` makes whole.

        Raises: BackupFailed, BackupDamaged, EngineUnavailable, PrivilegeMissing, Conflict
        """
        ...

    async def clean_up(self) -> None:
        """Finish or undo what an interrupted restore left behind; does nothing when there is nothing."""
        ...


async def write_manifest(folder: Path, **facts: Any) -> Manifest:
    """Count and hash the files of a dump, and write its manifest, which makes it whole."""
    files = await in_own_thread(lambda: {path.name: measure(path) for path in sorted(folder.iterdir())})
    manifest = Manifest(files=files, created_at=datetime.now(UTC), **facts)
    unfinished = folder / f".{MANIFEST}"
    await in_own_thread(unfinished.write_bytes, orjson.dumps(asdict(manifest), option=orjson.OPT_INDENT_2))
    unfinished.rename(folder / MANIFEST)
    return manifest


async def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a dump and check its files against it.

    Raises: BackupDamaged
    """
    try:
        read: dict[str, Any] = orjson.loads(await in_own_thread((folder / MANIFEST).read_bytes))
        read["files"] = {name: DumpedFile(**each) for name, each in read["files"].items()}
        read["created_at"] = datetime.fromisoformat(read["created_at"])
        manifest = Manifest(**read)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise BackupDamaged("The backup has no readable manifest.") from problem
    for name, wanted in manifest.files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise BackupDamaged(f"The backup lacks its file {name}.")
        if await in_own_thread(measure, path) != wanted:
            raise BackupDamaged(f"The file {name} of the backup is not as it was written.")
    return manifest


def measure(path: Path) -> DumpedFile:
    """Count and hash a file, a block at a time."""
    digest, size = sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return DumpedFile(size=size, sha256=digest.hexdigest())


def find_tool(*names: str) -> Path | None:
    """Find a program on PATH by one of its names, the first that is there."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    return Path(found) if found else None


async def run_tool(
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    stdin: Path | None = None,
    stdout: Path | None = None,
    watch: Callable[[], None] = lambda: None,
) -> str:
    """Run a program to its end and give what it said on standard error; no shell, no terminal, no inherited secrets.

    `watch` is called about twice a second, to tell progress. When the waiting task is cancelled the program is ended
    first. Secrets belong in `environment` or in a file that it names: an argument is seen by every user.

    Raises: BackupFailed, with its last words, when its exit code is not 0; OSError when `stdout` cannot be made
    """
    with (stdin or Path("/dev/null")).open("rb") as source, (stdout or Path("/dev/null")).open("wb") as target:
        process = await asyncio.create_subprocess_exec(
            *map(str, argv), stdin=source, stdout=target, stderr=asyncio.subprocess.PIPE, env=dict(environment)
        )
        said = asyncio.create_task(_last_words(process.stderr))
        try:
            while process.returncode is None:
                watch()
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(said), 0.5)
                    await process.wait()
        finally:
            await _end(process)
            words = await said
    if process.returncode != 0:
        raise BackupFailed(f"{Path(argv[0]).name} ended with {process.returncode}: {words or 'it said nothing'}")
    return words


async def _last_words(stream: asyncio.StreamReader | None) -> str:
    said = b""
    while stream is not None and (block := await stream.read(BLOCK)):
        said = (said + block)[-LAST_WORDS:]
    return said.decode(errors="replace").strip()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), TERMINATE_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
