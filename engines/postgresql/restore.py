"""Restore a dump in one transaction: what is there goes, the dump comes, and until the end others see the old data."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from engines import deadline
from engines.backup import Progress
from engines.errors import (
    BackupFailed,
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    Precondition,
)
from engines.postgresql import clearing, locks
from engines.postgresql.archive import Script, sql_of
from engines.postgresql.blockers import watching
from engines.postgresql.locks import NoRoomForLocks
from engines.postgresql.plan import Backup, Plan, Stage, make_plan
from engines.postgresql.programs import parse_version
from engines.postgresql.session import DUMPING, RESTORING

if TYPE_CHECKING:
    from engines.postgresql.driver.restoring import Session
    from engines.postgresql.server import PostgresServer

T = TypeVar("T")

LOCK_SECONDS = 30.0
"""How long a restore waits for those who use the tables."""

COMES_BACK_SECONDS = 30.0
"""How long to wait for a server that went away in the middle of the commit."""

END_SECONDS = 5.0
"""How long sessions may take to end that were told to."""

MAY_FAIL = re.compile(rb"CREATE (UNIQUE )?INDEX |COMMENT ON INDEX |ALTER INDEX |REFRESH MATERIALIZED VIEW ")
"""What is made of rows that are back: better without it than not at all."""

ROWS_OF = re.compile(rb"COPY .* FROM stdin;", re.DOTALL)

AS_GRANTOR = re.compile(rb"\A(RE)?SET SESSION AUTHORIZATION ?")
"""Around a right that somebody else than the owner granted. SET ROLE does the same, and takes no superuser."""

WITHIN = (b"BEGIN;", b"COMMIT;")
"""What pg_restore writes around large objects; here there is one transaction."""

END_SESSIONS = """
SELECT pid, pg_catalog.pg_terminate_backend(pid) AS told
  FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database()
   AND usename = SESSION_USER
   AND application_name = ANY (%(names)s::text[])
   AND pid = COALESCE(%(pid)s::int, pid)
"""

FLUSH = """
SELECT pg_catalog.set_config('synchronous_commit', 'on', true),
       pg_catalog.pg_logical_emit_message(true, 'dbvalet', 'restored')
"""
"""Brings the log to disk (a commit that logged nothing would not), so that after a crash no other transaction gets the
number of the one that restores."""

OUTCOME = """
SELECT CASE WHEN %(number)s >= pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) THEN 'aborted'
            ELSE pg_catalog.txid_status(%(number)s) END AS outcome
"""
"""After a crash a number may be one of the future again: then nothing of that transaction was on disk."""

SEARCH_PATH = "SELECT reset_val AS value FROM pg_catalog.pg_settings WHERE name = 'search_path'"


class NotResolved(BackupFailed):
    """A statement names what is not there, or not of the kind that it must be."""


async def restore(server: PostgresServer, backup: Backup, progress: Progress) -> list[str]:
    """Replace what the database holds by a dump, and give notes for a person.

    Whoever uses the tables waits until it is done. Cancelled after the commit was sent, it is brought to its end.

    Raises: BackupFailed, Conflict, EngineUnavailable, Precondition, PrivilegeMissing
    """
    from engines.postgresql.driver.restoring import restoring

    plan = await make_plan(server, backup)
    pid: int | None = None
    try:
        async with restoring(server.address) as session:
            pid = session.pid
            number = await session.begin()
            progress(2, "waiting for those who use the tables")
            await _lock(server, session)
            replaced = await _replace(session, backup, plan, progress)
            await _check_is_one(session, number)
            await server.write(FLUSH)
            progress(98, "committing")
            _, too_late = await _to_the_end(_commit(server, session, number))
    except BaseException as failed:
        # A backend that is making an index does not notice that nobody listens any more. No other is ended: whoever
        # has taken this restore over may be at the next one.
        if pid is not None:
            with suppress(EngineError):
                await end_sessions(server, [RESTORING], pid=pid)
        if isinstance(failed, NoRoomForLocks):
            remedy = await locks.remedy(server, backup.contents)
            raise Precondition(f"{failed.message} Nothing was changed. Remedy: {remedy}") from failed
        if isinstance(failed, ConnectionLost):
            raise EngineUnavailable(f"{failed.message} It was undone: the database holds the old data.") from failed
        raise
    return [
        f"{replaced} objects were replaced by the backup of {backup.manifest.created_at:%Y-%m-%d %H:%M:%S} UTC.",
        *plan.notes,
        "The planner's statistics are gathered again by autovacuum within minutes; ANALYZE does it at once.",
        *(["Cancelled too late: it was committed already."] if too_late else []),
    ]


async def end_sessions(
    server: PostgresServer, names: Sequence[str] = (DUMPING, RESTORING), *, pid: int | None = None
) -> None:
    """End sessions that dumps and restores have left, or one of them; what they did not commit is undone by that.

    Raises: Conflict, when one does not end; EngineUnavailable, DeadlineExceeded
    """
    with deadline.within(END_SECONDS):
        while left := await server.read(END_SESSIONS, {"names": list(names), "pid": pid}):
            if deadline.remaining() < 1:
                pids = ", ".join(str(row["pid"]) for row in left)
                raise Conflict(f"Sessions of an interrupted dump or restore do not end: pid {pids}.")
            await asyncio.sleep(0.05)


async def _lock(server: PostgresServer, session: Session) -> None:
    """Lock every table before anything is changed, so that no later wait and no deadlock costs the work done.

    Raises: Conflict, naming who uses them
    """
    ends_at = time.monotonic() + LOCK_SECONDS
    async with watching(server, RESTORING) as blockers:
        while tables := await session.rows(clearing.TABLES):
            names = ", ".join(f"ONLY {row['name']}" for row in tables)
            await session.run(b"SAVEPOINT unlocked")
            await session.set("statement_timeout", f"{max(round(1000 * (ends_at - time.monotonic())), 1)}ms")
            try:
                await session.say(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
            except (Conflict, NotResolved) as failed:  # also a deadlock, and a table that was dropped just now
                await session.run(b"ROLLBACK TO SAVEPOINT unlocked")
                if time.monotonic() < ends_at - 0.1:
                    continue
                raise Conflict(
                    f"Tables are in use for longer than {LOCK_SECONDS:g} s, by {blockers or 'somebody'}. "
                    "End what holds them (pg-terminate-query) and restore again; nothing was changed."
                ) from failed
            break
    await session.set("statement_timeout", "0")
    await session.set("lock_timeout", f"{LOCK_SECONDS:g}s")


async def _replace(session: Session, backup: Backup, plan: Plan, progress: Progress) -> int:
    """Do everything but commit.

    Raises: BackupFailed, Conflict, ConnectionLost, PrivilegeMissing
    """
    progress(4, "dropping what is there")
    replaced = await clearing.clear(session)
    for statement in plan.before:
        await session.say(statement)
    pg_dump = parse_version(backup.manifest.tool)[0]
    await clearing.make_fresh(session, plan.fresh_schemas, plan.extensions, pg_dump)
    await locks.make_sure(session, backup.contents)
    loader = Loader(session, backup, plan, progress)
    for stage in plan.stages():
        if stage.entries:
            await loader.load(stage)
    loader.check()
    return replaced


class Loader:
    """Runs what pg_restore writes."""

    def __init__(self, session: Session, backup: Backup, plan: Plan, progress: Progress) -> None:
        self._session = session
        self._backup = backup
        self._plan = plan
        self._progress = progress
        self._bytes = 0
        self._tables = 0
        self._entries = 0
        self._words = ""

    async def load(self, stage: Stage) -> None:
        """Run the SQL of a stage, rows included.

        Raises: BackupFailed, Conflict, ConnectionLost, Precondition, PrivilegeMissing
        """
        self._words = stage.words
        self._tell()
        whole = b""
        async with sql_of(self._backup.programs, self._backup.dump, stage.entries) as script:
            await self._session.set("client_encoding", await script.encoding())
            if stage.is_plain:
                await self._by_statement(script)
            else:
                whole = await script.whole()
        if whole:
            await self._session.run(whole)
        self._entries += len(stage.entries)

    async def _by_statement(self, script: Script) -> None:
        await script.skip_settings()
        while (statement := await script.statement()) is not None:
            if ROWS_OF.fullmatch(statement):
                await self._session.copy(statement, self._counted(script.rows()))
                self._tables += 1
            elif MAY_FAIL.match(statement):
                await self._try(statement)
            elif statement not in WITHIN:
                await self._session.run(AS_GRANTOR.sub(rb"\1SET ROLE ", statement))

    def check(self) -> None:
        """Hold what was loaded against the dump.

        Raises: BackupFailed
        """
        expected = sum(entry.text.startswith("TABLE DATA ") and entry.is_data for entry in self._plan.entries)
        if self._tables != expected:
            raise BackupFailed(f"Rows of {self._tables} tables were loaded, not of {expected}: nothing was changed.")

    async def _counted(self, rows: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for block in rows:
            self._bytes += len(block)
            size = megabytes(self._backup.contents.bytes)
            self._words = f"{megabytes(self._bytes)} of rows loaded; the database took {size}"
            self._tell()
            yield block

    async def _try(self, statement: bytes) -> None:
        """Run a statement; when a function in it finds nothing without a search_path, with the usual one.

        Up to 16 functions in an index are called with the caller's, and one that needs it could not be restored.
        """
        await self._session.run(b"SAVEPOINT untried")
        try:
            await self._session.run(statement)
        except NotResolved:
            await self._session.run(b"ROLLBACK TO SAVEPOINT untried")
            (usual,) = await self._session.rows(SEARCH_PATH)
            await self._session.set("search_path", usual["value"])
            try:
                await self._session.run(statement)
            except NotResolved as failed:
                await self._session.run(b"ROLLBACK TO SAVEPOINT untried")
                words = " ".join(statement.decode(errors="replace").split())
                self._plan.notes.append(f"LEFT OUT, because it failed: {words} – {failed.message}")
            await self._session.set("search_path", "")
        await self._session.run(b"RELEASE SAVEPOINT untried")

    def _tell(self) -> None:
        share = min(1.0, self._bytes / max(1, self._backup.contents.bytes))
        done = self._entries / max(1, len(self._plan.entries))
        self._progress(6 + 60 * share + 30 * done, self._words)


async def _check_is_one(session: Session, number: int) -> None:
    """Raises: BackupFailed, when something in the dump ended the transaction."""
    if await session.transaction() != number:
        raise BackupFailed("The restore did not stay within one transaction: look at the data.")


async def _commit(server: PostgresServer, session: Session, number: int) -> None:
    """Commit; when the answer is lost, find out whether it was done.

    Raises: ConnectionLost, when it was not or cannot be known
    """
    try:
        await session.run(b"COMMIT")
    except ConnectionLost as lost:
        outcome = await _outcome(server, number)
        if outcome == "aborted":
            raise
        if outcome != "committed":
            raise BackupFailed(f"{lost.message} Whether it was committed is not known: look at the data.") from lost


async def _outcome(server: PostgresServer, number: int) -> str | None:
    """Find out what became of a transaction, from a server that may have to come back for that; None is not known."""
    ends_at = time.monotonic() + COMES_BACK_SECONDS
    while time.monotonic() < ends_at:
        with suppress(EngineUnavailable, DeadlineExceeded):
            (row,) = await server.read(OUTCOME, {"number": number})
            if row["outcome"] != "in progress":
                return row["outcome"]
        await asyncio.sleep(0.2)
    return None


async def _to_the_end(work: Coroutine[Any, Any, T]) -> tuple[T, bool]:
    """Wait for work that must not be stopped half-way; tell whether somebody wanted to."""
    task, wanted = asyncio.create_task(work), False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            wanted = True
            if current := asyncio.current_task():
                current.uncancel()
    return task.result(), wanted


def megabytes(size: int) -> str:
    """Write a number of bytes for a person."""
    return f"{size / 1_000_000:.1f} MB" if size < 10_000_000 else f"{size / 1_000_000:.0f} MB"
