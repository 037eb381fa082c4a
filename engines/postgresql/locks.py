"""Room in the server's table of locks: a restore keeps one lock for everything that it drops and makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.errors import Precondition
from engines.postgresql.contents import COUNTS, Contents

if TYPE_CHECKING:
    from engines.postgresql.driver.restoring import Session
    from engines.postgresql.server import PostgresServer

ROOM = """
SELECT pg_catalog.current_setting('max_locks_per_transaction')::bigint AS per_session,
       pg_catalog.current_setting('max_connections')::bigint
       + pg_catalog.current_setting('max_prepared_transactions')::bigint
       + pg_catalog.current_setting('autovacuum_max_workers')::bigint
       + pg_catalog.current_setting('max_worker_processes')::bigint
       + pg_catalog.current_setting('max_wal_senders')::bigint AS sessions
"""
"""Their product is what the server promises. It has some more, nearly twice as much where it is small."""

RESERVE = """
SELECT pg_catalog.count(pg_catalog.pg_try_advisory_lock_shared(1684174433, number)) AS taken
  FROM pg_catalog.generate_series(1, %(count)s) AS number
"""

GIVE_BACK = "SELECT pg_catalog.pg_advisory_unlock_all()"

MARGIN = 1.15
"""What is locked is this much more than what is counted, at most."""


class NoRoomForLocks(Precondition):
    """The server's table of locks is full."""


async def make_sure(session: Session, contents: Contents) -> None:
    """Try, once what is there was dropped, whether there is room for what comes: not only after hours of loading.

    Raises: NoRoomForLocks
    """
    await session.rows(RESERVE, {"count": contents.relations + contents.large_objects})
    await session.rows(GIVE_BACK)


async def remedy(server: PostgresServer, contents: Contents) -> str:
    """Tell how to make room.

    Raises: EngineUnavailable, DeadlineExceeded
    """
    wanted, per_session, sessions = await _wanted(server, contents)
    setting = max(2 * per_session, int(MARGIN * wanted / sessions) + 1)
    return f"ALTER SYSTEM SET max_locks_per_transaction = {setting}; and restart the server."


async def doubts(server: PostgresServer, contents: Contents) -> list[str]:
    """Tell whether a restore may find no room.

    Raises: EngineUnavailable, DeadlineExceeded
    """
    wanted, per_session, sessions = await _wanted(server, contents)
    if MARGIN * wanted <= per_session * sessions:
        return []
    return [
        f"To restore this, about {wanted} objects are locked at once, and the server promises room for "
        f"{per_session * sessions}. If that is not enough: {await remedy(server, contents)}"
    ]


async def _wanted(server: PostgresServer, contents: Contents) -> tuple[int, int, int]:
    (room,) = await server.read(ROOM)
    (counts,) = await server.read(COUNTS)
    wanted = counts["objects"] + counts["large_objects"] + contents.relations + contents.large_objects
    return wanted, room["per_session"], room["sessions"]
