"""What of a dump is restored into a database as it is now, and what forbids it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.backup import Manifest
from engines.errors import BackupFailed, Precondition, PrivilegeMissing
from engines.postgresql.archive import EVENT_TRIGGER, EXTENSION, NAMESPACE, Entry
from engines.postgresql.backup_rights import (
    missing_to_make,
    missing_to_replace,
    some,
    unavailable_extensions,
    unknown_roles,
)
from engines.postgresql.contents import EXTENSIONS, SCHEMAS, SUBSCRIPTIONS, Contents
from engines.postgresql.evaluated import code_of_others
from engines.postgresql.programs import Programs, parse_version
from engines.postgresql.quoting import quote_identifier

if TYPE_CHECKING:
    from engines.postgresql.server import PostgresServer

STATE = """
SELECT pg_catalog.pg_is_in_recovery() AS is_standby,
       pg_catalog.current_setting('server_version_num')::int / 10000 AS major,
       pg_catalog.current_setting('server_version') AS version,
       self.rolsuper AS superuser
  FROM pg_catalog.pg_roles AS self
 WHERE self.rolname = CURRENT_USER
"""

SLOTS = """
SELECT slot_name AS name
  FROM pg_catalog.pg_replication_slots
 WHERE database = pg_catalog.current_database()
 ORDER BY slot_name
"""

RIGHTS_OF_EXTENSIONS = """
SELECT CASE
         WHEN proc.oid IS NOT NULL THEN pg_catalog.format(
             'ACL %s %s %I(%s) ', schema.nspname, CASE proc.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END,
             proc.proname, pg_catalog.pg_get_function_identity_arguments(proc.oid))
         WHEN class.oid IS NOT NULL THEN pg_catalog.format(
             'ACL %s %s %I ', schema.nspname, CASE class.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
             class.relname)
         WHEN type.oid IS NOT NULL THEN pg_catalog.format('ACL %s TYPE %I ', schema.nspname, type.typname)
         WHEN language.oid IS NOT NULL THEN pg_catalog.format('ACL - LANGUAGE %I ', language.lanname)
         WHEN wrapper.oid IS NOT NULL THEN pg_catalog.format('ACL - FOREIGN DATA WRAPPER %I ', wrapper.fdwname)
       END AS beginning
  FROM pg_catalog.pg_depend AS member
  LEFT JOIN pg_catalog.pg_proc AS proc
    ON member.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND proc.oid = member.objid
  LEFT JOIN pg_catalog.pg_class AS class
    ON member.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND class.oid = member.objid
  LEFT JOIN pg_catalog.pg_type AS type
    ON member.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND type.oid = member.objid
  LEFT JOIN pg_catalog.pg_language AS language
    ON member.classid = 'pg_catalog.pg_language'::pg_catalog.regclass AND language.oid = member.objid
  LEFT JOIN pg_catalog.pg_foreign_data_wrapper AS wrapper
    ON member.classid = 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass AND wrapper.oid = member.objid
  LEFT JOIN pg_catalog.pg_namespace AS schema
    ON schema.oid = COALESCE(proc.pronamespace, class.relnamespace, type.typnamespace)
 WHERE member.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND member.deptype = 'e'
"""
"""How the entries begin that hold rights on what belongs to extensions."""


RIGHT_ON_SCHEMA = re.compile(r'ACL - SCHEMA (?:(?P<plain>[^" ]+)|"(?P<quoted>(?:[^"]|"")+)") (?P<owner>.*)')


@dataclass(frozen=True, kw_only=True)
class Backup:
    """A dump that was read and found whole."""

    dump: Path
    manifest: Manifest
    contents: Contents
    entries: Sequence[Entry]
    programs: Programs


@dataclass(frozen=True)
class Stage:
    """A part of a restore."""

    words: str
    entries: Sequence[Entry]
    is_plain: bool = field(kw_only=True)
    """Whether its SQL is taken apart into statements; else only the server can tell where they end."""


@dataclass(kw_only=True)
class Plan:
    """What is done with a dump."""

    entries: list[Entry]
    """Those that are restored."""
    fresh_schemas: list[str] = field(default_factory=list[str])
    """That stay, and get the rights and the comment that they have when they are new."""
    before: list[str] = field(default_factory=list[str])
    """Statements about schemas, after the database was emptied and before anything is restored."""
    extensions: list[str] = field(default_factory=list[str])
    """That stay; rows that a user added to their tables go."""
    notes: list[str] = field(default_factory=list[str])

    def stages(self) -> list[Stage]:
        """Divide the entries by when and how their SQL is run.

        It is pg_restore's order: objects, rows, indexes and constraints, rights, materialized views, event triggers.
        Only the rights on schemas come sooner: to own something in a schema, an ordinary role needs a right on it.
        """
        data = [number for number, entry in enumerate(self.entries) if entry.is_data]
        first, last = (data[0], data[-1]) if data else (len(self.entries), len(self.entries))
        made = {entry.text.removeprefix("SCHEMA - ") for entry in self.entries if entry.catalog == NAMESPACE}
        schemas = [e for e in self.entries if e.catalog == NAMESPACE or self._is_right_on(made, e)]
        rights = [entry for entry in self.entries if entry.is_right and entry not in schemas]
        views = [entry for entry in self.entries if entry.catalog == 0 and entry.text.startswith("MATERIALIZED VIEW ")]
        watchers = [
            e for e in self.entries if e.catalog == EVENT_TRIGGER or e.text.startswith("COMMENT - EVENT TRIGGER ")
        ]
        apart = {entry.number for entry in (*schemas, *rights, *views, *watchers)}
        objects, rows, after = (
            [entry for entry in part if entry.number not in apart]
            for part in (self.entries[:first], self.entries[first : last + 1], self.entries[last + 1 :])
        )
        return [
            Stage("making schemas", schemas, is_plain=False),
            Stage("making tables, functions and other objects", objects, is_plain=False),
            Stage("loading rows", rows, is_plain=True),
            *(
                Stage("making indexes, constraints, triggers and rules", list(group), is_plain=is_plain)
                for is_plain, group in groupby(after, key=lambda entry: entry.is_plain)
            ),
            Stage("granting rights", rights, is_plain=True),
            Stage("filling materialized views", views, is_plain=True),
            Stage("making event triggers", watchers, is_plain=False),
        ]

    def _is_right_on(self, made: set[str], entry: Entry) -> bool:
        """Tell whether an entry grants rights on a schema that is there by then; `made` are names with their owners.

        A schema may also come with an extension, later.
        """
        found = RIGHT_ON_SCHEMA.fullmatch(entry.text) if entry.catalog == 0 else None
        if found is None:
            return False
        name = found["plain"] or found["quoted"].replace('""', '"')
        return name in self.fresh_schemas or f"{name} {found['owner']}" in made


async def make_plan(server: PostgresServer, backup: Backup) -> Plan:
    """Decide what is restored, or refuse a restore that cannot succeed before anything is changed.

    Raises: BackupFailed (of another engine, of a newer server), Precondition, PrivilegeMissing, EngineUnavailable
    """
    (state,) = await server.read(STATE)
    if parse_version(backup.manifest.readable_version)[0] > state["major"]:
        raise BackupFailed(
            f"The backup is of PostgreSQL {backup.manifest.readable_version}, and the server is the older "
            f"{state['version'].split()[0]}: nothing was changed."
        )
    plan = Plan(entries=list(backup.entries))
    await _leave_extensions(server, backup, plan, superuser=state["superuser"])
    await _leave_schemas(server, backup, plan)
    reasons = await _obstacles(server, backup, plan, state)
    if reasons:
        raise Precondition(" ".join([*reasons, "Nothing was changed."]))
    missing = await missing_to_replace(server) + await missing_to_make(server, backup.contents, plan.entries)
    if missing:
        raise PrivilegeMissing(
            " ".join(["The engine account lacks a privilege for this restore.", *dict.fromkeys(missing)]),
            privilege="to own what is restored",
        )
    return plan


async def _obstacles(server: PostgresServer, backup: Backup, plan: Plan, state: dict[str, Any]) -> list[str]:
    """Find what forbids a restore on this server, with the remedy for each."""
    reasons: list[str] = []
    if state["is_standby"]:
        reasons.append("The server is a standby: restore on its primary.")
    if roles := await unknown_roles(server, backup.contents):
        create = " ".join(f"CREATE ROLE {quote_identifier(name)};" for name in roles)
        reasons.append(f"The backup names roles that the server does not have: {some(roles)}. Remedy: {create}")
    if absent := await unavailable_extensions(server, plan.entries):
        reasons.append(f"The server does not have the files of extensions in the backup: {some(absent)}. Install them.")
    if slots := [row["name"] for row in await server.read(SLOTS)]:
        reasons.append(
            f"What is replicated from this database could not follow a restore: {some(slots)}. "
            "Remedy: end the subscriptions, or SELECT pg_drop_replication_slot(slot_name) for each; begin them anew."
        )
    subscriptions = await server.read(SUBSCRIPTIONS)
    if enabled := [row["name"] for row in subscriptions if row["enabled"]]:
        disable = " ".join(f"ALTER SUBSCRIPTION {quote_identifier(name)} DISABLE;" for name in enabled)
        reasons.append(f"Subscriptions write into this database: {some(enabled)}. Remedy: {disable}")
    elif subscriptions:
        plan.notes.append(f"Left as they are: the subscriptions {some([row['name'] for row in subscriptions])}.")
    return reasons + await code_of_others(server, backup.programs, backup.dump, plan.entries)


async def _leave_extensions(server: PostgresServer, backup: Backup, plan: Plan, *, superuser: bool) -> None:
    """Leave extensions that are there as they are: most can be made by a superuser only."""
    live = await server.read(EXTENSIONS)
    left = [row for row in live if row["name"] in backup.contents.extensions and row["name"] != "plpgsql"]
    plan.extensions = [row["name"] for row in left]
    for row in left:
        version, schema = backup.contents.extensions[row["name"]]
        if (version, schema) != (row["version"], row["schema"]):
            plan.notes.append(
                f"The extension {row['name']} is version {row['version']} in the schema {row['schema']}; in the backup "
                f"it was {version} in {schema}."
            )
    if names := [row["name"] for row in live if row["name"] != "plpgsql"]:
        plan.notes.append(f"Left as they are: the extensions {some(names)}.")
    comments = tuple(f"COMMENT - EXTENSION {row['quoted']} " for row in left)
    plan.entries = [
        entry
        for entry in plan.entries
        if not (entry.catalog == EXTENSION and entry.name in plan.extensions)
        and not (entry.catalog == 0 and comments and entry.text.startswith(comments))
    ]
    if not superuser:
        beginnings = [row["beginning"] for row in await server.read(RIGHTS_OF_EXTENSIONS) if row["beginning"]]
        system = tuple(_flat(beginning) for beginning in [*beginnings, "ACL pg_catalog ", "ACL information_schema "])
        plan.entries = [e for e in plan.entries if not (e.catalog == 0 and e.text.startswith(system))]


async def _leave_schemas(server: PostgresServer, backup: Backup, plan: Plan) -> None:
    """Leave `public`, which no dump creates, and schemas that hold an extension; their owner and rights come back."""
    live = {row["name"]: row for row in await server.read(SCHEMAS)}
    before = backup.contents.schemas
    for name, row in live.items():
        if name not in before or row["is_of_an_extension"] or not (name == "public" or row["holds_an_extension"]):
            continue
        unwanted = [f"SCHEMA - {name} "]
        owner, *rights = before[name]
        if row["ours"]:
            plan.fresh_schemas.append(name)
            if owner != row["owner"]:
                plan.before.append(f"ALTER SCHEMA {row['quoted']} OWNER TO {quote_identifier(owner)}")
        else:
            unwanted += [f"ACL - SCHEMA {row['quoted']} ", f"COMMENT - SCHEMA {row['quoted']} "]
            if (owner, rights) != (row["owner"], row["rights"]):
                plan.notes.append(f"The owner and the rights of the schema {name} were left as they are.")
        beginnings = tuple(map(_flat, unwanted))
        plan.entries = [
            entry
            for entry in plan.entries
            if not (entry.catalog in (0, NAMESPACE) and entry.text.startswith(beginnings))
        ]
    if "public" in before and "public" not in live:
        plan.fresh_schemas.append("public")
        plan.before += ["CREATE SCHEMA public", f"ALTER SCHEMA public OWNER TO {quote_identifier(before['public'][0])}"]
    elif "public" in live and "public" not in before and not live["public"]["holds_an_extension"]:
        plan.before.append("DROP SCHEMA public")


def _flat(text: str) -> str:
    """Write a text as pg_restore does in a list."""
    return re.sub(r"[\r\n]", " ", text)
