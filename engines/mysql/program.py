"""What a logical database holds beside its tables: views, routines, triggers, events; read, kept in a file, made again.

The statements are the server's own (SHOW CREATE), each with the session that it was written in. The tools write them
too, but views in the order of their names with stand-ins for those to come, which makes MariaDB refuse a view with
CHECK OPTION on one of them (error 1368); and they write the database's name into statements that change it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from graphlib import CycleError, TopologicalSorter
from secrets import token_hex

import orjson

from engines.errors import BackupDamaged
from engines.mysql.contents import TRAILER
from engines.mysql.identifiers import literal, quoted, shown

KINDS = ("LIBRARY", "PACKAGE", "PACKAGE BODY", "FUNCTION", "PROCEDURE", "TRIGGER", "VIEW", "EVENT")
"""In the order in which they are made: a view needs its functions to be there, an event starts at once."""

HEAD = """\
-- Views, routines, triggers and events of {database}, as the server shows them. By hand, after the tables:
--   mariadb --binary-mode --comments DATABASE < program.sql      or mysql instead of mariadb
"""

IN_COLLATION = "ALTER DATABASE COLLATE {}"

SETTINGS = "SET SESSION sql_mode = %s, character_set_client = %s, collation_connection = %s, time_zone = %s"

CODECS = {"utf8mb4": "utf-8", "utf8mb3": "utf-8", "utf8": "utf-8", "binary": "utf-8", "latin1": "cp1252"}
"""Character sets whose name in Python is another one."""

NAME = r'(?:`(?:[^`]|``)+`|"(?:[^"]|"")+"|[\w$]+)'

# MariaDB keeps the head of a trigger as it was written, the names of databases included.
TRIGGER_HEAD = re.compile(
    rf"^(CREATE .*?\bTRIGGER\s+(?:IF\s+NOT\s+EXISTS\s+)?)(?:{NAME}\s*\.\s*)?({NAME})"
    rf"(\s+(?:BEFORE|AFTER)\s+(?:INSERT|UPDATE|DELETE)\s+ON\s+)(?:{NAME}\s*\.\s*)?({NAME}\s)",
    re.IGNORECASE | re.DOTALL,
)

ENABLED_EVENT = re.compile(r"(\bON COMPLETION (?:NOT )?PRESERVE) ENABLE\b")


@dataclass(frozen=True, kw_only=True)
class ProgramObject:
    """One of them, and the session that it is to be made in."""

    kind: str
    name: str
    statement: str
    """As SHOW CREATE gives it."""
    sql_mode: str = ""
    client: str = "utf8mb4"
    """character_set_client: the encoding of the statement."""
    connection: str = "utf8mb4_general_ci"
    """collation_connection."""
    collation: str | None = None
    """Of the database, which gives the parameters of a routine their character set."""
    time_zone: str = "+00:00"
    """An event's schedule is in it."""
    broken: bool = False
    """A view that names what is no longer there."""

    @property
    def key(self) -> tuple[str, str]:
        """Kind and name."""
        return self.kind, self.name

    def __str__(self) -> str:
        return f"{self.kind.lower()} {shown(self.name)}"

    def encoded(self) -> bytes:
        """Give the statement in the character set of its session."""
        return self.statement.encode(codec_of(self.client))


def codec_of(character_set: str) -> str:
    """Name a character set as Python does."""
    return CODECS.get(character_set, character_set)


def encodable(each: ProgramObject) -> ProgramObject:
    """Give an object as it can be written into a file."""
    try:
        whole = each.encoded().decode(codec_of(each.client)) == each.statement
    except (LookupError, UnicodeError):
        whole = False
    # A character set that Python does not have, in which MySQL has more, or in which two characters are one (the yen
    # sign is a backslash in Shift JIS): as Unicode it means the same.
    return each if whole else replace(each, client="utf8mb4", connection="utf8mb4_general_ci")


def in_order(views: Sequence[ProgramObject]) -> list[ProgramObject]:
    """Put views behind those that they name; a column of that name does no harm, unless it closes a circle."""
    by_name = {view.name: view for view in views}
    named = {
        view.name: {other for other in by_name if other != view.name and quoted(other) in view.statement}
        for view in views
    }
    try:
        return [by_name[name] for name in TopologicalSorter(named).static_order()]
    except CycleError:
        return list(views)


def write(program: Iterable[ProgramObject], database: str, collation: str) -> bytes:
    """Write program objects as SQL that the `mysql` and `mariadb` clients run, each in its own character set.

    `collation` is the database's own.
    """
    end = b"$$" + token_hex(6).encode() + b"\n"  # the clients know delimiters of 15 characters at most
    written = [HEAD.format(database=quoted(database).replace("\n", " ")).encode(), b"DELIMITER ", end]
    for each in program:
        facts = {name: value for name, value in asdict(each).items() if name != "statement"}
        written += [b"-- ", orjson.dumps(facts), b"\n"]
        written += [IN_COLLATION.format(literal(each.collation or collation)).encode(), end]
        written += [settings_of(each).encode(), end]
        written += [each.encoded(), end]
    written += [IN_COLLATION.format(literal(collation)).encode(), end, TRAILER, b"\n"]
    return b"".join(written)


def settings_of(each: ProgramObject) -> str:
    """Write the statement that makes a session the one that an object is made in."""
    return SETTINGS % tuple(map(literal, (each.sql_mode, each.client, each.connection, each.time_zone)))


def read(written: bytes) -> list[ProgramObject]:
    """Read what `write` wrote.

    Raises: BackupDamaged
    """
    _, _, rest = written.partition(b"\nDELIMITER ")
    end, _, body = rest.partition(b"\n")
    *parts, _, trailer = body.split(end + b"\n") if end and end + b"\n" in body else [b"", b""]
    if trailer.strip() != TRAILER:
        raise BackupDamaged("The program objects of the backup have no end.")
    try:
        return [_object(*three) for three in zip(parts[::3], parts[1::3], parts[2::3], strict=True)]
    except (ValueError, TypeError, LookupError) as problem:
        raise BackupDamaged("The program objects of the backup cannot be read.") from problem


def _object(head: bytes, _settings: bytes, statement: bytes) -> ProgramObject:
    facts = orjson.loads(head.partition(b"\n")[0].removeprefix(b"-- "))
    return ProgramObject(statement=statement.decode(codec_of(facts["client"])), **facts)


def for_trial(program: Iterable[ProgramObject]) -> list[ProgramObject]:
    """Make statements fit to be tried in another logical database, where nothing may happen by itself."""
    return [tried for each in program if (tried := _for_trial(each)) is not None]


def disabled(event: ProgramObject) -> ProgramObject:
    """Give an event as it is when it is switched off."""
    return replace(event, statement=ENABLED_EVENT.sub(r"\1 DISABLE", event.statement, count=1))


def _for_trial(each: ProgramObject) -> ProgramObject | None:
    if each.kind == "EVENT":
        return disabled(each)
    if each.kind == "TRIGGER":
        # Without the names of databases in front; a head with a comment in it is left untried.
        statement, found = TRIGGER_HEAD.subn(r"\1\2\3\4", each.statement, count=1)
        return replace(each, statement=statement) if found else None
    return each
