"""The script that makes a least-privilege account for MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Iterable

from engines.engine import GrantsFor
from engines.mysql.backup_rights import RESTORING, pattern, set_definer
from engines.mysql.facts import Flavour, has_dynamic_privileges, has_system_users
from engines.mysql.identifiers import literal, shown
from engines.mysql.journal import places_beside
from engines.mysql.user_rights import user_grants

SCRIPT = """\
-- Makes the account of dbvalet on {title}. Run it once as root:
--   {client} --user=root --password < THIS_FILE
-- Running it again brings an existing account up to date{again}.

SET SESSION sql_mode = '{sql_mode}';

{login}

-- Which logical databases there will be is not known before, so the privileges are global. None of them reads or
-- changes a row.
--   SHOW DATABASES   list-databases
--   CREATE           create-database
--   DROP             delete-database, reset-database
--   ALTER ROUTINE    reset-database drops procedures and functions
--   EVENT            reset-database drops events
GRANT SHOW DATABASES, CREATE, DROP, ALTER ROUTINE, EVENT ON *.* TO {account};
{more}
-- Optional: backups and restores of {database}. They read and write every row of it, so they are not part of the
-- above. If dbvalet is to make them, take the dashes away from these lines:
{backups}

-- Optional: to create users of {database}, give them passwords and delete them. It lets the account see every account
-- of the server, and read and write {database}. If dbvalet is to do that, take the dashes away from these lines:
{users}

-- Optional: to show the log (MySQL 8.0.22 and later) and whether the server follows another. If dbvalet is to do that,
-- take the dashes away from these lines:
{figures}

-- In dbvalet's configuration (characters other than letters and digits %-encoded):
--   url: {scheme}://USER:PASSWORD@HOST:3306/DATABASE
"""

LOGIN = """\
CREATE USER IF NOT EXISTS {account} IDENTIFIED BY {password};
ALTER USER {account} IDENTIFIED BY {password};"""

NO_LOGIN = """\
-- Written without --password-file of `dbvalet grants`: the password stays as it is, and no account is made. Where it is
-- not there, this statement fails and ends the script.
SHOW GRANTS FOR {account};"""

SYSTEM_VARIABLES_ADMIN = """
-- set-sqlmode: SET PERSIST sql_mode
GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO {account};
"""

SYSTEM_USER = """
-- reset-database: only a system user may drop a view or a routine that a system user such as root has defined
GRANT SYSTEM_USER ON *.* TO {account};

-- dbvalet never touches the server's own schemas. A server with partial_revokes=ON can make sure of that:
--   REVOKE CREATE, DROP, ALTER ROUTINE, EVENT ON mysql.* FROM {account};
--   REVOKE CREATE, DROP, ALTER ROUTINE, EVENT ON sys.* FROM {account};
"""

SUPER = """
-- set-sqlmode: SET GLOBAL sql_mode, for which {title} has no smaller privilege
GRANT SUPER ON *.* TO {account};
"""

NEWEST: dict[Flavour, tuple[int, ...]] = {"mysql": (9, 7), "mariadb": (11, 8)}


def backup_grants(whom: GrantsFor) -> list[str]:
    """Give the statements that let an account dump and restore its logical database, one statement each."""
    flavour: Flavour = "mariadb" if whom.flavour == "mariadb" else "mysql"
    version = whom.version or NEWEST[flavour]
    account = f"{literal(whom.user)}@'%'"
    places = places_beside(whom.database)
    # What shows the routines of others; the right to make a view or a routine in the name of another account; what
    # tells who holds the tables that are to be replaced.
    if has_dynamic_privileges(flavour, version):
        more = [
            f"GRANT SHOW_ROUTINE ON *.* TO {account};"
            if version >= (8, 0, 20)
            else f"GRANT SELECT ON *.* TO {account};",
            f"GRANT {set_definer(flavour, version)} ON *.* TO {account};",
            *([f"GRANT ALLOW_NONEXISTENT_DEFINER ON *.* TO {account};"] if version >= (8, 2) else []),
            f"GRANT SELECT ON performance_schema.metadata_locks TO {account};",
            f"GRANT SELECT ON performance_schema.threads TO {account};",
        ]
    else:
        more = [
            f"GRANT SELECT ON mysql.proc TO {account};",
            f"GRANT {set_definer(flavour, version)} ON *.* TO {account};",
            f"GRANT PROCESS ON *.* TO {account};",
        ]
    return [
        *(
            f"GRANT {', '.join(RESTORING)} ON {pattern(name)}.* TO {account};"
            for name in (places.database, places.fresh, places.before)
        ),
        *more,
    ]


def grants(whom: GrantsFor) -> str:
    """Write the script, for the `mysql` or `mariadb` client; the account may log in from anywhere."""
    flavour: Flavour = "mariadb" if whom.flavour == "mariadb" else "mysql"
    version = whom.version or NEWEST[flavour]
    variables = SYSTEM_VARIABLES_ADMIN if has_dynamic_privileges(flavour, version) else SUPER
    more = variables + (SYSTEM_USER if has_system_users(flavour, version) else "")
    account = f"{literal(whom.user)}@'%'"
    title = "MySQL" if flavour == "mysql" else "MariaDB"
    password = literal(whom.password) if whom.password else None
    return SCRIPT.format(
        title=title,
        client=flavour,
        scheme=flavour,
        account=account,
        again="" if password is None else " and sets its password",
        # Else a GRANT would make an account without a password where there is none. MySQL 8 has no such mode, nor need.
        sql_mode="" if has_dynamic_privileges(flavour, version) else "NO_AUTO_CREATE_USER",
        login=(NO_LOGIN if password is None else LOGIN).format(account=account, password=password),
        more=more.format(account=account, title=title),
        database=shown(whom.database),
        users=_commented(user_grants(account, whom.database, flavour, version)),
        backups=_commented(backup_grants(whom)),
        figures=_commented(figure_grants(account, flavour, version)),
    )


def figure_grants(account: str, flavour: Flavour, version: tuple[int, ...]) -> list[str]:
    """Give the statements that let an account see the log and what the server follows; the account is quoted."""
    monitor = "SLAVE MONITOR" if flavour == "mariadb" and version >= (10, 5, 9) else "REPLICATION CLIENT"
    log = [f"GRANT SELECT ON performance_schema.error_log TO {account};"] if flavour == "mysql" else []
    return [f"GRANT {monitor} ON *.* TO {account};", *log]


def _commented(statements: Iterable[str]) -> str:
    """Put dashes before every line: a name may hold the end of one."""
    return "\n".join("-- " + line for statement in statements for line in statement.split("\n"))
