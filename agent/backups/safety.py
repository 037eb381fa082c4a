"""Backup before destroy: what an action is about to destroy is backed up first, where that is wished."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.backups.storage import STORAGE
from agent.databases import Database
from agent.errors import BackupFirst, BackupFirstFailed, BackupNotFound, StateFailed, StateUnavailable
from agent.operations.runner import Operations
from agent.tokens import Principal
from engines import deadline
from engines.action import Action, Effect
from engines.engine import preview
from engines.errors import EngineUnavailable, Precondition

if TYPE_CHECKING:
    from agent.backups.backups import DatabaseBackups
    from agent.backups.record import Backup

BEGIN_SECONDS, WAIT_SECONDS = 5.0, 8.0
"""How long it may take to find out whether a backup can be made, and how long a request then waits for it: no answer
may hold longer than 25 s, and the action comes after."""

FRESH_SECONDS = 600.0
"""How long ago it may have been begun by an earlier request of the same kind: another one is made after that."""


CANNOT = "Nothing was destroyed: a backup comes first here (`backup_before_destroy`), and it cannot be made."


class _Wanted(NamedTuple):
    who: str
    database_id: str
    action: str
    params: str


@dataclass(frozen=True)
class _Begun:
    backup_id: str
    at: float


def is_wished(principal: Principal, database: Database) -> bool:
    """Tell whether what this token destroys on a database is backed up first."""
    return principal.backup_before_destroy or database.settings.backup_before_destroy


class SafetyNet:
    """Makes the backup that comes before an action which destroys something."""

    def __init__(self, backups: DatabaseBackups, operations: Operations) -> None:
        self._backups = backups
        self._operations = operations
        self._begun: dict[_Wanted, _Begun] = {}
        """Of requests that did not wait until theirs was done. A dbvalet that is started anew makes another one."""

    async def spread(self, principal: Principal, database: Database, action: Action, params: Any) -> Backup | None:
        """Give the backup of what is going to be destroyed, done; None where none is wished.

        What would be refused is refused before a backup is made.

        Raises: BackupFirst, when it takes longer than a request can wait: the next one like it finds it done;
        BackupFirstFailed, OperationOpen, Precondition, EngineUnavailable, StateUnavailable, and whatever the action
        would raise
        """
        if action.effect is not Effect.DESTRUCTIVE or not is_wished(principal, database):
            return None
        began = time.monotonic()
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                if action.preview is not None:
                    await preview(database.server, action, params)
                wanted = _wanted(principal, database, action, params)
                with _said_why():
                    backup = await self._begun_before(wanted) or await self._backups.begin(
                        database, principal.name, _other(database, action, params), method="safety"
                    )
        except TimeoutError as late:
            awaited = deadline.awaited(late)
            cause = EngineUnavailable if awaited == deadline.ENGINE else StateUnavailable
            raise cause(f"Nothing was destroyed: {awaited} does not answer in time.") from None
        await self._operations.wait(backup.operation_id, WAIT_SECONDS)
        backup = await self._backups.find(backup.id)
        if backup.is_done:
            return backup
        if backup.finished_at is not None:
            raise BackupFirstFailed(f"Nothing was destroyed: the backup before it failed. {backup.error or ''}".strip())
        self._begun[wanted] = _Begun(backup.id, began)
        raise BackupFirst(f"Nothing was destroyed yet: the backup before it, {backup.id}, is being made. Ask again.")

    async def require_ready(self, principal: Principal, database: Database, action: Action, params: Any) -> None:
        """Refuse, for a dry run, what would be refused because no backup of it can be made.

        Raises: OperationOpen, Precondition, EngineUnavailable, StateUnavailable
        """
        if not is_wished(principal, database):
            return
        if self._is_begun(_wanted(principal, database, action, params)):
            return
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                with _said_why():
                    await self._backups.require_possible(database, _other(database, action, params))
        except TimeoutError as late:
            awaited = deadline.awaited(late)
            causes = {deadline.ENGINE: EngineUnavailable, STORAGE: Precondition}
            raise causes.get(awaited, StateUnavailable)(
                f"{CANNOT} {awaited.capitalize()} does not answer in time."
            ) from None

    def _is_begun(self, wanted: _Wanted) -> bool:
        """Tell whether an earlier request has begun a backup that the next one like it takes."""
        begun = self._begun.get(wanted)
        return begun is not None and time.monotonic() - begun.at < FRESH_SECONDS

    async def _begun_before(self, wanted: _Wanted) -> Backup | None:
        """Give the backup that an earlier request like this one has begun, and let no later one have it."""
        now = time.monotonic()
        self._begun = {each: begun for each, begun in self._begun.items() if now - begun.at < FRESH_SECONDS}
        begun = self._begun.pop(wanted, None)
        if begun is None:
            return None
        try:
            return await self._backups.find(begun.backup_id)
        except BackupNotFound:
            return None  # it is no longer kept: another one is made


def _wanted(principal: Principal, database: Database, action: Action, params: Any) -> _Wanted:
    return _Wanted(principal.name, database.id, action.name, repr(params))


@contextmanager
def _said_why() -> Generator[None]:
    """Say of what is missing for a backup why one is needed at all."""
    try:
        yield
    except StateFailed:
        raise
    except Precondition as missing:
        raise Precondition(f"{CANNOT} {missing.message}") from missing


def _other(database: Database, action: Action, params: Any) -> str | None:
    """Tell which other logical database than the deployment's own it is about."""
    named = None if action.logical_database is None else action.logical_database(params)
    return None if named == database.server.address.database else named
