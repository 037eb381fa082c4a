"""What an account needs to dump a logical database and to restore it, beyond what the actions need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.errors import EngineError, PrivilegeMissing
from engines.mysql.facts import Flavour, granted, granted_on, has_dynamic_privileges
from engines.mysql.identifiers import quoted
from engines.mysql.requirements import holds

if TYPE_CHECKING:
    from engines.mysql.driver import Session
    from engines.mysql.facts import Facts

SHOWING = ("SELECT", "SHOW VIEW", "TRIGGER", "EVENT")
"""Without one of these the server shows an account less than there is, and says nothing."""

RESTORING = (
    "ALTER",
    "ALTER ROUTINE",
    "CREATE",
    "CREATE ROUTINE",
    "CREATE VIEW",
    "DROP",
    "EVENT",
    "EXECUTE",
    "INDEX",
    "INSERT",
    "LOCK TABLES",
    "REFERENCES",
    "SELECT",
    "SHOW VIEW",
    "TRIGGER",
)
"""On the deployment's own logical database and on the two that a restore makes beside it."""

# MariaDB and MySQL 5.7 show routines of others to whom may read this table; MariaDB has a privilege for it since 11.3.
READ_ROUTINES = "SELECT 1 FROM mysql.proc LIMIT 0"

BINARY_LOG = "SELECT @@GLOBAL.log_bin, @@GLOBAL.log_bin_trust_function_creators"

LOGGED_PROGRAMS = """
    SELECT (SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s)
         + (SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s)"""


def demand(missing: list[str]) -> None:
    """Refuse to go on when something is missing.

    Raises: PrivilegeMissing
    """
    if missing:
        raise PrivilegeMissing(" ".join(["The engine account may not do all that it takes.", *missing]))


def missing_to_dump(session: Session, database: str) -> list[str]:
    """Tell which privileges are missing to see the whole logical database, each with its GRANT."""
    facts = session.facts
    reasons = _missing_on(facts, database, SHOWING)
    held = granted_on(facts.grants, database)
    if not has_dynamic_privileges(facts.flavour, facts.version):
        if not holds(held, "SHOW CREATE ROUTINE") and not _reads_routines(session):
            reasons.append(_told("SELECT on mysql.proc", f"GRANT SELECT ON mysql.proc TO {facts.account};"))
    elif facts.version >= (8, 0, 20) and not {"SHOW_ROUTINE", "SELECT"} & granted(facts.grants):
        reasons.append(_told("SHOW_ROUTINE", f"GRANT SHOW_ROUTINE ON *.* TO {facts.account};"))
    return reasons


def _reads_routines(session: Session) -> bool:
    try:
        session.execute(READ_ROUTINES)
    except EngineError:
        return False
    return True


def missing_to_restore(session: Session, database: str, *beside: str) -> list[str]:
    """Tell which privileges are missing to restore the logical database, by way of those beside it."""
    facts = session.facts
    reasons = [reason for name in (database, *beside) for reason in _missing_on(facts, name, RESTORING)]
    everywhere = granted(facts.grants)
    definer = set_definer(facts.flavour, facts.version)
    if not any(holds(everywhere, each) for each in (definer, "SUPER")):
        reasons.append(_told(definer, f"GRANT {definer} ON *.* TO {facts.account};"))
    logged, trusted = session.execute(BINARY_LOG)[0]
    if (
        logged
        and not trusted
        and not holds(everywhere, "SUPER")
        and session.execute(LOGGED_PROGRAMS, database, database)[0][0]
    ):
        # Error 1419. https://dev.mysql.com/doc/refman/9.7/en/stored-programs-logging.html
        reasons.append(
            "With the binary log on, the server lets this account make no functions and triggers. "
            "Remedy: log_bin_trust_function_creators=ON in the server's configuration."
        )
    return reasons


def set_definer(flavour: Flavour, version: tuple[int, ...]) -> str:
    """Name the privilege for making a view or a routine in the name of another account."""
    if flavour == "mariadb":
        return "SET USER" if version >= (10, 5, 2) else "SUPER"
    if has_dynamic_privileges(flavour, version):
        return "SET_ANY_DEFINER" if version >= (8, 2) else "SET_USER_ID"
    return "SUPER"


def _missing_on(facts: Facts, database: str, privileges: tuple[str, ...]) -> list[str]:
    held = granted_on(facts.grants, database)
    missing = [privilege for privilege in privileges if not holds(held, privilege)]
    if not missing:
        return []
    names = ", ".join(missing)
    return [_told(f"{names} on {database}", f"GRANT {names} ON {pattern(database)}.* TO {facts.account};")]


def pattern(database: str) -> str:
    """Quote the name of a logical database for a GRANT, where _ and % would stand for any characters."""
    return quoted(database.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%"))


def _told(privilege: str, remedy: str) -> str:
    return f"Missing: {privilege}. Remedy: {remedy}"
