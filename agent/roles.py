"""Which effects a role may have on a database."""

from __future__ import annotations

from enum import StrEnum

from engines.action import Effect


class Role(StrEnum):
    """Who holds a token: each role may do what the one before it may."""

    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"


_NEEDED = {Effect.READ: Role.READER, Effect.WRITE: Role.OPERATOR, Effect.DESTRUCTIVE: Role.ADMIN}
_ORDER = list(Role)


def needed_for(effect: Effect) -> Role:
    """Give the lowest role that may have this effect."""
    return _NEEDED[effect]


def allows(role: Role, effect: Effect) -> bool:
    """Tell whether a role may have this effect."""
    return _ORDER.index(role) >= _ORDER.index(_NEEDED[effect])
