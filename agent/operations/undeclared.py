"""Open operations of databases that this dbvalet does not declare: left to one that does, ended if none ever comes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from agent.log import Log
from agent.operations.keeper import Keeper
from agent.operations.kind import PLAN, Kind

if TYPE_CHECKING:
    from agent.operations.record import Operation

UNDECLARED_SECONDS = 6 * 3600.0
"""How long a heartbeat may stand still before the operation of a database that is not declared here is ended, however
it was left: a dbvalet that declares it may be started again, or its configuration put right, and brings it to a proper
end."""

TOLD_SECONDS = 30.0
"""How long one that waits for its database stands still before the log has it."""


class Heartbeats:
    """Of operations that nobody works on here: a heartbeat, and when it was first seen, by this machine's clock."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, float]] = {}

    def follow(self, those: list[Operation]) -> None:
        """Forget all others."""
        self._last = {each.id: self._last.get(each.id, (-1, 0.0)) for each in those}

    def stand_still(self, each: Operation, seconds: float) -> bool:
        """Tell whether nothing was heard of an operation for so long."""
        beat, seen_at = self._last[each.id]
        if beat != each.heartbeat:
            self._last[each.id] = beat, seen_at = each.heartbeat, time.monotonic()
        return time.monotonic() - seen_at >= seconds


class Undeclared:
    """What is done about them."""

    def __init__(self, keeper: Keeper, kinds: Mapping[str, Kind], beats: Heartbeats, log: Log) -> None:
        self._keeper = keeper
        self._kinds = kinds
        self._beats = beats
        self._log = log
        self._told: set[str] = set()
        self.remove_files: Callable[[str], Awaitable[None]] | None = None
        """Removes what an operation that was cut off has left in this dbvalet's folders."""

    async def look(self, each: Operation) -> None:
        """End an operation that nobody can bring to an end: its database was not in the configuration for long.

        What has a plan waits for a dbvalet that can go on with it: a server may be down until then.

        Raises: Precondition, when the state cannot be used
        """
        if PLAN not in each.params:
            if self._beats.stand_still(each, UNDECLARED_SECONDS):
                await self._end(each)
        elif self._beats.stand_still(each, TOLD_SECONDS) and each.id not in self._told:
            self._told.add(each.id)
            self._log.error(
                "operation_waits_for_its_database", operation=each.id, type=each.type, database=each.database_id
            )

    async def _end(self, each: Operation) -> None:
        from agent.operations import record

        kind = self._kinds.get(each.type)
        may_leave = kind is None or kind.may_leave
        then = "what it may have left there is removed once it is declared again" if may_leave else "nothing was undone"
        outcome = record.Outcome(
            status=record.Status.ERROR,
            error=f"dbvalet ended in the middle of it, and this database is not declared any more: {then}.",
            clean_up_due=may_leave,
        )

        if not await self._keeper.end_of_nobody(each, outcome):
            return
        if self.remove_files is not None:
            await self.remove_files(each.id)
        self._log.warning("operation_of_nobody_ended", operation=each.id, type=each.type, database=each.database_id)
