"""What an action would do, told without doing it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

MOST_OBJECTS = 100
"""How many objects a preview names; `total` counts them all."""


class Change(StrEnum):
    """What would become of an object."""

    CREATE = "create"
    REMOVE = "remove"
    CHANGE = "change"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class Affected:
    """An object that an action would change."""

    change: Change
    """What would become of it."""
    kind: str
    """In the engine's own words: `table`, `collection`, `retention policy`."""
    name: str
    """As the engine has it; of a backend, its process id."""
    rows: int | None = None
    """How many rows or documents it holds; a rough figure where the engine keeps no other, null where it tells none."""
    bytes: int | None = None
    """What it takes on the server, roughly; null where the engine does not tell it cheaply."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What an action would do if it were carried out now."""

    would: str
    """One sentence for people."""
    objects: Sequence[Affected]
    """What would be changed, at most 100; nothing else is."""
    total: int
    """How many objects would be changed, those that are not named included."""
    truncated: bool
    """Whether there are more than are named."""
    sessions: int
    """How many sessions of others would be cut."""
    keeps: Sequence[str]
    """What stays, though one might think that it goes too."""
    warnings: Sequence[str]
    """What cannot be told without doing it."""
    before: str | None = None
    """The value of the setting that would be changed; null where it is none."""
    after: str | None = None
    """The value that it would have."""


def preview_of(
    would: str,
    objects: Iterable[Affected] = (),
    *,
    sessions: int = 0,
    keeps: Iterable[str] = (),
    warnings: Iterable[str] = (),
    before: str | None = None,
    after: str | None = None,
) -> Preview:
    """Make a preview of all objects, of which it names as many as it may."""
    every = list(objects)
    return Preview(
        would=would,
        objects=every[:MOST_OBJECTS],
        total=len(every),
        truncated=len(every) > MOST_OBJECTS,
        sessions=sessions,
        keeps=list(keeps),
        warnings=list(warnings),
        before=before,
        after=after,
    )
