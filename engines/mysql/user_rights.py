"""What an account needs to manage users, and what the users get."""

from __future__ import annotations

from engines.mysql.backup_rights import pattern
from engines.mysql.facts import Flavour, has_dynamic_privileges

READS = ("SELECT", "SHOW VIEW")
"""What a read-only user may do in the deployment's database, with what is made there later."""

WRITES = (
    *READS,
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "REFERENCES",
    "INDEX",
    "ALTER",
    "CREATE TEMPORARY TABLES",
    "LOCK TABLES",
    "EXECUTE",
    "CREATE VIEW",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "EVENT",
    "TRIGGER",
)


def user_grants(account: str, database: str, flavour: Flavour, version: tuple[int, ...]) -> list[str]:
    """Give the statements that let an account manage the users of a logical database; the account is quoted."""
    kill = "SUPER"
    if has_dynamic_privileges(flavour, version):
        kill = "CONNECTION_ADMIN"
    elif flavour == "mariadb" and version >= (10, 5, 2):
        kill = "CONNECTION ADMIN"
    return [
        f"GRANT CREATE USER, PROCESS ON *.* TO {account};",
        f"GRANT {kill} ON *.* TO {account};",
        f"GRANT SELECT ON mysql.* TO {account};",
        f"GRANT {', '.join(WRITES)} ON {pattern(database)}.* TO {account} WITH GRANT OPTION;",
    ]
