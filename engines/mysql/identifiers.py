"""The one place that quotes names, and the one that knows which schemas belong to the server."""

from __future__ import annotations

SYSTEM_SCHEMAS = frozenset({"information_schema", "mysql", "performance_schema", "sys"})
"""Exactly these: `MYSQL` is an ordinary name where lower_case_table_names is 0.

`sys` is one on MariaDB since 10.6. https://dev.mysql.com/doc/refman/9.7/en/system-schema.html
"""


class Identifier(str):
    """A name that stands in a statement as an identifier, not as a value."""

    __slots__ = ()


def quoted(name: str) -> str:
    """Quote an identifier; a backtick inside is doubled, and nothing else is special in any sql_mode.

    https://dev.mysql.com/doc/refman/9.7/en/identifiers.html
    """
    return "`" + name.replace("`", "``") + "`"


def literal(value: str) -> str:
    """Quote a string literal for a session whose sql_mode is without NO_BACKSLASH_ESCAPES.

    https://dev.mysql.com/doc/refman/9.7/en/string-literals.html
    """
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def shown(name: str) -> str:
    """Write a name for a text that a person reads: one line, valid Unicode, not endless."""
    return repr(name if len(name) <= 100 else name[:100] + "…")
