"""Deployments that share a server: what is done for one never reaches the logical database of another."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol, runtime_checkable

from engines.errors import Protected


@runtime_checkable
class SharedServer(Protocol):
    """A Server on which actions reach other logical databases than the deployment's own."""

    others: Callable[[], Collection[str]]
    """The own logical databases of other deployments that may be on this server; whoever declares several sets it."""

    def of_others(self, names: Collection[str]) -> set[str]:
        """Tell which of these logical databases are own ones of other deployments, by the server's rule for names."""
        ...


def nobody() -> Collection[str]:
    """Give the logical databases of others where there are no others."""
    return ()


def refuse_others(server: object, name: str) -> None:
    """Raises: Protected, when a logical database is the own one of another deployment."""
    if isinstance(server, SharedServer) and server.of_others([name]):
        raise Protected(
            "This logical database is the own one of another deployment that is declared here: ask for it there. "
            "(While one of the two cannot be reached, they count as on one server.)"
        )
