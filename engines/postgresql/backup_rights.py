"""What the account may not do that a dump or a restore needs, each with its remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engines.postgresql.archive import EVENT_TRIGGER, EXTENSION, Entry
from engines.postgresql.contents import OBJECTS, ROLES, Contents
from engines.postgresql.quoting import quote_identifier

if TYPE_CHECKING:
    from engines.postgresql.server import PostgresServer

UNREADABLE = """
SELECT pg_catalog.format('%I.%I', schema.nspname, class.relname) AS name,
       pg_catalog.quote_ident(schema.nspname) AS schema,
       class.relkind = 'S' AS is_sequence,
       pg_catalog.row_security_active(class.oid) AS by_policy
  FROM pg_catalog.pg_class AS class
  JOIN pg_catalog.pg_namespace AS schema ON schema.oid = class.relnamespace
 WHERE class.relkind IN ('r', 'p', 'S')
   AND schema.nspname !~ '^pg_' AND schema.nspname <> 'information_schema'
   AND (NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS member
                     WHERE member.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND member.objid = class.oid
                       AND member.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                       AND member.deptype = 'e')
        OR EXISTS (SELECT FROM pg_catalog.pg_extension AS extension WHERE class.oid = ANY (extension.extconfig)))
   AND (NOT pg_catalog.has_schema_privilege(schema.oid, 'USAGE')
        OR NOT CASE class.relkind WHEN 'S' THEN pg_catalog.has_sequence_privilege(class.oid, 'SELECT')
                                  ELSE pg_catalog.has_table_privilege(class.oid, 'SELECT') END
        OR pg_catalog.row_security_active(class.oid))
 ORDER BY 1
"""
"""Tables and sequences whose rows are dumped: of extensions only those that keep settings of the user's."""

UNREADABLE_LARGE_OBJECTS = """
SELECT large.oid, role.rolname AS owner
  FROM pg_catalog.pg_largeobject_metadata AS large
  JOIN pg_catalog.pg_roles AS role ON role.oid = large.lomowner
 WHERE NOT pg_catalog.current_setting('lo_compat_privileges')::boolean
   AND NOT pg_catalog.pg_has_role(large.lomowner, 'USAGE')
   AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(large.lomacl) AS granted
                    WHERE granted.privilege_type = 'SELECT'
                      AND CASE granted.grantee WHEN 0 THEN true
                                               ELSE pg_catalog.pg_has_role(granted.grantee, 'USAGE') END)
 ORDER BY large.oid
"""
"""pg_read_all_data does not reach large objects."""

UNREADABLE_MAPPINGS = """
SELECT pg_catalog.format('%s on %I', pg_catalog.quote_ident(mapping.usename), mapping.srvname) AS name
  FROM pg_catalog.pg_user_mappings AS mapping
  JOIN pg_catalog.pg_foreign_server AS server ON server.oid = mapping.srvid
 WHERE NOT (mapping.umuser <> 0 AND mapping.usename = CURRENT_USER
            AND (pg_catalog.pg_has_role(server.srvowner, 'USAGE')
                 OR pg_catalog.has_server_privilege(server.oid, 'USAGE')))
   AND NOT (mapping.umuser = 0 AND pg_catalog.pg_has_role(server.srvowner, 'USAGE'))
 ORDER BY 1
"""
"""Of these PostgreSQL shows no options to who is no superuser, and pg_dump would write them without."""

ACCOUNT = """
SELECT rolname AS name,
       rolsuper AS superuser,
       pg_catalog.quote_ident(pg_catalog.current_database()) AS database,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS may_create,
       pg_catalog.current_setting('server_version_num')::int / 10000 AS major
  FROM pg_catalog.pg_roles
 WHERE rolname = CURRENT_USER
"""

BECOMES = """
SELECT wanted.name,
       role.oid IS NOT NULL AS exists,
       COALESCE(role.rolsuper, false) AS superuser,
       COALESCE(self.rolsuper
                OR (pg_catalog.pg_has_role(role.oid, 'USAGE')
                    AND pg_catalog.pg_has_role(role.oid,
                            CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000
                                 THEN 'SET' ELSE 'MEMBER' END)), false) AS ours
  FROM pg_catalog.unnest(%(names)s::text[]) AS wanted (name)
  JOIN pg_catalog.pg_roles AS self ON self.rolname = CURRENT_USER
  LEFT JOIN pg_catalog.pg_roles AS role ON role.rolname = wanted.name
 ORDER BY wanted.name
"""
"""To give something to a role the account must be able to become it; since 16 that is apart from using its rights."""

AVAILABLE = """
SELECT name, pg_catalog.bool_or(NOT superuser OR trusted) AS trusted
  FROM (SELECT version.name, version.superuser,
               COALESCE((pg_catalog.to_jsonb(version) ->> 'trusted')::boolean, false) AS trusted
          FROM pg_catalog.pg_available_extension_versions AS version) AS versions
 GROUP BY name
"""
"""Trusted extensions are there since 13, and with them the column."""

FOR_SUPERUSERS = {
    EVENT_TRIGGER: "event triggers",
    2328: "foreign-data wrappers",
    2601: "access methods",
    2616: "operator classes",
    2753: "operator families",
    3601: "text search parsers",
    3764: "text search templates",
}
"""What only a superuser can create, by the catalogue."""

FEW = 5


async def missing_to_dump(server: PostgresServer) -> list[str]:
    """Tell what the account may not read, with the remedy.

    Raises: EngineUnavailable, DeadlineExceeded
    """
    (account,) = await server.read(ACCOUNT)
    if account["superuser"]:
        return []
    grantee = quote_identifier(account["name"])
    reasons: list[str] = []
    unreadable = await server.read(UNREADABLE)
    if without := [row for row in unreadable if not row["by_policy"]]:
        remedy = f"GRANT pg_read_all_data TO {grantee};" if account["major"] >= 14 else _grant_select(without, grantee)
        reasons.append(f"Missing: SELECT on {some([row['name'] for row in without])}. Remedy: {remedy}")
    if hidden := [row["name"] for row in unreadable if row["by_policy"]]:
        reasons.append(
            f"Missing: BYPASSRLS, to see all rows of {some(hidden)}. Remedy: ALTER ROLE {grantee} BYPASSRLS;"
        )
    if large := await server.read(UNREADABLE_LARGE_OBJECTS):
        grants = [f"GRANT {quote_identifier(owner)} TO {grantee};" for owner in sorted({row["owner"] for row in large})]
        reasons.append(f"Missing: SELECT on {len(large)} large objects. Remedy: {' '.join(grants)}")
    if mappings := await server.read(UNREADABLE_MAPPINGS):
        reasons.append(
            f"Missing: the options of the user mappings of {some([row['name'] for row in mappings])}, which only a "
            f"superuser may read. Remedy: DROP USER MAPPING …, or ALTER ROLE {grantee} SUPERUSER;"
        )
    return reasons


async def missing_to_replace(server: PostgresServer) -> list[str]:
    """Tell what of the database as it is now the account could not drop and make again, with the remedy.

    Raises: EngineUnavailable, DeadlineExceeded
    """
    (account,) = await server.read(ACCOUNT)
    if account["superuser"]:
        return []
    grantee = quote_identifier(account["name"])
    objects = [row for row in await server.read(OBJECTS) if not row["ours"]]
    reasons = [_of_superusers(grantee, [row["name"] for row in objects if row["of_a_superuser"]])]
    owners = {row["owner"] for row in objects if not row["of_a_superuser"]}
    owners |= {row["name"] for row in await server.read(ROLES) if row["owns"]}
    reasons += await _missing_roles(server, grantee, sorted(owners))
    if not account["may_create"]:
        reasons.append(
            f"Missing: CREATE on the database. Remedy: GRANT CREATE ON DATABASE {account['database']} TO {grantee};"
        )
    return [reason for reason in reasons if reason]


async def missing_to_make(server: PostgresServer, contents: Contents, entries: Sequence[Entry]) -> list[str]:
    """Tell what of a dump the account could not make, with the remedy.

    Raises: EngineUnavailable, DeadlineExceeded
    """
    (account,) = await server.read(ACCOUNT)
    if account["superuser"]:
        return []
    grantee = quote_identifier(account["name"])
    kinds = sorted({FOR_SUPERUSERS[entry.catalog] for entry in entries if entry.catalog in FOR_SUPERUSERS})
    reasons = [_of_superusers(grantee, kinds)]
    reasons += await _missing_roles(server, grantee, contents.owners)
    trusted = {row["name"] for row in await server.read(AVAILABLE) if row["trusted"]}
    for entry in entries:
        if entry.catalog == EXTENSION and (name := entry.name) not in trusted:
            schema = quote_identifier(contents.extensions[name][1]) if name in contents.extensions else "public"
            reasons.append(
                f"Missing: the extension {name}. Remedy: as a superuser, in the database {account['database']}: "
                f"CREATE EXTENSION {quote_identifier(name)} SCHEMA {schema};"
            )
    return [reason for reason in reasons if reason]


async def unknown_roles(server: PostgresServer, contents: Contents) -> list[str]:
    """List the roles that a dump names and the server does not have.

    Raises: EngineUnavailable, DeadlineExceeded
    """
    return [row["name"] for row in await server.read(BECOMES, {"names": contents.roles}) if not row["exists"]]


async def unavailable_extensions(server: PostgresServer, entries: Sequence[Entry]) -> list[str]:
    """List the extensions that a dump creates and whose files the server does not have.

    Raises: EngineUnavailable, DeadlineExceeded
    """
    available = {row["name"] for row in await server.read(AVAILABLE)}
    wanted = [entry.name for entry in entries if entry.catalog == EXTENSION]
    return [name for name in wanted if name not in available]


async def _missing_roles(server: PostgresServer, grantee: str, names: Sequence[str]) -> list[str]:
    rows: list[dict[str, Any]] = await server.read(BECOMES, {"names": list(names)})
    reasons = [
        _of_superusers(grantee, [f"what {row['name']} owns"])
        if row["superuser"]
        else f"Missing: the role {row['name']}, to make what it owns. "
        f"Remedy: GRANT {quote_identifier(row['name'])} TO {grantee};"
        for row in rows
        if row["exists"] and not row["ours"]
    ]
    return [reason for reason in reasons if reason]


def _of_superusers(grantee: str, things: Sequence[str]) -> str:
    if not things:
        return ""
    return (
        f"Only a superuser can make {some(things)}. "
        f"Remedy: give it to another role or drop it, or ALTER ROLE {grantee} SUPERUSER;"
    )


def _grant_select(rows: Sequence[dict[str, Any]], grantee: str) -> str:
    """Write what pg_read_all_data is since 14; tables that are made later need it again."""
    schemas = sorted({row["schema"] for row in rows})
    return " ".join(
        f"GRANT USAGE ON SCHEMA {schema} TO {grantee}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {grantee}; "
        f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {grantee};"
        for schema in schemas
    )


def some(names: Sequence[str]) -> str:
    """Name a few, and count the others."""
    shown = ", ".join(" ".join(name.split()) for name in names[:FEW])
    return f"{shown} and {len(names) - FEW} more" if len(names) > FEW else shown
