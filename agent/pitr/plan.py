"""The plan of a restore to an instant: all that is needed to go on with it, or back, after a crash."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from engines.recovery import Target, Undo


class Step(StrEnum):
    """What was about to be done when it was written down."""

    STOP = "stop"
    RESTORE = "restore"
    START = "start"
    BACKUP = "backup"
    """The server is back, and nothing is undone any more."""

    START_AS_IT_WAS = "start_as_it_was"
    """Of the server nothing was changed."""
    TRY_AS_IT_WAS = "try_as_it_was"
    """Perhaps nothing was: a server that is half restored does not start, and is undone."""
    AS_IT_WAS = "as_it_was"
    """That is done: applications write again, and it is left alone."""

    UNDO = "undo"
    START_UNDONE = "start_undone"
    """The files of the last state are there."""
    UNDONE = "undone"
    """That is done: applications write again, and it is left alone."""


class Plan(BaseModel):
    """All that is needed to go on, or back: kept in the operation's params."""

    model_config = ConfigDict(frozen=True)

    step: Step
    system_identifier: str
    at: datetime
    label: str
    timeline: int
    undo_label: str
    undo_older: tuple[str, ...] = ()
    """Taken one after another when that one cannot be restored."""
    undo_timeline: int
    """The one that was live before."""
    marked_at: datetime
    """The last commit that was made on that one by dbvalet, just before the stop, which archives it."""

    last_segment: str | None = None
    """The part of the log that holds it: the archive must have that before the files of the server are replaced."""

    def next(self, step: Step) -> Plan:
        """Give it with another step."""
        return self.model_copy(update={"step": step})

    @property
    def target(self) -> Target:
        """Where it goes."""
        return Target(at=self.at, label=self.label, timeline=self.timeline)

    @property
    def undo(self) -> Undo:
        """The way back."""
        return Undo(label=self.undo_label, timeline=self.undo_timeline)
