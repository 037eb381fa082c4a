"""What is in a dump: the facts beside the SQL, and how a file of SQL is checked without a server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from engines.backup import BLOCK
from engines.errors import BackupDamaged, LogicalDatabaseNotFound
from engines.mysql.databases import LIST, names_in
from engines.mysql.identifiers import Identifier, shown

if TYPE_CHECKING:
    from engines.mysql.driver import Session

TABLES, PROGRAM, CONTENTS = "tables.sql", "program.sql", "contents.json"
"""The files of a dump: what the server's own tool wrote of tables and sequences; views, routines, triggers and events;
and `Contents`."""

FORMAT = 1
"""Of these files together; a dump of a later one is for a later dbvalet."""

TRAILER = b"-- Dump completed"

CHARACTER_SET = """
    SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME, SCHEMA_NAME
      FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s"""

OBJECTS = "SHOW FULL TABLES FROM %s"

VIEWS = frozenset({"VIEW", "SYSTEM VIEW"})

ENGINES = """
    SELECT TABLE_NAME, ENGINE, DATA_LENGTH, TABLE_SCHEMA, TABLE_TYPE
      FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_TYPE NOT LIKE '%%VIEW'"""

FRESH_STATISTICS = "SET SESSION information_schema_stats_expiry = 0"

FLOATS = """
    SELECT DISTINCT TABLE_NAME, TABLE_SCHEMA
      FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND DATA_TYPE = 'float' ORDER BY TABLE_NAME"""

MARKER = re.compile(rb"\n-- (?:Table|Sequence) structure for (?:table )?`((?:[^`\n]|``)+)`\n")
"""What the tools write before each table and each sequence. A line break in a value or a comment is written as \\n."""

LONGEST_MARKER = 1024

END_OF_STATEMENT = b";\n"


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a dump holds, beside its manifest."""

    format: int
    character_set: str
    collation: str
    tables: Sequence[str]
    """With the sequences, by name."""
    sequences: Sequence[str]
    longest_statement: int
    """Bytes: a server whose max_allowed_packet is smaller cannot take it back."""
    data_bytes: int
    """What the tables take on the server, roughly: the measure of progress."""


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What a logical database holds, as the server lists it."""

    character_set: str
    collation: str
    kinds: dict[str, str]
    """Of each table, sequence and view: the server's word for it."""
    engines: dict[str, str]
    data_bytes: int
    rounded: Sequence[str]
    """Tables with FLOAT columns."""
    versioned: Sequence[str]
    """System-versioned tables, which SHOW FULL TABLES does not tell from others."""

    @property
    def tables(self) -> list[str]:
        """Tables and sequences, sorted."""
        return sorted(name for name, kind in self.kinds.items() if kind not in VIEWS)

    @property
    def sequences(self) -> list[str]:
        """Sequences, sorted."""
        return sorted(name for name, kind in self.kinds.items() if kind == "SEQUENCE")

    @property
    def views(self) -> list[str]:
        """Views, sorted."""
        return sorted(name for name, kind in self.kinds.items() if kind in VIEWS)

    @property
    def without_snapshot(self) -> list[str]:
        """Tables whose engine has no transactions, sorted: other statements change them while they are read."""
        return sorted(name for name in self.tables if self.engines.get(name, "").upper() not in ("INNODB", "ROCKSDB"))


def database_exists(session: Session, database: str) -> bool:
    """Tell whether there is a logical database of this name."""
    return database in names_in(session.execute(LIST))


def tables_in(session: Session, database: str) -> dict[str, str]:
    """List tables, sequences and views, each with the server's word for it."""
    return dict(session.execute(OBJECTS, Identifier(database)))


def character_set_of(session: Session, database: str) -> tuple[str, str]:
    """Give the default character set and collation.

    Raises: LogicalDatabaseNotFound
    """
    for character_set, collation, schema in session.execute(CHARACTER_SET, database):
        if schema == database:  # information_schema compares without regard to case
            return character_set, collation
    raise LogicalDatabaseNotFound(f"There is no logical database {shown(database)}.")


def take_inventory(session: Session, database: str) -> Inventory:
    """List what a logical database holds.

    Raises: LogicalDatabaseNotFound
    """
    if not database_exists(session, database):
        raise LogicalDatabaseNotFound(f"There is no logical database {shown(database)}.")
    character_set, collation = character_set_of(session, database)
    if session.facts.flavour == "mysql" and session.facts.version >= (8,):
        session.execute(FRESH_STATISTICS)
    measured = [row for row in session.execute(ENGINES, database) if row[3] == database]
    return Inventory(
        character_set=character_set,
        collation=collation,
        kinds=tables_in(session, database),
        engines={row[0]: row[1] or "" for row in measured},
        data_bytes=sum(row[2] or 0 for row in measured),
        rounded=[name for name, schema in session.execute(FLOATS, database) if schema == database],
        versioned=sorted(row[0] for row in measured if row[4] == "SYSTEM VERSIONED"),
    )


def size_of(session: Session, database: str) -> int:
    """Add up what the tables take on the server, roughly, in bytes."""
    return sum(row[2] or 0 for row in session.execute(ENGINES, database) if row[3] == database)


def scan(path: Path) -> tuple[list[str], int]:
    """Read what a tool wrote, a block at a time: the tables in it, and the length of its longest statement in bytes."""
    tables: list[str] = []
    longest = began = seen = 0
    carried, position = b"\n", -1
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            text = carried + block
            for match in MARKER.finditer(text):
                if position + match.start() >= seen:
                    seen = position + match.end() - 1
                    tables.append(match[1].decode().replace("``", "`"))
            end = text.find(END_OF_STATEMENT, max(0, len(carried) - 1))
            while end >= 0:
                longest = max(longest, position + end - began)
                began = position + end
                end = text.find(END_OF_STATEMENT, end + 1)
            carried = text[-LONGEST_MARKER:]
            position += len(text) - len(carried)
    return tables, longest


def check_trailer(path: Path) -> None:
    """Check that a file of SQL ends as it does when its writer got to the end.

    Raises: BackupDamaged
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200))
        lines = file.read().rstrip().rsplit(b"\n", 1)
    if not lines[-1].startswith(TRAILER):
        raise BackupDamaged(f"The file {path.name} of the backup has no end: it was cut off.")


def write_contents(folder: Path, contents: Contents) -> None:
    """Write the facts beside the SQL."""
    (folder / CONTENTS).write_bytes(orjson.dumps(asdict(contents), option=orjson.OPT_INDENT_2))


def read_contents(folder: Path) -> Contents:
    """Read the facts beside the SQL.

    Raises: BackupDamaged
    """
    try:
        read: dict[str, Any] = orjson.loads((folder / CONTENTS).read_bytes())
        if read["format"] != FORMAT:
            raise BackupDamaged("This backup is of a format that this version of dbvalet does not know.")
        return Contents(**read)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BackupDamaged(f"The backup has no readable {CONTENTS}.") from problem
