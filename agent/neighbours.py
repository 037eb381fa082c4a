"""Declared databases that share a server: each is told which logical databases of it are the own ones of others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from engines.neighbours import SharedServer

if TYPE_CHECKING:
    from agent.databases import Database


def introduce(databases: Sequence[Database]) -> None:
    """Tell the servers of each other; who shares one with whom is found out whenever somebody asks."""
    for each in databases:
        if isinstance(each.server, SharedServer):
            each.server.others = partial(_own_ones, each, databases)


def may_share(one: Database, other: Database) -> bool:
    """Tell whether two databases are on one server, as far as that is not known to be otherwise.

    One server may have several names and ports, so that only what it says of itself tells it from another.
    """
    if one.engine.name != other.engine.name:
        return False
    first, second = _instance(one), _instance(other)
    return _place(one) == _place(other) or first is None or second is None or first == second


def _place(database: Database) -> tuple[str, int]:
    address = database.server.address
    return address.host.lower(), address.port


def _instance(database: Database) -> str | None:
    return database.description.instance if database.up and database.description is not None else None


def _own_ones(database: Database, databases: Sequence[Database]) -> set[str]:
    return {each.server.address.database for each in databases if each is not database and may_share(database, each)}
