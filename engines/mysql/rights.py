"""What each account of a server holds, by itself and by the roles that it has been given, or may take on.

Whoever sets the password of an account may do all of this: a role that is not active at login is one SET ROLE away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.mysql.facts import Flavour, has_dynamic_privileges, like

if TYPE_CHECKING:
    from engines.mysql.driver import Session

# With the schema, and whether its name is a pattern: it is one in a grant on a whole schema only.
RIGHTS = """
SELECT GRANTEE, NULL, 0, PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE <> 'USAGE'
UNION ALL
SELECT GRANTEE, TABLE_SCHEMA, 1, PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES
UNION ALL
SELECT GRANTEE, TABLE_SCHEMA, 0, PRIVILEGE_TYPE FROM information_schema.TABLE_PRIVILEGES
UNION ALL
SELECT GRANTEE, TABLE_SCHEMA, 0, PRIVILEGE_TYPE FROM information_schema.COLUMN_PRIVILEGES
UNION ALL
SELECT CONCAT('''', User, '''@''', Host, ''''), Db, 0, 'EXECUTE' FROM mysql.procs_priv
"""

# USER_PRIVILEGES of MariaDB leaves roles out. 1 is SELECT: https://mariadb.com/kb/en/mysql-global_priv-table/
GLOBAL_OF_ROLES = """
SELECT CONCAT('''', User, '''@'''''), NULL, 0, IF(JSON_VALUE(Priv, '$.access') = 1, 'SELECT', 'MORE THAN SELECT')
  FROM mysql.global_priv WHERE JSON_VALUE(Priv, '$.is_role') AND JSON_VALUE(Priv, '$.access') <> 0
"""

# Before 10.4 they are in 29 columns: a role is taken for one that has a global privilege.
ROLES_BEFORE_GLOBAL_PRIV = """
SELECT CONCAT('''', User, '''@'''''), NULL, 0, 'UNKNOWN' FROM mysql.user WHERE is_role = 'Y'
"""

ROLES_GIVEN = {
    "mysql": "SELECT TO_USER, TO_HOST, FROM_USER, FROM_HOST FROM mysql.role_edges",
    "mariadb": "SELECT User, Host, Role, '' FROM mysql.roles_mapping",
}
"""To whom, and which role. A role of MariaDB has no host."""

# Since MySQL 8.0.19. Those of whoever asks, which for mandatory ones are those of everybody.
MANDATORY = "SELECT ROLE_NAME, ROLE_HOST FROM information_schema.APPLICABLE_ROLES WHERE IS_MANDATORY = 'YES'"

PUBLIC = ("PUBLIC", "")
"""The role that everybody has on MariaDB since 10.11. https://mariadb.com/kb/en/grant/#to-public"""

PROXIES = "SELECT DISTINCT User FROM mysql.proxies_priv"
"""By name only: the host beside it is compared with the client's, not with the account's."""


@dataclass(frozen=True, slots=True)
class Right:
    """A privilege, and where it is held: everywhere when `schema` is None. Its case is folded as the server does."""

    schema: str | None
    is_pattern: bool
    privilege: str

    def reaches(self, database: str) -> bool:
        """Tell whether it holds on a logical database, or on something in it."""
        if self.schema is None:
            return True
        return like(database, self.schema) if self.is_pattern else database == self.schema


class Rights:
    """What the accounts of a server held when it was asked."""

    def __init__(
        self,
        rights: Iterable[tuple[str, Right]],
        given: Iterable[tuple[str, str]],
        everybodys: Iterable[str],
        proxies: set[str],
    ) -> None:
        """All name accounts as GRANTEE does, but `proxies`; `given` are pairs of an account and a role."""
        self._own: defaultdict[str, set[Right]] = defaultdict(set)
        for grantee, right in rights:
            self._own[grantee].add(right)
        self._roles: defaultdict[str, set[str]] = defaultdict(set)
        for grantee, role in given:
            self._roles[grantee].add(role)
        self._everybodys = [*everybodys]
        self._given = {role for roles in self._roles.values() for role in roles}.union(self._everybodys)
        self._proxies = proxies

    def held_by(self, user: str, host: str) -> set[Right]:
        """Give what an account holds, with what its roles hold, and theirs."""
        return self._held_by(_grantee(user, host))

    def held_by_everybody(self) -> set[Right]:
        """Give what every account may besides, by a role that nobody needs to be given."""
        return self._held_by(*self._everybodys)

    def is_given(self, user: str, host: str) -> bool:
        """Tell whether an account is a role of others, which any account of MySQL can be."""
        return _grantee(user, host) in self._given

    def is_proxy(self, user: str) -> bool:
        """Tell whether an account may log in as another, by PROXY."""
        return user in self._proxies

    def _held_by(self, *grantees: str) -> set[Right]:
        reached, left = set[str](), [*grantees]
        while left:
            if (grantee := left.pop()) not in reached:
                reached.add(grantee)
                left += self._roles.get(grantee, ())
        return {right for grantee in reached for right in self._own.get(grantee, ())}


def read_rights(session: Session) -> Rights:
    """Ask what every account holds.

    Raises: PrivilegeMissing, EngineUnavailable, DeadlineExceeded
    """
    facts = session.facts
    flavour, version = facts.flavour, facts.version
    rows = [*session.fetch(RIGHTS)]
    if flavour == "mariadb":
        rows += session.fetch(GLOBAL_OF_ROLES if version >= (10, 4) else ROLES_BEFORE_GLOBAL_PRIV)
    given = session.fetch(ROLES_GIVEN[flavour]) if _has_roles(flavour, version) else ()
    everybodys = (PUBLIC,) if flavour == "mariadb" else session.fetch(MANDATORY) if version >= (8, 0, 19) else ()
    return Rights(
        (
            (
                text(grantee),
                Right(
                    schema=None if schema is None else facts.folded(text(schema)),
                    is_pattern=bool(is_pattern),
                    privilege=text(privilege).upper(),
                ),
            )
            for grantee, schema, is_pattern, privilege in rows
        ),
        (
            (_grantee(text(user), text(host)), _grantee(text(role), text(its_host)))
            for user, host, role, its_host in given
        ),
        (_grantee(text(role), text(host)) for role, host in everybodys),
        {text(user) for (user,) in session.fetch(PROXIES)},
    )


def text(value: str | bytes) -> str:
    """Read a name of the server's own tables, some of which give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _has_roles(flavour: Flavour, version: tuple[int, ...]) -> bool:
    return flavour == "mariadb" or has_dynamic_privileges(flavour, version)


def _grantee(user: str, host: str) -> str:
    return f"'{user}'@'{host}'"
