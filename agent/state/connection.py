"""A connection to a state that is a PostgreSQL: neither the server nor who shares it keeps it waiting for long."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg.abc import PQGen

_LIMITS = "SET lock_timeout = '4s'; SET statement_timeout = '8s'; SET idle_in_transaction_session_timeout = '10s'"
"""The last is for the others: a dbvalet that is stopped in the middle of a transaction loses it, and its locks."""

_DURABLE = """
SELECT pg_catalog.set_config('synchronous_commit', 'on', false)
    WHERE pg_catalog.current_setting('synchronous_commit') = 'off'
"""
"""Server, role or database may have it off: what was acknowledged would be lost with the server. What is asked of its
standbys stays as it is."""

SILENT_SECONDS = 9.0
"""How long a server may say nothing: one that is frozen ends no statement by itself, and its host answers for it."""


class LimitedConnection(psycopg.Connection[Any]):
    """A connection that ends, with OperationalError, when its server says nothing for too long."""

    def wait(self, gen: PQGen[Any], *arguments: Any, **more: Any) -> Any:
        """Wait for what the server says to a statement."""
        try:
            return super().wait(_within(SILENT_SECONDS, gen), *arguments, **more)
        except _SilentServer:
            # What it says later would be taken for the answer to something else.
            self.close()
            raise


class _SilentServer(psycopg.OperationalError):
    pass


def connect(*arguments: Any, **more: Any) -> LimitedConnection:
    """Connect, with the limits of a request."""
    connection = LimitedConnection.connect(*arguments, **more)
    # Not in the startup packet: poolers refuse what they do not know there.
    connection.execute(_LIMITS)
    connection.execute(_DURABLE)
    connection.commit()
    return connection


def _within(seconds: float, waiting: PQGen[Any]) -> PQGen[Any]:
    ends_at = time.monotonic() + seconds
    try:
        wanted = next(waiting)
        while True:
            # psycopg gives 0 when nothing has come for a tenth of a second.
            ready = yield wanted
            if not ready and time.monotonic() > ends_at:
                raise _SilentServer(f"the server has said nothing for {seconds:g} s")
            wanted = waiting.send(ready)
    except StopIteration as ended:
        return ended.value
