"""What MySQL and MariaDB tell of how they do."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from engines.errors import EngineError, Precondition, PrivilegeMissing
from engines.health import LOG_FILE, Lack, LogLine, Measures, Role, Route, Switched
from engines.mysql.facts import has_dynamic_privileges
from engines.mysql.persisted import LOADS, Variable, set_for_good
from engines.mysql.requirements import let_set_variables, sets_variables
from engines.mysql.server import MySQLServer

if TYPE_CHECKING:
    from engines.mysql.driver import Session

STATUS = """
SHOW GLOBAL STATUS WHERE Variable_name IN (
    'Questions', 'Threads_connected', 'Threads_running', 'Connections', 'Bytes_received', 'Bytes_sent',
    'Slow_queries', 'Com_select', 'Com_insert', 'Com_update', 'Com_delete', 'Com_commit', 'Com_rollback',
    'Innodb_rows_read', 'Innodb_rows_inserted', 'Innodb_rows_updated', 'Innodb_rows_deleted',
    'Innodb_data_read', 'Innodb_data_written', 'Memory_used')
"""
"""Memory_used is MariaDB's. https://dev.mysql.com/doc/refman/9.7/en/server-status-variables.html"""

DATA_SIZE = """
SELECT CAST(COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) AS SIGNED)
  FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s
"""

SECONDS_BEHIND = 32
"""The column of SHOW REPLICA STATUS that is called Seconds_Behind_Source, or Seconds_Behind_Master."""

READ_ONLY = "SELECT @@GLOBAL.read_only"

LOG = """
SELECT CAST(UNIX_TIMESTAMP(LOGGED) * 1000000 AS SIGNED), THREAD_ID, PRIO, ERROR_CODE, SUBSYSTEM, DATA
  FROM performance_schema.error_log ORDER BY LOGGED DESC LIMIT %s
"""
"""Since 8.0.22; the newest ones that fit into 5 MB."""

NO_FORCE_SSL = "MariaDB before 10.5.2 has no require_secure_transport."

SETS_VARIABLES = "SYSTEM_VARIABLES_ADMIN or SUPER"

MAY_READ_LOG = "SELECT 1 FROM performance_schema.error_log LIMIT 1"

TLS_REQUIRED = "SELECT @@GLOBAL.require_secure_transport"
OWN_CIPHER = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"
REQUIRE = "SET GLOBAL require_secure_transport = %s"
TLS = Variable(
    words="require_secure_transport",
    get=TLS_REQUIRED,
    set=REQUIRE,
    persist="SET PERSIST require_secure_transport = %s",
)


class MySQLHealth:
    """Counters, log and TLS of one MySQL or MariaDB server."""

    def __init__(self, server: MySQLServer) -> None:
        self._server = server

    async def measures(self) -> Measures:
        """Read the server's status and the size of the deployment's database.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        counters = {name: int(value) for name, value in await self._server.fetch(STATUS)}
        [(size,)] = await self._server.fetch(DATA_SIZE, self._server.address.database)
        memory = counters.pop("Memory_used", None)
        role, lag = await self._replication()
        return Measures(
            counters=counters,
            role=role,
            lag_seconds=lag,
            memory=memory,
            data_size=int(size),
            bytes_read=counters.get("Innodb_data_read"),
            bytes_written=counters.get("Innodb_data_written"),
        )

    async def role(self) -> Role | None:
        """Ask whether the server follows another.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        await self._server.log_in()
        role, _ = await self._replication()
        return role

    async def log(self, lines: int) -> list[LogLine]:
        """Read performance_schema.error_log.

        Raises: Precondition, on MariaDB and before MySQL 8.0.22; PrivilegeMissing, EngineUnavailable
        """
        await self._server.log_in()
        facts = self._server.facts
        if facts.flavour == "mariadb" or facts.version < (8, 0, 22):
            raise Precondition(
                f"{facts.readable_version} does not give its log to clients: MySQL does since 8.0.22. Name the file "
                "that its log is kept in with `log_file` at this database in dbvalet's configuration."
            )
        rows = await self._server.fetch(LOG, lines)
        return [
            LogLine(
                at=datetime.fromtimestamp(micros / 1_000_000, UTC),
                text=f"{thread} [{priority}] [{code}] [{subsystem}] {_text(data)}",
            )
            for micros, thread, priority, code, subsystem, data in reversed(rows)
        ]

    async def lacking(self) -> Mapping[Route, list[Lack]]:
        """Look whether the account may see the log and what the server follows, and switch the feature that there is.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        facts = await self._server.log_in()
        lacks: dict[Route, list[Lack]] = {"features": []}
        if facts.flavour == "mariadb" and facts.version < (10, 5, 2):
            lacks["features"] = [Lack(name="MariaDB 10.5.2", remedy=NO_FORCE_SSL)]
        elif not await sets_variables(self._server):
            lacks["features"] = [Lack(name=SETS_VARIABLES, remedy=let_set_variables(self._server))]
        if facts.flavour == "mariadb" or facts.version < (8, 0, 22):
            lacks["logs"] = [LOG_FILE]
        elif not await self._may(MAY_READ_LOG):
            name = "SELECT ON performance_schema.error_log"
            lacks["logs"] = [Lack(name=name, remedy=f"GRANT {name} TO {self._server.account};")]
        if not await self._may(self._replica_status()):
            right = (
                "SLAVE MONITOR" if facts.flavour == "mariadb" and facts.version >= (10, 5, 9) else "REPLICATION CLIENT"
            )
            remedy = f"GRANT {right} ON *.* TO {self._server.account}; (without it role and lag are null)"
            lacks["instances_status"] = lacks["metrics"] = [Lack(name=right, remedy=remedy)]
        return lacks

    async def _may(self, statement: str) -> bool:
        try:
            await self._server.fetch(statement)
        except PrivilegeMissing:
            return False
        return True

    def _replica_status(self) -> str:
        facts = self._server.facts
        new_words = facts.flavour == "mysql" and facts.version >= (8, 0, 22)
        return "SHOW REPLICA STATUS" if new_words else "SHOW SLAVE STATUS"

    async def force_ssl(self, on: bool) -> Switched:
        """Set require_secure_transport, for good where the server keeps it and reads at its start what it has kept.

        Raises: Precondition, PrivilegeMissing, EngineUnavailable
        """
        facts = await self._server.log_in()
        if facts.flavour == "mariadb" and facts.version < (10, 5, 2):
            raise Precondition(NO_FORCE_SSL)
        if on:
            [(_, cipher)] = await self._server.fetch(OWN_CIPHER)
            if not cipher:
                raise Precondition(
                    "dbvalet itself is connected without TLS: the server would lock it out. Set up TLS on the server "
                    "and in the URL (`ssl-mode`) first."
                )

        def job(session: Session) -> bool:
            session.prepare_to_write()
            if not has_dynamic_privileges(session.facts.flavour, session.facts.version):
                session.execute(REQUIRE, on)
                return False
            set_for_good(session, TLS, on)
            [(loads,)] = session.execute(LOADS)
            return bool(loads)

        try:
            lasting = await self._server.write(job)
        except PrivilegeMissing as refused:
            raise PrivilegeMissing(
                f"Missing: {SETS_VARIABLES}. Remedy: {let_set_variables(self._server)}", privilege=SETS_VARIABLES
            ) from refused
        [(required,)] = await self._server.fetch(TLS_REQUIRED)
        if bool(required) is not on:
            raise EngineError("The server took the setting and does not have it.")
        return Switched(
            name="force-ssl",
            status="ACTIVATED" if on else "REMOVED",
            message=f"require_secure_transport is {'ON' if on else 'OFF'}"
            + ("." if lasting else " until the server restarts: put it into its configuration file too."),
        )

    async def _replication(self) -> tuple[Role | None, float | None]:
        """Tell whether the server follows another and how far behind; nothing where the account may not know.

        One that follows none and takes no writes may be a member of a group or a closed leader: it does not say.
        """
        try:
            rows = await self._server.fetch(self._replica_status())
        except PrivilegeMissing:
            return None, None
        if not rows:
            [(read_only,)] = await self._server.fetch(READ_ONLY)
            return None if read_only else "leader", None
        behind = rows[0][SECONDS_BEHIND]
        return "follower", None if behind is None else float(behind)


def _text(data: str | bytes) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else data
