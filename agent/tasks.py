"""What the routes beside the actions let a token do. Like actions, they can be allowed or denied to a token by name."""

from __future__ import annotations

from dataclasses import dataclass

from engines.action import Effect


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something that a route does to a database."""

    name: str
    effect: Effect


UPDATE_DATABASE = Task(name="update-database", effect=Effect.WRITE)
CANCEL_OPERATION = Task(name="cancel-operation", effect=Effect.WRITE)

TASKS = {each.name: each for each in (UPDATE_DATABASE, CANCEL_OPERATION)}
