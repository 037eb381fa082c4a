"""Global variables that MySQL 8 and later keeps over a restart: it writes them down, and reads them at its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.mysql.causes import FileFailed, NotPersisted

if TYPE_CHECKING:
    from engines.mysql.driver import Session

LOADS = "SELECT @@GLOBAL.persisted_globals_load"
"""Whether the server reads at its start what it has kept."""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A global variable, by the statements about it."""

    words: str
    """What a person calls it, with its article."""
    get: str
    set: str
    persist: str


def set_for_good(session: Session, variable: Variable, value: object) -> None:
    """Set a variable and let the server keep it, or leave both as they were.

    Raises: NotPersisted, and as `Session.execute`
    """
    [(before,)] = session.execute(variable.get)
    try:
        session.execute(variable.persist, value)
    except FileFailed as failed:
        # MySQL has set it all the same, until it is restarted (seen on 9.7).
        session.execute(variable.set, before)
        raise NotPersisted(f"{failed.message} {variable.words} is as it was.") from failed
