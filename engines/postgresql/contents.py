"""What a database holds, beside its rows: kept with a dump, for what a restore must know before it begins."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from engines.errors import BackupDamaged
from engines.threads import in_own_thread

if TYPE_CHECKING:
    from engines.postgresql.server import PostgresServer

CONTENTS = "contents.json"
"""The file of a dump that says what is in the other."""

OBJECTS = """
WITH members AS (
    SELECT classid, objid
      FROM pg_catalog.pg_depend
     WHERE refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND deptype = 'e'
), schemas AS (
    SELECT oid, nspname, nspowner
      FROM pg_catalog.pg_namespace
     WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
), objects (turn, classid, objid, owner) AS (
    SELECT 1, 'pg_catalog.pg_event_trigger'::pg_catalog.regclass, oid, evtowner FROM pg_catalog.pg_event_trigger
    UNION ALL SELECT 1, 'pg_catalog.pg_publication'::pg_catalog.regclass, oid, pubowner FROM pg_catalog.pg_publication
    UNION ALL SELECT 2, 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, oid, srvowner
      FROM pg_catalog.pg_foreign_server
    UNION ALL SELECT 3, 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, oid, fdwowner
      FROM pg_catalog.pg_foreign_data_wrapper
    UNION ALL SELECT CASE relkind WHEN 'v' THEN 4 WHEN 'm' THEN 4 WHEN 'S' THEN 6 ELSE 5 END,
                     'pg_catalog.pg_class'::pg_catalog.regclass, oid, relowner
      FROM pg_catalog.pg_class
     WHERE relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND relnamespace IN (SELECT oid FROM schemas)
    UNION ALL SELECT 7, 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, proowner
      FROM pg_catalog.pg_proc WHERE pronamespace IN (SELECT oid FROM schemas)
    UNION ALL SELECT 8, 'pg_catalog.pg_type'::pg_catalog.regclass, type.oid, typowner
      FROM pg_catalog.pg_type AS type
      LEFT JOIN pg_catalog.pg_class AS class ON class.oid = type.typrelid
     WHERE typnamespace IN (SELECT oid FROM schemas) AND typtype <> 'm'
       AND (typrelid = 0 OR class.relkind = 'c')
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_type AS element WHERE element.typarray = type.oid)
    UNION ALL SELECT 9, 'pg_catalog.pg_cast'::pg_catalog.regclass, "cast".oid, type.typowner
      FROM pg_catalog.pg_cast AS "cast"
      JOIN pg_catalog.pg_type AS type
        ON type.oid = CASE WHEN castsource >= 16384 THEN castsource ELSE casttarget END
    UNION ALL SELECT 9, 'pg_catalog.pg_operator'::pg_catalog.regclass, oid, oprowner
      FROM pg_catalog.pg_operator WHERE oprnamespace IN (SELECT oid FROM schemas)
    UNION ALL SELECT 9, 'pg_catalog.pg_opclass'::pg_catalog.regclass, oid, opcowner
      FROM pg_catalog.pg_opclass WHERE opcnamespace IN (SELECT oid FROM schemas)
    UNION ALL SELECT 10, 'pg_catalog.pg_opfamily'::pg_catalog.regclass, oid, opfowner
      FROM pg_catalog.pg_opfamily WHERE opfnamespace IN (SELECT oid FROM schemas)
    UNION ALL SELECT 10, 'pg_catalog.pg_collation'::pg_catalog.regclass, oid, collowner
      FROM pg_catalog.pg_collation WHERE collnamespace IN (SELECT oid FROM schemas)
    UNION ALL SELECT 10, 'pg_catalog.pg_conversion'::pg_catalog.regclass, oid, conowner
      FROM pg_catalog.pg_conversion WHERE connamespace IN (SELECT oid FROM schemas)
    UNION ALL SELECT 10, 'pg_catalog.pg_ts_config'::pg_catalog.regclass, oid, cfgowner
      FROM pg_catalog.pg_ts_config WHERE cfgnamespace IN (SELECT oid FROM schemas)
    UNION ALL SELECT 11, 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, oid, dictowner
      FROM pg_catalog.pg_ts_dict WHERE dictnamespace IN (SELECT oid FROM schemas)
    UNION ALL SELECT 12, 'pg_catalog.pg_ts_parser'::pg_catalog.regclass, oid, NULL
      FROM pg_catalog.pg_ts_parser WHERE prsnamespace IN (SELECT oid FROM schemas)
    UNION ALL SELECT 12, 'pg_catalog.pg_ts_template'::pg_catalog.regclass, oid, NULL
      FROM pg_catalog.pg_ts_template WHERE tmplnamespace IN (SELECT oid FROM schemas)
    UNION ALL SELECT 13, 'pg_catalog.pg_am'::pg_catalog.regclass, oid, NULL FROM pg_catalog.pg_am
    UNION ALL SELECT 13, 'pg_catalog.pg_language'::pg_catalog.regclass, oid, lanowner FROM pg_catalog.pg_language
    UNION ALL SELECT 14, 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, nspowner
      FROM schemas
     WHERE nspname <> 'public'
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS held
                        WHERE held.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                          AND held.refobjid = schemas.oid
                          AND (held.classid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                               OR (held.classid, held.objid) IN (SELECT classid, objid FROM members)))
)
SELECT pg_catalog.format(
           'DROP %s IF EXISTS %s CASCADE',
           CASE WHEN thing.type IN ('function', 'procedure', 'aggregate') THEN 'ROUTINE'
                WHEN thing.type = 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER'
                ELSE pg_catalog.upper(thing.type) END,
           thing.identity) AS statement,
       pg_catalog.concat(thing.type, ' ', thing.identity) AS name,
       role.rolname AS owner,
       COALESCE(role.rolsuper, true) AS of_a_superuser,
       self.rolsuper OR COALESCE(pg_catalog.pg_has_role(objects.owner, 'USAGE'), false) AS ours
  FROM objects
  JOIN pg_catalog.pg_roles AS self ON self.rolname = CURRENT_USER
  LEFT JOIN pg_catalog.pg_roles AS role ON role.oid = objects.owner
 CROSS JOIN LATERAL pg_catalog.pg_identify_object(objects.classid, objects.objid, 0) AS thing
 WHERE objects.objid >= 16384
   AND (objects.classid, objects.objid) NOT IN (SELECT classid, objid FROM members)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS made_with
                    WHERE made_with.classid = objects.classid AND made_with.objid = objects.objid
                      AND made_with.deptype = 'i'
                      AND (made_with.refclassid, made_with.refobjid) <> (objects.classid, objects.objid))
 ORDER BY objects.turn, objects.objid
"""
"""Everything that a dump brings back whole: what is neither part of an extension nor of PostgreSQL itself (whose
numbers are below 16384), nor temporary, nor made along with something else, as the functions of a range are. Schemas
that hold an extension stay, and so does `public`, which no dump creates.

Dropped in this order nothing is in the way: what other objects are made of comes after them. A partitioned table is
"made with" itself, with the columns that it is divided by.
"""

ROLES = """
SELECT role.rolname AS name,
       pg_catalog.bool_or(dependency.deptype = 'o'
                          AND dependency.classid <> 'pg_catalog.pg_extension'::pg_catalog.regclass
                          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS member
                                           WHERE member.classid = dependency.classid
                                             AND member.objid = dependency.objid
                                             AND member.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                                             AND member.deptype = 'e')) AS owns
  FROM pg_catalog.pg_shdepend AS dependency
  JOIN pg_catalog.pg_roles AS role ON role.oid = dependency.refobjid
 WHERE dependency.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND dependency.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
 GROUP BY role.rolname
"""
"""Roles that own something or are named in a grant or a policy; all but the first superuser, who is not kept there."""

EXTENSIONS = """
SELECT extension.extname AS name,
       pg_catalog.quote_ident(extension.extname) AS quoted,
       extension.extversion AS version,
       schema.nspname AS schema
  FROM pg_catalog.pg_extension AS extension
  JOIN pg_catalog.pg_namespace AS schema ON schema.oid = extension.extnamespace
 ORDER BY extension.extname
"""

SCHEMAS = """
SELECT schema.nspname AS name,
       pg_catalog.quote_ident(schema.nspname) AS quoted,
       role.rolname AS owner,
       self.rolsuper OR pg_catalog.pg_has_role(schema.nspowner, 'USAGE') AS ours,
       EXISTS (SELECT FROM pg_catalog.pg_depend AS held
                WHERE held.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                  AND held.refobjid = schema.oid
                  AND (held.classid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                       OR EXISTS (SELECT FROM pg_catalog.pg_depend AS member
                                   WHERE member.classid = held.classid AND member.objid = held.objid
                                     AND member.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                                     AND member.deptype = 'e'))) AS holds_an_extension,
       EXISTS (SELECT FROM pg_catalog.pg_depend AS member
                WHERE member.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                  AND member.objid = schema.oid
                  AND member.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                  AND member.deptype = 'e') AS is_of_an_extension,
       COALESCE((SELECT pg_catalog.array_agg(item::text ORDER BY item::text)
                   FROM pg_catalog.unnest(schema.nspacl) AS item), '{}') AS rights
  FROM pg_catalog.pg_namespace AS schema
  JOIN pg_catalog.pg_roles AS role ON role.oid = schema.nspowner
  JOIN pg_catalog.pg_roles AS self ON self.rolname = CURRENT_USER
 WHERE schema.nspname !~ '^pg_' AND schema.nspname <> 'information_schema'
"""

SUBSCRIPTIONS = """
SELECT subname AS name, subenabled AS enabled
  FROM pg_catalog.pg_subscription
 WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
 ORDER BY subname
"""

COUNTS = """
SELECT (SELECT pg_catalog.count(*)
          FROM pg_catalog.pg_class
         WHERE oid >= 16384 AND relpersistence <> 't' AND relkind <> 'c') AS relations,
       (SELECT pg_catalog.count(DISTINCT (classid, objid))
          FROM pg_catalog.pg_depend
         WHERE objid >= 16384) AS objects,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata) AS large_objects,
       pg_catalog.pg_database_size(pg_catalog.current_database()) AS bytes
"""
"""The size of a single table would wait for whoever locks it."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a dump needs beside it, and how large it is."""

    entries: int
    """Of the dump's table of contents."""
    roles: list[str]
    """That own something or are named in a grant or a policy."""
    owners: list[str]
    extensions: dict[str, list[str]]
    """Version and schema by name."""
    schemas: dict[str, list[str]]
    """Owner, then rights, by name."""
    relations: int
    """Tables, indexes, sequences, views."""
    large_objects: int
    bytes: int
    """What the database took on disk."""


async def read_live(server: PostgresServer, entries: int) -> Contents:
    """Ask what the database holds.

    Raises: EngineUnavailable, DeadlineExceeded
    """
    objects = await server.read(OBJECTS)
    roles = await server.read(ROLES)
    owners = {row["owner"] for row in objects if row["owner"]} | {row["name"] for row in roles if row["owns"]}
    (counts,) = await server.read(COUNTS)
    return Contents(
        entries=entries,
        roles=sorted(owners | {row["name"] for row in roles}),
        owners=sorted(owners),
        extensions={row["name"]: [row["version"], row["schema"]] for row in await server.read(EXTENSIONS)},
        schemas={row["name"]: [row["owner"], *row["rights"]] for row in await server.read(SCHEMAS)},
        relations=counts["relations"],
        large_objects=counts["large_objects"],
        bytes=counts["bytes"],
    )


async def write(folder: Path, contents: Contents) -> None:
    """Write it beside a dump.

    Raises: OSError
    """
    as_json = orjson.dumps(asdict(contents), option=orjson.OPT_INDENT_2)
    await in_own_thread((folder / CONTENTS).write_bytes, as_json)


async def read(folder: Path) -> Contents:
    """Read what stands beside a dump.

    Raises: BackupDamaged
    """
    try:
        fields: dict[str, Any] = orjson.loads(await in_own_thread((folder / CONTENTS).read_bytes))
        return Contents(**fields)
    except (OSError, ValueError, TypeError) as problem:
        raise BackupDamaged(f"The backup has no readable {CONTENTS}.") from problem
