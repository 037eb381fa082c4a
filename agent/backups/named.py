"""How the backup is named that was made before something was destroyed: in the answer, or in the text of a refusal."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError
from engines.errors import EngineError

if TYPE_CHECKING:
    from agent.backups.record import Backup

Named = dict[str, Any]
"""JSON: `id`, `name` and `logical_database` of a backup."""


def named(backup: Backup) -> Named:
    """Give what an answer says of a backup."""
    return {field: getattr(backup, field) for field in ("id", "name", "logical_database")}


def fields_of(saved: Sequence[Named]) -> dict[str, Any]:
    """Give the fields of an answer: the last backup, and those that earlier tries of the same request made."""
    if not saved:
        return {}
    *earlier, last = saved
    return {"backup": last, **({"earlier_backups": earlier} if earlier else {})}


def told_of(saved: Sequence[Named]) -> str:
    """Give the sentence that names them, after a space; nothing where there are none."""
    if not saved:
        return ""
    names = ", ".join(f"{each['name']} ({each['id']})" for each in saved)
    return f" Backed up before: {names}."


@contextmanager
def naming(saved: Sequence[Named]) -> Generator[None]:
    """Name them in whatever is refused inside: something may have been destroyed all the same."""
    try:
        yield
    except (AgentError, EngineError) as refused:
        refused.message += told_of(saved)
        raise
