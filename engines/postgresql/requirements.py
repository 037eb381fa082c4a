"""What the actions need of the account and of the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from engines.engine import Requirement
from engines.postgresql.quoting import quote_identifier

if TYPE_CHECKING:
    from engines.postgresql.server import PostgresServer

MAY_SIGNAL = "SELECT pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') AS met"
MAY_READ_STATS = "SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS met"


async def _may_signal(server: PostgresServer) -> bool:
    return (await server.read(MAY_SIGNAL))[0]["met"]


async def _may_read_stats(server: PostgresServer) -> bool:
    return (await server.read(MAY_READ_STATS))[0]["met"]


def _account(server: PostgresServer) -> str:
    return quote_identifier(server.address.user or "valet")


REQUIREMENTS: Mapping[str, Requirement] = {
    requirement.name: requirement
    for requirement in (
        Requirement(
            name="pg_signal_backend",
            met=_may_signal,
            remedy=lambda server: f"GRANT pg_signal_backend TO {_account(server)};",
        ),
        Requirement(
            name="pg_read_all_stats",
            met=_may_read_stats,
            remedy=lambda server: f"GRANT pg_read_all_stats TO {_account(server)};",
        ),
    )
}
