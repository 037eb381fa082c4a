"""What a kind of operation is: how it runs, and how it is brought to an end after a crash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.databases import Database
from agent.tasks import Task

if TYPE_CHECKING:
    from agent.operations.record import Operation


LOGICAL = "logical_database"
"""Among the params of an operation: which logical database it is about, where that is not the deployment's own."""

PLAN = "plan"
"""Among the params of an operation: how it goes on after a crash. As long as it has one it is ended by nobody else."""


ASKED_UNDER = "asked_under"
"""Among the params of an operation: the mark of the key that it was asked for with."""

CLEAN_UP = "clean_up"
"""The type of the operation that removes what another one left behind."""

ENDED = "dbvalet ended"

ENDED_OR_CUT_OFF = "dbvalet ended or was cut off from its state"
"""Of another one, of which nothing is known but that it is silent."""

STATE_SILENT = "The state did not answer"
"""Of this one itself, which lives: it was refused a heartbeat, or did not hear that something was written down."""


@dataclass(kw_only=True)
class Run:
    """One run of an operation, in this process."""

    operation: Operation
    database: Database
    percent: int
    step: str
    cut: str = ENDED
    """What ended the run before, where this one recovers: the beginning of a sentence."""
    lost: bool = False
    """Another dbvalet may be at work on it by now: what stops because of that leaves things as they are."""
    leaving: bool = False
    """dbvalet ends: what is not undone in time is left to the next one."""

    def progress(self, percent: float, step: str) -> None:
        """Tell how far it is; the state and the clients learn it with the next heartbeat."""
        self.percent, self.step = max(0, min(100, int(percent))), step


class Kind(Protocol):
    """A kind of operation. Both methods give notes for a person; what they raise ends the operation."""

    @property
    def type(self) -> str:
        """How the API calls it."""
        ...

    @property
    def task(self) -> Task:
        """What a token must be allowed to do to begin or to cancel one."""
        ...

    @property
    def may_leave(self) -> bool:
        """Tell whether it may leave something on the server, to be cleaned up, when it is cut off."""
        ...

    async def run(self, run: Run) -> list[str]:
        """Do it. A cancellation stops it and leaves things as they were; see `Run.lost`."""
        ...

    async def recover(self, run: Run) -> list[str]:
        """Bring to an end what a dbvalet that is gone has begun: complete it, or undo it and raise `Interrupted`."""
        ...
