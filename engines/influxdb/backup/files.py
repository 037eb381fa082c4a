"""The files of a dump: policy-N.lp with the points of the policy number N, contents.json with all the rest.

A string may have line feeds in it, so points are not told apart by lines: they stand in blocks, each after a comment
that says how many bytes and points it has. A comment at the end says how many there were.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson

from engines.backup import Manifest, read_manifest
from engines.errors import BackupDamaged
from engines.influxdb.backup.catalogue import Contents, ContinuousQuery, Grant, Policy
from engines.threads import in_own_thread

CONTENTS = "contents.json"

BLOCK_BYTES, BLOCK_POINTS = 1024 * 1024, 5000

LONGEST_COMMENT = 200

_BLOCK = re.compile(rb"# ([0-9]+) bytes, ([0-9]+) points\n")
_END = re.compile(rb"# end: ([0-9]+) points\n")


@dataclass(frozen=True, kw_only=True)
class Backup:
    """A dump that was checked."""

    folder: Path
    manifest: Manifest
    contents: Contents

    @property
    def points(self) -> int:
        """How many there are in all."""
        return sum(points_in_file(points_of(self.folder, number)) for number in range(len(self.contents.policies)))


class Writer:
    """Gathers points into blocks and gives each to what takes it."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = 0

    def add(self, line: str) -> tuple[bytes, int] | None:
        """Take a point; give a block and how many points it has when one is full."""
        self._lines.append(line)
        self._size += len(line) + 1
        return self.rest() if self._size >= BLOCK_BYTES or len(self._lines) == BLOCK_POINTS else None

    def rest(self) -> tuple[bytes, int] | None:
        """Give what is left."""
        if not self._lines:
            return None
        block = "".join(f"{line}\n" for line in self._lines).encode("utf-8", "surrogateescape")
        points = len(self._lines)
        self._lines, self._size = [], 0
        return block, points


class PointsFile:
    """Writes the points of one policy."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._points = 0

    def write(self, block: bytes, points: int) -> None:
        """Write a block."""
        self._file.write(b"# %d bytes, %d points\n" % (len(block), points))
        self._file.write(block)
        self._points += points

    def end(self) -> Self:
        """Say that this was all."""
        self._file.write(b"# end: %d points\n" % self._points)
        return self


def points_of(folder: Path, number: int) -> Path:
    """Give the file of the points of a policy."""
    return folder / f"policy-{number}.lp"


def blocks_in(path: Path) -> Iterator[tuple[bytes, int]]:
    """Read one block after the other, with how many points it has.

    Raises: BackupDamaged, when the file does not end where it says that it does
    """
    total = 0
    with path.open("rb") as file:
        while True:
            comment = file.readline(LONGEST_COMMENT)
            if found := _END.fullmatch(comment):
                if int(found[1]) != total or file.read(1):
                    raise BackupDamaged(f"{path.name} says that it has {int(found[1])} points, and has {total}.")
                return
            found = _BLOCK.fullmatch(comment)
            if found is None:
                raise BackupDamaged(f"{path.name} has no end, or is not of points.")
            block = file.read(int(found[1]))
            if len(block) != int(found[1]) or not block.endswith(b"\n"):
                raise BackupDamaged(f"{path.name} ends in the middle of its points.")
            total += int(found[2])
            yield block, int(found[2])


def points_in_file(path: Path) -> int:
    """Count the points of a file.

    Raises: BackupDamaged
    """
    return sum(points for _, points in blocks_in(path))


def write_contents(folder: Path, contents: Contents) -> None:
    """Write all but the points."""
    (folder / CONTENTS).write_bytes(to_json(contents))


def to_json(contents: Contents) -> bytes:
    """Write contents as text."""
    return orjson.dumps(asdict(contents), option=orjson.OPT_INDENT_2)


def from_json(text: bytes) -> Contents:
    """Read contents.

    Raises: BackupDamaged
    """
    try:
        read: dict[str, Any] = orjson.loads(text)
        return Contents(
            policies=[Policy(**each) for each in read["policies"]],
            continuous_queries=[ContinuousQuery(**each) for each in read["continuous_queries"]],
            grants=[Grant(**each) for each in read["grants"]],
            counts=read["counts"],
        )
    except (ValueError, KeyError, TypeError) as problem:
        raise BackupDamaged(f"{CONTENTS} cannot be read.") from problem


async def read_backup(folder: Path) -> Backup:
    """Read a dump and check all of it: checksums, and that the points are as many as were written.

    Raises: BackupDamaged
    """
    manifest = await read_manifest(folder)
    if manifest.engine != "influxdb":
        raise BackupDamaged(f"This is a backup of {manifest.engine}, not of InfluxDB.")
    return await in_own_thread(_check, folder, manifest)


def _check(folder: Path, manifest: Manifest) -> Backup:
    if CONTENTS not in manifest.files:
        raise BackupDamaged(f"The backup lacks its file {CONTENTS}.")
    contents = from_json((folder / CONTENTS).read_bytes())
    wanted = {CONTENTS, *(points_of(folder, number).name for number in range(len(contents.policies)))}
    if wanted != {*manifest.files} or len(contents.counts) != len(contents.policies):
        raise BackupDamaged(f"The backup lacks or has too much: {', '.join(sorted(wanted ^ {*manifest.files}))}.")
    for number in range(len(contents.policies)):
        points_in_file(points_of(folder, number))
    return Backup(folder=folder, manifest=manifest, contents=contents)
