"""Take away what a database holds, inside of the transaction of a restore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engines.errors import BackupFailed
from engines.postgresql.backup_rights import some
from engines.postgresql.contents import OBJECTS

if TYPE_CHECKING:
    from engines.postgresql.driver.restoring import Session

TABLES = """
SELECT pg_catalog.format('%I.%I', schema.nspname, class.relname) AS name
  FROM pg_catalog.pg_class AS class
  JOIN pg_catalog.pg_namespace AS schema ON schema.oid = class.relnamespace
 WHERE class.relkind IN ('r', 'p') AND class.oid >= 16384
   AND schema.nspname !~ '^pg_' AND schema.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS member
                    WHERE member.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND member.objid = class.oid
                      AND member.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                      AND member.deptype = 'e')
 ORDER BY class.oid
"""

LARGE_OBJECTS = """
SELECT pg_catalog.count(pg_catalog.lo_unlink(oid)) AS removed FROM pg_catalog.pg_largeobject_metadata
"""

DEFAULT_RIGHTS = """
WITH entries AS (
    SELECT entry.oid,
           pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %I', role.rolname)
           || COALESCE(' IN SCHEMA ' || pg_catalog.quote_ident(schema.nspname), '') AS of_whom,
           CASE entry.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
                                    WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' WHEN 'L' THEN 'LARGE OBJECTS'
           END AS kind,
           role.rolname AS owner,
           entry.defaclnamespace = 0 AS is_global,
           entry.defaclacl
      FROM pg_catalog.pg_default_acl AS entry
      JOIN pg_catalog.pg_roles AS role ON role.oid = entry.defaclrole
      LEFT JOIN pg_catalog.pg_namespace AS schema ON schema.oid = entry.defaclnamespace
)
SELECT statement
  FROM (SELECT 1 AS turn, entries.oid,
               pg_catalog.format('%s REVOKE ALL ON %s FROM %s', of_whom, kind,
                                 COALESCE(pg_catalog.quote_ident(grantee.rolname), 'PUBLIC')) AS statement
          FROM entries
         CROSS JOIN LATERAL pg_catalog.aclexplode(defaclacl) AS granted
          LEFT JOIN pg_catalog.pg_roles AS grantee ON grantee.oid = granted.grantee
        UNION SELECT 2, oid, pg_catalog.format('%s GRANT ALL ON %s TO %I', of_whom, kind, owner)
          FROM entries WHERE is_global
        UNION SELECT 3, oid, pg_catalog.format('%s GRANT ALL ON %s TO PUBLIC', of_whom, kind)
          FROM entries WHERE is_global AND kind IN ('FUNCTIONS', 'TYPES')) AS statements
 ORDER BY turn, oid
"""
"""An entry goes away when it grants what would be granted without it."""

SCHEMA_RIGHTS = """
SELECT statement
  FROM (SELECT 1 AS turn,
               pg_catalog.format('REVOKE ALL ON SCHEMA %%I FROM %%s CASCADE', schema.nspname,
                                 COALESCE(pg_catalog.quote_ident(grantee.rolname), 'PUBLIC')) AS statement
          FROM pg_catalog.pg_namespace AS schema
         CROSS JOIN LATERAL pg_catalog.aclexplode(schema.nspacl) AS granted
          LEFT JOIN pg_catalog.pg_roles AS grantee ON grantee.oid = granted.grantee
         WHERE schema.nspname = %(name)s
        UNION SELECT 2, pg_catalog.format('GRANT ALL ON SCHEMA %%I TO %%I', nspname,
                                          pg_catalog.pg_get_userbyid(nspowner))
          FROM pg_catalog.pg_namespace WHERE nspname = %(name)s
        UNION SELECT 3, CASE WHEN %(pg_dump)s >= 15
                             THEN 'GRANT USAGE ON SCHEMA public TO PUBLIC'
                             ELSE 'GRANT ALL ON SCHEMA public TO PUBLIC' END
         WHERE %(name)s = 'public'
        UNION SELECT 4, pg_catalog.format('COMMENT ON SCHEMA %%I IS NULL', nspname)
          FROM pg_catalog.pg_namespace WHERE nspname = %(name)s AND nspname <> 'public'
        UNION SELECT 4, 'COMMENT ON SCHEMA public IS ''standard public schema'''
         WHERE %(name)s = 'public') AS statements
 ORDER BY turn
"""
"""What a schema has that is new, and `public` in a new database: a dump says what differs from it. For `public` that
depends on the version of pg_dump, whatever the server's."""

SETTINGS_OF_EXTENSIONS = """
SELECT pg_catalog.format('DELETE FROM %%s %%s', config.oid::pg_catalog.regclass, config.condition) AS statement
  FROM pg_catalog.pg_extension AS extension
 CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(extension.extconfig), pg_catalog.unnest(extension.extcondition))
       AS config (oid, condition)
  JOIN pg_catalog.pg_class AS class ON class.oid = config.oid
 WHERE class.relkind = 'r' AND extension.extname = ANY (%(names)s::text[])
"""
"""Rows that a user added to tables of an extension: a dump holds those, and not the extension's own."""

ROUNDS = 3
"""How often to look again: somebody may be making objects at the same time."""


async def clear(session: Session) -> int:
    """Drop everything that a dump brings back whole, and count it.

    Raises: BackupFailed, PrivilegeMissing, Conflict, EngineUnavailable
    """
    count = 0
    for _ in range(ROUNDS):
        objects = await session.rows(OBJECTS)
        if not objects:
            break
        count = count or len(objects)
        for each in objects:
            await session.say(each["statement"])
    else:
        if objects := await session.rows(OBJECTS):
            names = some([each["name"] for each in objects])
            raise BackupFailed(f"These are still there after they were dropped: {names}. Nothing was changed.")
    for each in await session.rows(DEFAULT_RIGHTS):
        await session.say(each["statement"])
    await session.rows(LARGE_OBJECTS)
    return count


async def make_fresh(session: Session, schemas: Sequence[str], extensions: Sequence[str], pg_dump: int) -> None:
    """Give what stays the look that a dump of this major version of pg_dump takes for granted.

    Raises: BackupFailed, PrivilegeMissing, Conflict, EngineUnavailable
    """
    for name in schemas:
        for each in await session.rows(SCHEMA_RIGHTS, {"name": name, "pg_dump": pg_dump}):
            await session.say(each["statement"])
    for each in await session.rows(SETTINGS_OF_EXTENSIONS, {"names": list(extensions)}):
        await session.say(each["statement"])
