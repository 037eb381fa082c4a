"""The one place that quotes names and texts for PostgreSQL."""

LONGEST_NAME = 63
"""Bytes (NAMEDATALEN - 1): PostgreSQL cuts a longer name short, and then means another object."""


def quote_identifier(name: str) -> str:
    """Write a name so that PostgreSQL takes it as it stands.

    Raises: ValueError for what cannot be a name
    """
    if not name or "\0" in name or len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"a name has 1 to {LONGEST_NAME} bytes of UTF-8, and no NUL")
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Write a text constant; `standard_conforming_strings` must be on, as it is since PostgreSQL 9.1.

    Raises: ValueError for a NUL
    """
    if "\0" in text:
        raise ValueError("a text cannot hold a NUL")
    return "'" + text.replace("'", "''") + "'"
