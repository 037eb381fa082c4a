"""The privileges that the actions need. Each is global: which logical databases there will be is not known before.

https://dev.mysql.com/doc/refman/9.7/en/privileges-provided.html, https://mariadb.com/kb/en/grant/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.engine import Requirement
from engines.mysql.facts import DATABASE_PRIVILEGES, has_dynamic_privileges, has_system_users

if TYPE_CHECKING:
    from engines.mysql.server import MySQLServer


def plain(privilege: str) -> Requirement:
    """Make the requirement of a privilege that every flavour and version has."""

    async def met(server: MySQLServer) -> bool:
        return holds(await server.privileges(), privilege)

    def remedy(server: MySQLServer) -> str:
        return f"GRANT {privilege} ON *.* TO {server.account};"

    return Requirement(name=privilege, met=met, remedy=remedy)


async def sees_databases(server: MySQLServer) -> bool:
    """Tell whether SHOW DATABASES leaves none out: any global privilege on databases is enough for that."""
    return not DATABASE_PRIVILEGES.isdisjoint(await server.privileges())


async def sets_variables(server: MySQLServer) -> bool:
    """Tell whether the account may SET GLOBAL sql_mode."""
    held = await server.privileges()
    return holds(held, "SUPER") or "SYSTEM_VARIABLES_ADMIN" in held


def let_set_variables(server: MySQLServer) -> str:
    """Give the GRANT for SET GLOBAL sql_mode: MariaDB (11.8 too) has no smaller privilege for it than SUPER."""
    privilege = (
        "SYSTEM_VARIABLES_ADMIN" if has_dynamic_privileges(server.facts.flavour, server.facts.version) else "SUPER"
    )
    return f"GRANT {privilege} ON *.* TO {server.account};"


async def drops_what_is_of_system_users(server: MySQLServer) -> bool:
    """Tell whether the account may drop a view or a routine that root has defined."""
    held = await server.privileges()
    return not has_system_users(server.facts.flavour, server.facts.version) or "SYSTEM_USER" in held


def let_drop_what_is_of_system_users(server: MySQLServer) -> str:
    """Give the GRANT."""
    return f"GRANT SYSTEM_USER ON *.* TO {server.account};"


def holds(held: frozenset[str], privilege: str) -> bool:
    """Tell whether a privilege is among those held."""
    return privilege in held or "ALL PRIVILEGES" in held


REQUIREMENTS: dict[str, Requirement] = {
    "SHOW DATABASES": Requirement(
        name="SHOW DATABASES",
        met=sees_databases,
        remedy=lambda server: f"GRANT SHOW DATABASES ON *.* TO {server.account};",
    ),
    "CREATE": plain("CREATE"),
    "DROP": plain("DROP"),
    "ALTER ROUTINE": plain("ALTER ROUTINE"),
    "EVENT": plain("EVENT"),
    "SYSTEM_USER": Requirement(
        name="SYSTEM_USER", met=drops_what_is_of_system_users, remedy=let_drop_what_is_of_system_users
    ),
    "SYSTEM_VARIABLES_ADMIN or SUPER": Requirement(
        name="SYSTEM_VARIABLES_ADMIN or SUPER", met=sets_variables, remedy=let_set_variables
    ),
}
