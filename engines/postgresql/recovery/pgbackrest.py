"""pgBackRest: what its repository holds, backups, restores. Source: pgbackrest.org/command.html; run with 2.45."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from engines.errors import BackupDamaged, BackupFailed, Conflict, RecoveryFailed, RecoveryRefused
from engines.postgresql.recovery.choose import Fork, read_lsn
from engines.postgresql.recovery.programs import Said, run
from engines.recovery import BackupSet, RecoverySettings, Target, Undo

MEANINGS = {
    29: "pgBackRest cannot use this instant",
    38: "PostgreSQL is running, or its postmaster.pid is left",
    50: "another pgBackRest holds the lock of this stanza",
    55: "the stanza has not been created (pgbackrest stanza-create)",
    75: "there is no backup that ends before this instant",
}

LOCKED = 50

UNTOUCHED = frozenset({29, 38, 50, 55, 75})
"""Exit codes of a restore that ended before it changed a file, unless one of its workers has given it."""

OF_A_WORKER = "raised from local-"
"""So begins what went wrong while files were brought back: one that is missing in the set is 55, a rotten one 29."""

STANZA_MISSING = 1
"""`status.code` of a stanza that does not exist in the repository."""

UNREADABLE = 99
"""`status.code` of a stanza whose files cannot be read; others than 0 are told by the backups there are."""


class PgBackRest:
    """The repository of one stanza."""

    def __init__(self, settings: RecoverySettings) -> None:
        self._stanza = settings.stanza
        self._program = [*settings.program, *([f"--config={settings.config}"] if settings.config else [])]
        self._argv = [*self._program, f"--stanza={settings.stanza}"]

    async def version(self) -> str | None:
        """Ask the program for its version; None when it cannot be run."""
        try:
            said = await run([*self._program, "version"])
        except OSError:
            return None
        return said.out.strip() if said.code == 0 else None

    async def sets(self) -> list[BackupSet]:
        """List the backups; empty for a stanza that is not there yet.

        Raises: BackupFailed, BackupDamaged
        """
        said = await self._run("--output=json", "info")
        try:
            return read_info(said.out)
        except (ValueError, KeyError, TypeError, IndexError) as problem:
            raise BackupDamaged(f"What pgBackRest says of its repository cannot be read: {said.words}") from problem

    async def forks(self, timeline: int) -> dict[int, Fork]:
        """Read the history of a timeline from the archive: where it and its ancestors began.

        Raises: BackupFailed, BackupDamaged
        """
        if timeline == 1:
            return {}
        history = await self._history(timeline)
        if history is None:
            raise BackupDamaged(f"The history of timeline {timeline} is not in the archive.")
        return read_history(timeline, history)

    async def forks_of_ancestors(self, timeline: int) -> dict[int, Fork]:
        """Read the same; nothing when it has expired, as no backup leads there any more and none is chosen.

        Raises: BackupFailed, BackupDamaged
        """
        history = await self._history(timeline)
        return {} if history is None else read_history(timeline, history)

    async def _history(self, timeline: int) -> str | None:
        place = f"archive/{self._stanza}"
        said = await self._run("repo-ls", place)
        archives = [line.strip() for line in said.out.splitlines() if "-" in line]
        for archive in archives:
            found = await run([*self._argv, "repo-get", f"{place}/{archive}/{timeline:08X}.history"])
            if found.code == 0:
                return found.out
        return None

    async def holds(self, segment: str) -> bool:
        """Tell whether the archive has a whole segment of the log.

        Raises: BackupFailed
        """
        place = f"archive/{self._stanza}"
        said = await self._run("repo-ls", place)
        for archive in (line.strip() for line in said.out.splitlines() if "-" in line):
            # Its name goes on with a checksum; that of a part of a segment with `.partial`.
            found = await self._said("repo-ls", f"{place}/{archive}/{segment[:16]}")
            if any(line.strip().startswith(f"{segment}-") for line in found.out.splitlines()):
                return True
        return False

    async def back_up(self, kind: str) -> None:
        """Make a backup of the whole server.

        Raises: BackupFailed, Conflict
        """
        await self._run(f"--type={kind}", "backup")

    async def restore(self, target: Target | Undo) -> None:
        """Bring the files back, in place; the server must be stopped.

        Raises: RecoveryRefused, when nothing was changed; RecoveryFailed
        """
        chosen = ["--delta", f"--set={target.label}", f"--target-timeline={target.timeline}"]
        if isinstance(target, Target):
            instant = target.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
            chosen += ["--type=time", f"--target={instant}", "--target-action=promote"]
        else:
            chosen.append("--type=default")
        said = await self._said(*chosen, "restore")
        if said.code in UNTOUCHED and not _is_of_a_worker(said):
            raise RecoveryRefused(_told("restore", said))
        if said.code != 0:
            raise RecoveryFailed(_told("restore", said))

    async def _run(self, *arguments: str) -> Said:
        said = await self._said(*arguments)
        if said.code == LOCKED:
            raise Conflict(_told(arguments[-1], said))
        if said.code != 0:
            raise BackupFailed(_told(arguments[-1], said))
        return said

    async def _said(self, *arguments: str) -> Said:
        try:
            return await run([*self._argv, *arguments])
        except OSError as problem:
            raise BackupFailed(f"{self._argv[0]} cannot be run: {problem.strerror}.") from problem


def _is_of_a_worker(said: Said) -> bool:
    return OF_A_WORKER in said.err or OF_A_WORKER in said.out


def _told(command: str, said: Said) -> str:
    meaning = f" ({MEANINGS[said.code]})" if said.code in MEANINGS and not _is_of_a_worker(said) else ""
    return f"pgbackrest {command} ended with {said.code}{meaning}: {said.words}"


def read_info(text: str) -> list[BackupSet]:
    """Read what `info --output=json` says of one stanza.

    Raises: ValueError, KeyError, TypeError, IndexError
    """
    stanzas: list[dict[str, Any]] = orjson.loads(text)
    if not stanzas or stanzas[0]["status"]["code"] == STANZA_MISSING:
        return []
    if stanzas[0]["status"]["code"] == UNREADABLE:
        raise ValueError(stanzas[0]["status"]["message"])
    return [_set(each) for each in stanzas[0]["backup"]]


def _set(backup: dict[str, Any]) -> BackupSet:
    return BackupSet(
        label=backup["label"],
        kind=backup["type"],
        stopped_at=datetime.fromtimestamp(backup["timestamp"]["stop"], UTC),
        timeline=int(backup["archive"]["stop"][:8], 16),
        stop_lsn=backup["lsn"]["stop"],
        size=backup["info"]["repository"]["delta"],
        usable=not backup["error"],
    )


def read_history(timeline: int, text: str) -> dict[int, Fork]:
    """Read a `.history` file: a line for each ancestor, with where it was left.

    Raises: BackupDamaged
    """
    lines: Sequence[list[str]] = [line.split("\t") for line in text.splitlines() if line.strip() and line[0] != "#"]
    try:
        left = [(int(each[0]), read_lsn(each[1])) for each in lines]
    except (ValueError, IndexError) as problem:
        raise BackupDamaged(f"The history of timeline {timeline} cannot be read.") from problem
    if not left:
        raise BackupDamaged(f"The history of timeline {timeline} is empty.")
    children = [number for number, _ in left[1:]] + [timeline]
    return {child: Fork(parent=parent, lsn=lsn) for child, (parent, lsn) in zip(children, left, strict=True)}
