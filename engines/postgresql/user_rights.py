"""What an account needs to manage users: what the optional part of the grants script gives it."""

from __future__ import annotations

from engines.health import Lack
from engines.postgresql.quoting import quote_identifier
from engines.postgresql.server import PostgresServer

SINCE = 140000
"""pg_read_all_data reads what is made later too."""

VERSION = "SELECT pg_catalog.current_setting('server_version_num')::int AS number"

# Before PostgreSQL 16 who has CREATEROLE may grant every role that is no superuser's.
RIGHTS = """
SELECT role.rolsuper OR role.rolcreaterole AS creates,
       pg_catalog.current_setting('server_version_num')::int < 160000
       OR pg_catalog.pg_has_role(role.oid, 'pg_read_all_data', 'MEMBER WITH ADMIN OPTION') AS gives_reading,
       pg_catalog.current_setting('server_version_num')::int < 160000
       OR pg_catalog.pg_has_role(role.oid, 'pg_write_all_data', 'MEMBER WITH ADMIN OPTION') AS gives_writing,
       pg_catalog.has_database_privilege(role.oid, pg_catalog.current_database(), 'CONNECT WITH GRANT OPTION')
       AND pg_catalog.has_database_privilege(role.oid, pg_catalog.current_database(), 'CREATE WITH GRANT OPTION')
       AND pg_catalog.has_database_privilege(role.oid, pg_catalog.current_database(), 'TEMPORARY WITH GRANT OPTION')
       AS gives_database,
       NOT EXISTS (SELECT FROM pg_catalog.pg_proc AS made
                    WHERE made.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
                      AND made.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea')
                      AND NOT pg_catalog.has_function_privilege(role.oid, made.oid, 'EXECUTE WITH GRANT OPTION'))
       AS gives_large_objects,
       NOT EXISTS (SELECT FROM pg_catalog.pg_namespace AS schema
                    WHERE schema.nspname = 'public'
                      AND NOT (pg_catalog.has_schema_privilege(role.oid, schema.oid, 'USAGE WITH GRANT OPTION')
                               AND pg_catalog.has_schema_privilege(role.oid, schema.oid, 'CREATE WITH GRANT OPTION')))
       AS gives_public
  FROM pg_catalog.pg_roles AS role
 WHERE role.rolname = CURRENT_USER
"""

NAMES = {
    "creates": "CREATEROLE",
    "gives_reading": "pg_read_all_data WITH ADMIN OPTION",
    "gives_writing": "pg_write_all_data WITH ADMIN OPTION",
    "gives_database": "CONNECT, CREATE, TEMPORARY ON DATABASE WITH GRANT OPTION",
    "gives_large_objects": "EXECUTE ON lo_creat, lo_create, lo_from_bytea WITH GRANT OPTION",
    "gives_public": "USAGE, CREATE ON SCHEMA public WITH GRANT OPTION",
}


def remedy(server: PostgresServer) -> str:
    """Say what lets an account manage users."""
    account = quote_identifier(server.address.user or "valet")
    return (
        "As a superuser, run the script that `dbvalet grants postgresql` prints, with dbvalet.users at yes "
        f"(ALTER ROLE {account} CREATEROLE; GRANT pg_read_all_data, pg_write_all_data TO {account} "
        "WITH ADMIN OPTION; …)."
    )


async def lacking(server: PostgresServer) -> list[Lack]:
    """Look what an account lacks.

    Raises: EngineUnavailable, DeadlineExceeded
    """
    (version,) = await server.read(VERSION)
    if version["number"] < SINCE:
        return [Lack(name="PostgreSQL 14", remedy="Users are created on PostgreSQL 14 and later: upgrade it.")]
    (held,) = await server.read(RIGHTS)
    return [Lack(name=name, remedy=remedy(server)) for right, name in NAMES.items() if not held[right]]
