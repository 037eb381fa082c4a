"""What an account needs to manage users, and what the users get."""

from __future__ import annotations

from collections.abc import Sequence

from engines.health import Lack
from engines.mysql.backup_rights import pattern
from engines.mysql.facts import Facts, Flavour, granted, granted_on, has_dynamic_privileges

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

ENDS_SESSIONS = {"CONNECTION_ADMIN", "CONNECTION ADMIN", "SUPER", "ALL PRIVILEGES"}
"""Any of these ends the sessions of others."""


def _kill(flavour: Flavour, version: tuple[int, ...]) -> str:
    """Give the smallest privilege that ends the sessions of others."""
    if has_dynamic_privileges(flavour, version):
        return "CONNECTION_ADMIN"
    return "CONNECTION ADMIN" if flavour == "mariadb" and version >= (10, 5, 2) else "SUPER"


def lacking(grants: Sequence[str], database: str, facts: Facts) -> list[Lack]:
    """Look in SHOW GRANTS what an account lacks to manage the users of a logical database."""
    held = granted(grants)
    is_all = "ALL PRIVILEGES" in held
    names = [each for each in ("CREATE USER", "PROCESS") if not is_all and each not in held]
    if held.isdisjoint(ENDS_SESSIONS):
        names.append(_kill(facts.flavour, facts.version))
    if not {"SELECT", "ALL PRIVILEGES"} & granted_on(grants, "mysql"):
        names.append("SELECT ON mysql.*")
    here = granted_on(grants, database)
    hands_on = granted_on([each for each in grants if each.endswith("WITH GRANT OPTION")], database)
    if not hands_on or not ("ALL PRIVILEGES" in here or here.issuperset(WRITES)):
        names.append(f"{', '.join(WRITES)} ON {pattern(database)}.* WITH GRANT OPTION")
    remedy = " ".join(user_grants(facts.account, database, facts.flavour, facts.version))
    return [Lack(name=name, remedy=remedy) for name in names]


def user_grants(account: str, database: str, flavour: Flavour, version: tuple[int, ...]) -> list[str]:
    """Give the statements that let an account manage the users of a logical database; the account is quoted."""
    return [
        f"GRANT CREATE USER, PROCESS ON *.* TO {account};",
        f"GRANT {_kill(flavour, version)} ON *.* TO {account};",
        f"GRANT SELECT ON mysql.* TO {account};",
        f"GRANT {', '.join(WRITES)} ON {pattern(database)}.* TO {account} WITH GRANT OPTION;",
    ]
