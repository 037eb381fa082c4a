"""Who holds the tables of a logical database."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from engines.errors import EngineError
from engines.mysql.connection import SESSIONS

if TYPE_CHECKING:
    from engines.mysql.driver import Rows, Session

HOLDERS = """
    SELECT DISTINCT t.PROCESSLIST_ID, t.PROCESSLIST_USER, t.PROCESSLIST_HOST, t.PROCESSLIST_TIME
      FROM performance_schema.metadata_locks l JOIN performance_schema.threads t ON t.THREAD_ID = l.OWNER_THREAD_ID
     WHERE l.OBJECT_TYPE = 'TABLE' AND l.OBJECT_SCHEMA = %s AND l.LOCK_STATUS = 'GRANTED'
       AND t.PROCESSLIST_ID <> CONNECTION_ID() ORDER BY t.PROCESSLIST_TIME DESC"""

# MariaDB shows metadata locks only with a plugin, and performance_schema is off there by default.
TRANSACTIONS = """
    SELECT p.ID, p.USER, p.HOST, p.TIME
      FROM information_schema.INNODB_TRX t JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id
     WHERE p.ID <> CONNECTION_ID() ORDER BY t.trx_started"""


def holders(session: Session, database: str) -> str:
    """Tell which sessions hold the tables of a logical database, as far as the account may see it."""
    rows: Rows = ()
    with suppress(EngineError):  # without SELECT on performance_schema, or without PROCESS
        rows = session.execute(HOLDERS, database) if session.facts.flavour == "mysql" else session.execute(TRANSACTIONS)
    with suppress(EngineError):  # cut meanwhile
        # Without PROCESS an account sees its own sessions alone.
        rows = rows or tuple(
            (row[0], row[1], row[2], row[5]) for row in session.execute(SESSIONS) if row[3] == database
        )
    if not rows:
        return "The engine account may not see by whom: GRANT PROCESS ON *.* lets it."
    told = (f"connection {number} of {user}@{host} (for {seconds} s)" for number, user, host, seconds in rows[:5])
    return f"By {', '.join(told)}."
