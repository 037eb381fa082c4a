"""What a server says of itself and of the account: asked once a connection, so that no action needs to ask again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Literal

from engines.mysql.identifiers import literal

Flavour = Literal["mysql", "mariadb"]

# Uptime and UTC_TIMESTAMP() are both counted from the moment the statement began, in whole seconds: their difference
# stays exactly the same as long as the server runs, whatever becomes of its clock.
FACTS: Mapping[Flavour, str] = {
    "mysql": """
        SELECT @@GLOBAL.version, @@GLOBAL.lower_case_table_names, CURRENT_USER(), UTC_TIMESTAMP(), VARIABLE_VALUE
          FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Uptime'""",
    "mariadb": """
        SELECT @@GLOBAL.version, @@GLOBAL.lower_case_table_names, CURRENT_USER(), UTC_TIMESTAMP(), VARIABLE_VALUE
          FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'UPTIME'""",
}

DATABASE_PRIVILEGES = frozenset(
    {
        "ALL PRIVILEGES",
        "ALTER",
        "ALTER ROUTINE",
        "CREATE",
        "CREATE ROUTINE",
        "CREATE TEMPORARY TABLES",
        "CREATE VIEW",
        "DELETE",
        "DELETE HISTORY",
        "DELETE VERSIONING ROWS",
        "DROP",
        "EVENT",
        "EXECUTE",
        "INDEX",
        "INSERT",
        "LOCK TABLES",
        "REFERENCES",
        "SELECT",
        "SHOW DATABASES",
        "SHOW VIEW",
        "TRIGGER",
        "UPDATE",
    }
)
"""Any of these, held globally, shows every database. https://dev.mysql.com/doc/refman/9.7/en/show-databases.html"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A server and an account, as one login found them."""

    flavour: Flavour
    version: tuple[int, ...]
    readable_version: str
    started_at: datetime
    folds_case: bool
    """Names of databases that differ only in case are one name (lower_case_table_names is 1 or 2)."""
    account: str
    """Quoted for a GRANT: `'valet'@'%'`."""
    grants: tuple[str, ...]
    """The rows of SHOW GRANTS, which are the account's own and those of its active roles."""

    def folded(self, name: str) -> str:
        """Give a name, or a pattern of a GRANT, in the one case in which the server compares it."""
        return name.lower() if self.folds_case else name

    @cached_property
    def sees_every_database(self) -> bool:
        """Tell whether SHOW DATABASES leaves none out."""
        return not DATABASE_PRIVILEGES.isdisjoint(granted(self.grants))


def flavour_of(greeting: str) -> Flavour:
    """Read the version that a server greets with: `5.5.5-10.11.18-MariaDB`."""
    return "mariadb" if "mariadb" in greeting.lower() else "mysql"


def parse_version(text: str) -> tuple[int, ...]:
    """Read `9.7.4-2` or `10.11.18-MariaDB-0+deb12u1` as numbers; () when it begins with none."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def readable(flavour: Flavour, version: tuple[int, ...]) -> str:
    """Write a version as people know it: `9.7.4`, `10.11.18-MariaDB`."""
    return ".".join(str(part) for part in version) + ("-MariaDB" if flavour == "mariadb" else "")


def started(now: datetime, uptime: str | int) -> datetime:
    """Give the moment the server process started; `now` is UTC without a zone, `uptime` in seconds."""
    return now.replace(tzinfo=UTC) - timedelta(seconds=int(uptime))


def granted(grants: Iterable[str]) -> frozenset[str]:
    """Read the global privileges out of SHOW GRANTS."""
    found: set[str] = set()
    for grant in grants:
        if match := re.match(r"GRANT (.+) ON \*\.\* TO ", grant):
            found |= _privileges(match[1])
    return frozenset(found - {"USAGE"})


def granted_on(grants: Iterable[str], database: str) -> frozenset[str]:
    """Read the privileges on a logical database out of SHOW GRANTS: the global ones, and those on names like it.

    Those that MySQL's partial revokes take away from it are left out.
    """
    found: set[str] = set()
    revoked: set[str] = set()
    for grant in grants:
        match = re.match(r"(GRANT|REVOKE) (.+) ON (?:\*|`((?:[^`]|``)*)`)\.\* (?:TO|FROM) ", grant)
        if match and (match[3] is None or like(database, match[3].replace("``", "`"))):
            (found if match[1] == "GRANT" else revoked).update(_privileges(match[2]))
    if "ALL PRIVILEGES" in found:
        found |= DATABASE_PRIVILEGES
    return frozenset(found - revoked - {"USAGE"})


def like(name: str, pattern: str) -> bool:
    """Tell whether a name fits the pattern of a GRANT: % and _ stand for any characters unless a backslash is before.

    https://dev.mysql.com/doc/refman/9.7/en/grant.html#grant-database-privileges
    """
    parts = re.findall(r"\\?.", pattern, flags=re.DOTALL)
    at = place = 0
    # Where to go on when what comes after the last % fits no further: it takes one character more then. One % at a
    # time is enough, as a shorter match of those before it leaves more to the rest, never less.
    after, taken = -1, 0
    while at < len(name):
        if place < len(parts) and parts[place] == "%":
            place += 1
            after, taken = place, at
        elif place < len(parts) and (parts[place] == "_" or parts[place][-1] == name[at]):
            at, place = at + 1, place + 1
        elif after >= 0:
            taken += 1
            at, place = taken, after
        else:
            return False
    return all(part == "%" for part in parts[place:])


def _privileges(text: str) -> set[str]:
    return {privilege.strip().upper() for privilege in text.split(",")}


def account_of(current_user: str) -> str:
    """Quote `valet@%` for a GRANT: the name may hold an @, the host cannot."""
    name, _, host = current_user.rpartition("@")
    return f"{literal(name)}@{literal(host)}"


def has_dynamic_privileges(flavour: Flavour, version: tuple[int, ...]) -> bool:
    """Tell whether the server has SYSTEM_VARIABLES_ADMIN and SET PERSIST: MySQL since 8.0."""
    return flavour == "mysql" and version >= (8,)


def has_system_users(flavour: Flavour, version: tuple[int, ...]) -> bool:
    """Tell whether the server sets system users apart: MySQL since 8.0.16."""
    return flavour == "mysql" and version >= (8, 0, 16)


def drops_at_once(flavour: Flavour, version: tuple[int, ...]) -> bool:
    """Tell whether DROP DATABASE is done whole or not at all: MySQL since 8.0; others drop object by object.

    https://dev.mysql.com/doc/refman/9.7/en/atomic-ddl.html
    """
    return flavour == "mysql" and version >= (8,)
