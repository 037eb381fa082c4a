"""pgBackRest: what its repository holds, backups, restores. Source: pgbackrest.org/command.html; run with 2.45."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from engines.errors import BackupDamaged, BackupFailed, Conflict, RecoveryFailed, RecoveryRefused
from engines.postgresql.recovery.alone import Alone
from engines.postgresql.recovery.choose import SECOND, Fork, read_lsn, write_lsn
from engines.postgresql.recovery.programs import Said, Way, ask, run
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

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

UNREADABLE = 99
"""`status.code` of a stanza whose files cannot be read; others than 0 are told by the backups there are."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The log of one cluster in one repository."""

    id: str
    """Its folder: `15-1`."""
    options: tuple[str, ...]
    """By which its repository is chosen, where there are several."""


@dataclass(frozen=True, kw_only=True)
class Stanza:
    """What the repositories hold of one cluster.

    After a `stanza-upgrade` they hold backups and timelines of an earlier one too, with the same numbers.
    """

    is_of_another: bool
    """Whether they know clusters, and this is none of them."""
    sets: list[BackupSet]
    archives: list[Archive]


class PgBackRest:
    """The repository of one stanza."""

    def __init__(self, settings: RecoverySettings) -> None:
        self._stanza = settings.stanza
        self._program = [*settings.program, *([f"--config={settings.config}"] if settings.config else [])]
        self._argv = [*self._program, f"--stanza={settings.stanza}"]
        self._alone = Alone(self._program, settings.stanza)

    async def version(self) -> str | None:
        """Ask the program for its version; None when it cannot be run."""
        try:
            said = await ask([*self._program, "version"])
        except OSError:
            return None
        return said.out.strip() if said.code == 0 else None

    async def look(self, system: str | None) -> Stanza:
        """Tell what is kept of a cluster; None: of the one that the stanza is for now.

        Raises: BackupFailed, BackupDamaged
        """
        said = await self._run("--output=json", "info", way=ask)
        try:
            return read_info(said.out, system)
        except (ValueError, KeyError, TypeError, IndexError) as problem:
            raise BackupDamaged(f"What pgBackRest says of its repository cannot be read: {said.words}") from problem

    async def forks(self, system: str, timeline: int) -> dict[int, Fork]:
        """Read the history of a cluster's timeline from the archive: where it and its ancestors began.

        Raises: BackupFailed, BackupDamaged
        """
        if timeline == 1:
            return {}
        history = await self._history(system, timeline)
        if history is None:
            raise BackupDamaged(f"The history of timeline {timeline} is not in the archive.")
        return read_history(timeline, history)

    async def forks_of_ancestors(self, system: str, timeline: int) -> dict[int, Fork]:
        """Read the same; nothing when it has expired, as no backup leads there any more and none is chosen.

        Raises: BackupFailed, BackupDamaged
        """
        history = await self._history(system, timeline)
        return {} if history is None else read_history(timeline, history)

    async def _history(self, system: str, timeline: int) -> str | None:
        for archive in (await self.look(system)).archives:
            place = f"archive/{self._stanza}/{archive.id}/{timeline:08X}.history"
            found = await self._said(*archive.options, "repo-get", place, way=ask)
            if found.code == 0:
                return found.out
        return None

    async def holds(self, system: str | None, segment: str) -> bool:
        """Tell whether the archive of a cluster has a whole segment of the log.

        Raises: BackupFailed, BackupDamaged
        """
        for archive in (await self.look(system)).archives:
            # Its name goes on with a checksum; that of a part of a segment with `.partial`.
            place = f"archive/{self._stanza}/{archive.id}/{segment[:16]}"
            found = await self._said(*archive.options, "repo-ls", place, way=ask)
            if any(line.strip().startswith(f"{segment}-") for line in found.out.splitlines()):
                return True
        return False

    async def back_up(self, kind: str) -> None:
        """Make a backup of the whole server.

        Raises: BackupFailed, Conflict
        """
        await self._run(f"--type={kind}", "backup")

    async def missing(self) -> str | None:
        """Tell what is in the way of a restore; None: nothing."""
        try:
            return await self._alone.missing()
        except OSError as problem:
            return f"{self._argv[0]} cannot be run: {problem.strerror}."

    async def make_sure_that_none_is_restoring(self) -> None:
        """End a restore that nobody waits for; where no program can be run, there is none.

        Raises: RecoveryFailed, when it does not end
        """
        with suppress(OSError):
            await self._alone.make_sure()

    async def restore(self, target: Target | Undo) -> None:
        """Bring the files back, in place; the server must be stopped. An earlier restore that still runs is ended.

        Raises: RecoveryRefused, when nothing was changed; RecoveryFailed
        """
        chosen = ["--delta", f"--set={target.label}", f"--target-timeline={target.timeline}"]
        if isinstance(target, Target):
            instant = target.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
            chosen += ["--type=time", f"--target={instant}", "--target-action=promote"]
        else:
            chosen.append("--type=default")
        try:
            said = await self._alone.restore([*chosen, "restore"])
        except OSError as problem:
            raise BackupFailed(f"{self._argv[0]} cannot be run: {problem.strerror}.") from problem
        if said.code in UNTOUCHED and not _is_of_a_worker(said):
            raise RecoveryRefused(_told("restore", said))
        if said.code != 0:
            raise RecoveryFailed(_told("restore", said))

    async def _run(self, *arguments: str, way: Way = run) -> Said:
        said = await self._said(*arguments, way=way)
        if said.code == LOCKED:
            raise Conflict(_told(arguments[-1], said))
        if said.code != 0:
            raise BackupFailed(_told(arguments[-1], said))
        return said

    async def _said(self, *arguments: str, way: Way = run) -> Said:
        try:
            return await way([*self._argv, *arguments])
        except OSError as problem:
            raise BackupFailed(f"{self._argv[0]} cannot be run: {problem.strerror}.") from problem


def _is_of_a_worker(said: Said) -> bool:
    return OF_A_WORKER in said.err or OF_A_WORKER in said.out


def _told(command: str, said: Said) -> str:
    meaning = f" ({MEANINGS[said.code]})" if said.code in MEANINGS and not _is_of_a_worker(said) else ""
    return f"pgbackrest {command} ended with {said.code}{meaning}: {said.words}"


def read_info(text: str, system: str | None = None) -> Stanza:
    """Read what `info --output=json` says of one stanza and a cluster; None: of the newest that it knows.

    Raises: ValueError, KeyError, TypeError, IndexError
    """
    stanzas: list[dict[str, Any]] = orjson.loads(text)
    if not stanzas or stanzas[0]["status"]["code"] == STANZA_MISSING:
        return Stanza(is_of_another=False, sets=[], archives=[])
    if stanzas[0]["status"]["code"] == UNREADABLE:
        raise ValueError(stanzas[0]["status"]["message"])
    known: list[dict[str, Any]] = stanzas[0]["db"]
    if system is None and known:
        system = str(max(known, key=lambda each: each["id"])["system-id"])
    own = [each for each in known if str(each["system-id"]) == system]
    keys = {_key(each) for each in own}
    several = len({each.get("repo-key") for each in known}) > 1
    return Stanza(
        is_of_another=bool(known) and not own,
        sets=[_set(each) for each in stanzas[0]["backup"] if _key(each["database"]) in keys],
        archives=[
            Archive(id=f"{each['version']}-{each['id']}", options=(f"--repo={each['repo-key']}",) if several else ())
            for each in own
        ],
    )


def _key(database: dict[str, Any]) -> tuple[Any, Any]:
    return database.get("repo-key"), database["id"]


def _set(backup: dict[str, Any]) -> BackupSet:
    """Read a backup. One that was made offline has no place in the log: it is not used, and the others are."""
    found = BackupSet(
        label=backup["label"],
        kind=backup["type"],
        stopped_at=EPOCH,
        timeline=0,
        stop_lsn="0/0",
        size=backup["info"]["repository"]["delta"],
        usable=False,
    )
    try:
        stop_lsn = write_lsn(read_lsn(backup["lsn"]["stop"]))
        timeline = int(backup["archive"]["stop"][:8], 16)
        stopped_at = datetime.fromtimestamp(backup["timestamp"]["stop"], UTC)
        _ = stopped_at + SECOND
    except (ValueError, KeyError, TypeError, OverflowError, OSError):  # OSError: of a time that C cannot tell
        return found
    return replace(found, stopped_at=stopped_at, timeline=timeline, stop_lsn=stop_lsn, usable=not backup["error"])


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
