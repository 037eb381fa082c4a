"""What a restore lets PostgreSQL evaluate as dbvalet's account, and whose code that is.

Rows that are loaded go through the constraints of their table and of its domains, through generated columns and the
bounds of partitions, and foreign keys through casts: all as the account that loads them, whoever wrote them. Some of it
runs when a table is made, before there is a row: what is immutable and has constant arguments. What an index is made of
runs as the table's owner, but may be simplified as the account for the query that checks a foreign key. SET ROLE to the
owner would keep nothing: what is called could RESET it.

So an account with powers over the server is not to restore what calls functions that others have written. A dump writes
every name in full that is not PostgreSQL's own, and its expressions as the server understood them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engines.postgresql.archive import CLASS, PROC, Entry, sql_of
from engines.postgresql.backup_rights import some
from engines.postgresql.programs import Programs

if TYPE_CHECKING:
    from engines.postgresql.server import PostgresServer

TYPE, CAST, CONSTRAINT, OPERATOR, STATISTICS = 1247, 2605, 2606, 2617, 3381

POWERS = """
WITH RECURSIVE become AS (
    SELECT oid AS role FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER
    UNION
    SELECT membership.roleid
      FROM become JOIN pg_catalog.pg_auth_members AS membership ON membership.member = become.role
)
SELECT power
  FROM (SELECT 1 AS turn, 'SUPERUSER' AS power
          FROM become JOIN pg_catalog.pg_roles AS role ON role.oid = become.role WHERE role.rolsuper
         UNION
        SELECT 2, 'CREATEROLE'
          FROM become JOIN pg_catalog.pg_roles AS role ON role.oid = become.role WHERE role.rolcreaterole
         UNION
        SELECT 3, 'ADMIN OPTION for ' || pg_catalog.quote_ident(granted.rolname)
          FROM become
          JOIN pg_catalog.pg_auth_members AS membership ON membership.member = become.role AND membership.admin_option
          JOIN pg_catalog.pg_roles AS granted ON granted.oid = membership.roleid
         UNION
        SELECT 4, role.rolname::text
          FROM become JOIN pg_catalog.pg_roles AS role ON role.oid = become.role
         WHERE role.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')
         UNION
        SELECT 5, 'EXECUTE on ' || function.proname
          FROM become
          JOIN pg_catalog.pg_proc AS function
            ON function.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
           AND function.proname IN ('pg_read_file', 'pg_read_binary_file', 'lo_import', 'lo_export')
         WHERE pg_catalog.has_function_privilege(become.role, function.oid, 'EXECUTE')) AS powers
 ORDER BY turn, power
"""
"""What the account has, itself or by becoming another role, that reaches further than the database."""

SUPERUSERS = "SELECT rolname AS name FROM pg_catalog.pg_roles WHERE rolsuper OR rolname = CURRENT_USER"

ACTS = """
SELECT DISTINCT schema.nspname AS schema, function.proname AS name
  FROM pg_catalog.pg_proc AS function
  JOIN pg_catalog.pg_namespace AS schema ON schema.oid = function.pronamespace
  LEFT JOIN pg_catalog.pg_depend AS member
    ON member.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND member.objid = function.oid
   AND member.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND member.deptype = 'e'
 WHERE (schema.nspname = 'pg_catalog' OR member.objid IS NOT NULL)
   AND (function.provolatile = 'v' OR function.proname ~ '^(table|schema|database)_to_xml')
   AND function.proname NOT IN ('random', 'random_normal', 'clock_timestamp', 'timeofday', 'gen_random_uuid',
                                'uuidv4', 'uuidv7', 'nextval', 'uuid_generate_v1', 'uuid_generate_v4')
"""
"""Functions of PostgreSQL and of extensions that do something, or read SQL: query_to_xml runs whatever it is given."""

ADDED = """
SELECT pg_catalog.pg_describe_object(member.classid, member.objid, 0) AS name
  FROM pg_catalog.pg_depend AS member
  LEFT JOIN pg_catalog.pg_proc AS function
    ON member.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND function.oid = member.objid
  LEFT JOIN pg_catalog.pg_type AS type
    ON member.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND type.oid = member.objid AND type.typtype = 'd'
  JOIN pg_catalog.pg_roles AS role ON role.oid = COALESCE(function.proowner, type.typowner)
 WHERE member.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND member.deptype = 'e'
   AND NOT role.rolsuper AND role.rolname <> CURRENT_USER
 UNION
SELECT pg_catalog.pg_describe_object('pg_catalog.pg_trigger'::pg_catalog.regclass, trigger.oid, 0)
  FROM pg_catalog.pg_extension AS extension
  JOIN pg_catalog.pg_trigger AS trigger ON trigger.tgrelid = ANY (extension.extconfig) AND NOT trigger.tgisinternal
  JOIN pg_catalog.pg_proc AS function ON function.oid = trigger.tgfoid
  JOIN pg_catalog.pg_roles AS role ON role.oid = function.proowner
 WHERE NOT role.rolsuper AND role.rolname <> CURRENT_USER
 ORDER BY 1
"""
"""An extension's owner can make anything a member of it, which no dump holds and no restore takes away. Nor are its
tables made anew whose rows come back."""

NOT_EVALUATED = re.compile(r"CREATE (?:(?:RECURSIVE |MATERIALIZED )?VIEW|(?:UNLOGGED )?SEQUENCE|TYPE) ")
"""A view is filled as its owner, and a type with functions of its own takes a superuser to make."""

AS_A_WHOLE = re.compile(r"CREATE (?:(?:UNIQUE )?INDEX|STATISTICS|CAST) ")

PART = re.compile(r"\b(?:CHECK|WHERE|GENERATED ALWAYS AS|PARTITION BY \w+|EXCLUDE USING \S+) \(")
"""What is evaluated of other statements. A default is not, as a dump has all columns, and a foreign key has none."""

QUOTED = re.compile(r"""(?P<name>"(?:[^"]|"")*") | '(?:[^']|'')*'""", re.VERBOSE)

CALL = re.compile(r'(?<![\w$".])(?:(?P<schema>"\d+"|[\w$]+)\.)?(?P<name>"\d+"|[\w$]+) ?\(')

CALLED_OPERATOR = re.compile(r'OPERATOR\((?P<schema>"\d+"|[\w$]+)\.(?P<name>[^\s)]+)\)')


@dataclass(frozen=True)
class Code:
    """Whose functions and operators a dump has."""

    entries: Sequence[Entry]
    trusted: Sequence[str]
    """Roles who may do more than the account anyway, and the account."""
    acts: Collection[tuple[str, str]]
    """Schema and name of functions that are not in the dump and do something."""
    known: dict[tuple[str, str, str], bool] = field(default_factory=dict[tuple[str, str, str], bool])

    def of_others_in(self, statement: str) -> list[str]:
        """Name what a statement of a dump lets the server call, as far as it is not to be trusted."""
        if NOT_EVALUATED.match(statement):
            return []
        names: list[str] = []

        def set_aside(found: re.Match[str]) -> str:
            if found["name"] is None:
                return "''"
            names.append(found["name"][1:-1].replace('""', '"'))
            return f'"{len(names) - 1}"'

        def name_of(token: str) -> str:
            return names[int(token.strip('"'))] if token.startswith('"') else token

        text = QUOTED.sub(set_aside, statement)
        parts = [text] if AS_A_WHOLE.match(text) else [_group(text, part.end()) for part in PART.finditer(text)]
        found: list[str] = []
        for part in parts:
            for call in CALL.finditer(part):
                schema, name = name_of(call["schema"] or "pg_catalog"), name_of(call["name"])
                if (schema, name) in self.acts or self._is_of_others("FUNCTION", schema, f"{name}("):
                    found.append(f"{schema}.{name}")
            for call in CALLED_OPERATOR.finditer(part):
                schema, name = name_of(call["schema"]), call["name"]
                if self._is_of_others("OPERATOR", schema, f"{name} "):
                    found.append(f"{schema}.{name}")
        return found

    def _is_of_others(self, kind: str, schema: str, begins: str) -> bool:
        key = (kind, schema, begins)
        if key not in self.known:
            beginning = re.sub(r"[\r\n]", " ", " ".join(key))
            ends = tuple(f"{') ' if kind == 'FUNCTION' else beginning}{role}" for role in self.trusted)
            self.known[key] = any(
                entry.catalog in (PROC, OPERATOR) and entry.text.startswith(beginning) and not entry.text.endswith(ends)
                for entry in self.entries
            )
        return self.known[key]


def _group(text: str, start: int) -> str:
    """Give what stands within parentheses, the first of which ends at `start`."""
    depth = 1
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at]
    return text[start:]


async def code_of_others(server: PostgresServer, programs: Programs, dump: Path, entries: Sequence[Entry]) -> list[str]:
    """Tell what of others a restore would run as the account, when it has powers over the server, with the remedy.

    Raises: BackupFailed, EngineUnavailable, DeadlineExceeded
    """
    powers = [row["power"] for row in await server.read(POWERS)]
    called = await _called(server, programs, dump, entries) if powers else []
    if not called:
        return []
    return [
        f"Functions or operators that no superuser has written would run as the engine account: {some(called)}. It has "
        f"{some(powers)}, and who wrote them would have it too. Remedy: restore with an account that has none of this "
        "(the script of `dbvalet grants postgresql`, with dbvalet.restores at yes and dbvalet.users and dbvalet.logs "
        "at no); or, before the next backup, let a superuser who has read them own them."
    ]


async def _called(server: PostgresServer, programs: Programs, dump: Path, entries: Sequence[Entry]) -> list[str]:
    trusted = [row["name"] for row in await server.read(SUPERUSERS)]
    code = Code(entries, trusted, {(row["schema"], row["name"]) for row in await server.read(ACTS)})
    found = [row["name"] for row in await server.read(ADDED)]
    wanted = [entry for entry in entries if entry.catalog in (CLASS, TYPE, CAST, CONSTRAINT, STATISTICS)]
    if wanted:
        async with sql_of(programs, dump, wanted) as script:
            await script.skip_settings()
            while (statement := await script.statement()) is not None:
                # As the table of contents is read, whatever the dump's encoding.
                found += code.of_others_in(statement.decode(errors="surrogateescape"))
    return [name.encode(errors="surrogateescape").decode(errors="replace") for name in dict.fromkeys(found)]
