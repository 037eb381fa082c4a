"""What the actions need of the account and of the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from engines.engine import Requirement
from engines.postgresql.quoting import quote_identifier

if TYPE_CHECKING:
    from engines.postgresql.server import PostgresServer

MAY_SIGNAL = """
SELECT pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') AS met
"""

MAY_READ_STATS = """
SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS met
"""

PRELOADED = """
SELECT pg_catalog.current_setting('pg_stat_statements.max', true) IS NOT NULL AS met
"""

CREATED = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_stat_statements') AS met
"""

CREATED_OR_MAY_CREATE = """
SELECT rolsuper OR EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_stat_statements') AS met
  FROM pg_catalog.pg_roles
 WHERE rolname = CURRENT_USER
"""

MAY_RESET = """
SELECT pg_catalog.has_schema_privilege(function.pronamespace, 'USAGE')
       AND pg_catalog.has_function_privilege(function.oid, 'EXECUTE') AS met,
       pg_catalog.quote_ident(schema.nspname) AS schema
  FROM pg_catalog.pg_extension AS extension
  JOIN pg_catalog.pg_namespace AS schema ON schema.oid = extension.extnamespace
  JOIN pg_catalog.pg_proc AS function
    ON function.pronamespace = schema.oid AND function.proname = 'pg_stat_statements_reset'
 WHERE extension.extname = 'pg_stat_statements'
"""

MAY_READ_STATEMENTS = """
SELECT pg_catalog.has_schema_privilege(schema.oid, 'USAGE')
       AND pg_catalog.has_function_privilege(function.oid, 'EXECUTE') AS met,
       pg_catalog.quote_ident(schema.nspname) AS schema
  FROM pg_catalog.pg_extension AS extension
  JOIN pg_catalog.pg_namespace AS schema ON schema.oid = extension.extnamespace
  JOIN pg_catalog.pg_proc AS function
    ON function.pronamespace = schema.oid AND function.proname = 'pg_stat_statements'
 WHERE extension.extname = 'pg_stat_statements'
"""


def _asks(statement: str) -> Callable[[PostgresServer], Awaitable[bool]]:
    async def met(server: PostgresServer) -> bool:
        return (await server.read(statement))[0]["met"]

    return met


def _asks_of_extension(statement: str) -> Callable[[PostgresServer], Awaitable[bool]]:
    """Ask about an object of the extension; without the extension it is that which is missing, and nothing else."""

    async def met(server: PostgresServer) -> bool:
        for row in await server.read(statement):
            server.statistics_schema = row["schema"]
            return row["met"]
        return True

    return met


def _account(server: PostgresServer) -> str:
    return quote_identifier(server.address.user or "valet")


def _create(server: PostgresServer) -> str:
    database = quote_identifier(server.address.database)
    return f"as a superuser, in the database {database}: CREATE EXTENSION pg_stat_statements SCHEMA public;"


def _grant_read(server: PostgresServer) -> str:
    return (
        f"as a superuser, in the database {quote_identifier(server.address.database)}: "
        f"GRANT USAGE ON SCHEMA {server.statistics_schema} TO {_account(server)}; "
        f"GRANT EXECUTE ON FUNCTION {server.statistics_schema}.pg_stat_statements TO {_account(server)};"
    )


def _grant_reset(server: PostgresServer) -> str:
    return (
        f"as a superuser, in the database {quote_identifier(server.address.database)}: "
        f"GRANT USAGE ON SCHEMA {server.statistics_schema} TO {_account(server)}; "
        f"GRANT EXECUTE ON FUNCTION {server.statistics_schema}.pg_stat_statements_reset TO {_account(server)};"
    )


REQUIREMENTS: Mapping[str, Requirement] = {
    requirement.name: requirement
    for requirement in (
        Requirement(
            name="pg_signal_backend",
            met=_asks(MAY_SIGNAL),
            remedy=lambda server: f"GRANT pg_signal_backend TO {_account(server)};",
        ),
        Requirement(
            name="pg_read_all_stats",
            met=_asks(MAY_READ_STATS),
            remedy=lambda server: f"GRANT pg_read_all_stats TO {_account(server)};",
        ),
        Requirement(
            name="pg_stat_statements preloaded",
            met=_asks(PRELOADED),
            remedy=lambda _: (
                "add pg_stat_statements to shared_preload_libraries in postgresql.conf and restart the server."
            ),
        ),
        Requirement(name="pg_stat_statements created", met=_asks(CREATED), remedy=_create),
        Requirement(name="create pg_stat_statements", met=_asks(CREATED_OR_MAY_CREATE), remedy=_create),
        Requirement(name="read pg_stat_statements", met=_asks_of_extension(MAY_READ_STATEMENTS), remedy=_grant_read),
        Requirement(name="execute pg_stat_statements_reset", met=_asks_of_extension(MAY_RESET), remedy=_grant_reset),
    )
}
