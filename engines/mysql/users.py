"""Users of a MySQL or MariaDB server: accounts that have to do with the deployment's logical database.

One that has a global privilege, or one on another database, is more than such a user or of another deployment: listed
as protected, never touched.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines import deadline
from engines.errors import Conflict, DeadlineExceeded, EngineError, PrivilegeMissing
from engines.mysql.backup_rights import pattern
from engines.mysql.facts import account_of, has_dynamic_privileges, like
from engines.mysql.identifiers import literal
from engines.mysql.server import MySQLServer
from engines.mysql.user_rights import READS, WRITES, user_grants
from engines.users import User

if TYPE_CHECKING:
    from engines.mysql.driver import Session

ACCOUNTS = {
    "mysql": "SELECT User, Host, plugin FROM mysql.user",
    "mariadb": "SELECT User, Host, plugin FROM mysql.user WHERE is_role = 'N'",
}

GRANTED_ROLES = {
    "mysql": "SELECT TO_USER, TO_HOST FROM mysql.role_edges",
    "mariadb": "SELECT User, Host FROM mysql.roles_mapping",
}

PRIVILEGES = """
SELECT GRANTEE, NULL, PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE <> 'USAGE'
UNION ALL
SELECT GRANTEE, TABLE_SCHEMA, PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES
UNION ALL
SELECT GRANTEE, REPLACE(TABLE_SCHEMA, '_', '\\\\_'), PRIVILEGE_TYPE FROM information_schema.TABLE_PRIVILEGES
UNION ALL
SELECT GRANTEE, REPLACE(TABLE_SCHEMA, '_', '\\\\_'), PRIVILEGE_TYPE FROM information_schema.COLUMN_PRIVILEGES
UNION ALL
SELECT CONCAT('''', User, '''@''', Host, ''''), REPLACE(Db, '_', '\\\\_'), 'EXECUTE' FROM mysql.procs_priv
"""
"""By account and pattern of a logical database, which is NULL for a global one."""

DEFINED = """
SELECT 'view', TABLE_SCHEMA, TABLE_NAME FROM information_schema.VIEWS WHERE DEFINER = %s
UNION ALL SELECT LOWER(ROUTINE_TYPE), ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES WHERE DEFINER = %s
UNION ALL SELECT 'trigger', TRIGGER_SCHEMA, TRIGGER_NAME FROM information_schema.TRIGGERS WHERE DEFINER = %s
UNION ALL SELECT 'event', EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE DEFINER = %s
LIMIT 5
"""

SESSIONS = "SELECT ID FROM information_schema.PROCESSLIST WHERE BINARY USER = %s"

NO_SUCH_THREAD = "error 1094"

SESSIONS_END_WITHIN = 5.0

SYSTEM = ("mysql.", "mariadb.")


@dataclass(frozen=True, order=True)
class Account:
    """A user and from where; the name by which it is listed says the host unless that is any."""

    user: str
    host: str
    plugin: str

    @property
    def name(self) -> str:
        return self.user if self.host == "%" and self.user and "@" not in self.user else f"{self.user}@{self.host}"

    @property
    def quoted(self) -> str:
        return account_of(f"{self.user}@{self.host}")


class MySQLUsers:
    """Users of one MySQL or MariaDB database."""

    def __init__(self, server: MySQLServer) -> None:
        self._server = server

    async def all(self) -> list[User]:
        """List the accounts of the server.

        Raises: PrivilegeMissing, EngineUnavailable, DeadlineExceeded
        """
        accounts = await self._accounts()
        flavour = self._server.facts.flavour
        try:
            held: defaultdict[str, set[tuple[str | None, str]]] = defaultdict(set)
            for grantee, schema, privilege in await self._server.fetch(PRIVILEGES):
                held[_text(grantee)].add((None if schema is None else _text(schema), _text(privilege).upper()))
            roles: set[tuple[str, str]] = set()
            if flavour == "mariadb" or has_dynamic_privileges(flavour, self._server.facts.version):
                roles = {(_text(user), _text(host)) for user, host in await self._server.fetch(GRANTED_ROLES[flavour])}
        except PrivilegeMissing as refused:
            raise self._missing() from refused
        return sorted(
            (
                self._shown(account, held[f"'{account.user}'@'{account.host}'"], (account.user, account.host) in roles)
                for account in accounts.values()
            ),
            key=lambda user: user.name,
        )

    async def create(self, name: str, password: str, *, read_only: bool) -> None:
        """Make an account that reads all of the deployment's database, and writes it unless it is to be read-only.

        Raises: PrivilegeMissing, AlreadyExists, EngineUnavailable; Conflict, when it has stayed without its privileges
        """
        await self._server.log_in()
        account = account_of(f"{name}@%")
        privileges = ", ".join(READS if read_only else WRITES)
        identified = self._identified(password)

        def job(session: Session) -> None:
            session.prepare_to_write()
            session.execute(f"CREATE USER {account} {identified}")
            try:
                session.execute(f"GRANT {privileges} ON {pattern(self._server.address.database)}.* TO {account}")
            except EngineError as refused:
                try:
                    # Which makes a new connection if that one was cut.
                    session.prepare_to_write()
                    session.execute(f"DROP USER {account}")
                except EngineError:
                    raise Conflict(
                        f"The user was created, and did not get its privileges: {refused.message} Delete it."
                    ) from refused
                raise

        await self._write(job)

    async def set_password(self, name: str, password: str) -> None:
        """Give an account a password.

        Raises: PrivilegeMissing, Conflict, EngineUnavailable
        """
        account = (await self._accounts())[name]
        identified = self._identified(password)

        def job(session: Session) -> None:
            session.prepare_to_write()
            session.execute(f"ALTER USER {account.quoted} {identified}")

        await self._write(job)

    async def delete(self, name: str) -> None:
        """Drop an account, then end its sessions: a session outlives its account otherwise.

        Raises: Conflict, when something is defined in its name or another account has it too; PrivilegeMissing,
        EngineUnavailable
        """
        accounts = await self._accounts()
        account = accounts[name]
        namesakes = sorted(each for each in accounts.values() if each.user == account.user and each != account)
        if namesakes:
            # The process list has the client's host, not the account's: whose session it is cannot be told.
            raise Conflict(
                f"Nothing was deleted: there is also {', '.join(each.quoted for each in namesakes)} with the same user "
                "name, and the server does not tell whose sessions are whose. Remedy: let an administrator run "
                f"DROP USER {account.quoted}; and end its sessions by KILL."
            )
        definer = f"{account.user}@{account.host}"
        defined = await self._server.fetch(DEFINED, *[definer] * 4)
        if defined:
            things = ", ".join(f"{_text(kind)} {_text(schema)}.{_text(thing)}" for kind, schema, thing in defined)
            raise Conflict(
                f"The user is the definer of {things}, which would not work any more: define them anew, then delete it."
            )
        held = await self._server.privileges()
        if not {"PROCESS", "ALL PRIVILEGES"} & held or not self._ends_sessions & held:
            raise self._missing()

        def job(session: Session) -> None:
            session.prepare_to_write()
            session.execute(f"DROP USER {account.quoted}")

        await self._write(job)
        try:
            await self._end_sessions(account.user)
        except PrivilegeMissing as refused:
            raise Conflict(f"The user is gone, and its sessions could not be ended: {refused.message}") from refused

    @property
    def _ends_sessions(self) -> set[str]:
        return {"CONNECTION_ADMIN", "CONNECTION ADMIN", "SUPER", "ALL PRIVILEGES"}

    async def _end_sessions(self, user: str) -> None:
        ends_at = time.monotonic() + min(SESSIONS_END_WITHIN, deadline.remaining() / 2)
        while sessions := await self._server.fetch(SESSIONS, user):
            if time.monotonic() > ends_at:
                raise DeadlineExceeded("The user is gone, and its sessions do not end.")

            def job(session: Session, numbers: tuple[int, ...] = tuple(int(row[0]) for row in sessions)) -> None:
                session.prepare_to_write()
                for number in numbers:
                    try:
                        session.execute(f"KILL {number:d}")
                    except EngineError as gone:
                        if NO_SUCH_THREAD not in gone.message:
                            raise

            await self._write(job)
            await asyncio.sleep(0.05)

    async def _accounts(self) -> dict[str, Account]:
        facts = await self._server.log_in()
        try:
            rows = await self._server.fetch(ACCOUNTS[facts.flavour])
        except PrivilegeMissing as refused:
            raise self._missing() from refused
        accounts = (Account(_text(user), _text(host), _text(plugin)) for user, host, plugin in rows)
        return {account.name: account for account in accounts}

    def _shown(self, account: Account, held: set[tuple[str | None, str]], has_roles: bool) -> User:
        own, others = self._server.address.database, self._server.others()

        def reaches_others(schema: str) -> bool:
            # GRANT … ON `app\_%` reaches several, and so would whoever gives this account a password.
            return any(like(each, schema) and each != own for each in others)

        return User(
            name=account.name,
            read_only=not has_roles and {privilege for _, privilege in held} <= {*READS},
            protected=(
                account.user in ("", "root", self._server.address.user)
                or account.user.startswith(SYSTEM)
                or account.quoted == self._server.account
                or any(schema is None or not like(own, schema) or reaches_others(schema) for schema, _ in held)
            ),
            password_encryption=account.plugin or None,
        )

    def _identified(self, password: str) -> str:
        """Give the clause that sets a password. MySQL keeps it out of its logs; for MariaDB it is hashed here."""
        if self._server.facts.flavour == "mysql":
            return f"IDENTIFIED BY {literal(password)}"
        # https://mariadb.com/kb/en/authentication-plugin-mysql_native_password/: what the server would make of it.
        hashed = hashlib.sha1(hashlib.sha1(password.encode(), usedforsecurity=False).digest(), usedforsecurity=False)
        return f"IDENTIFIED BY PASSWORD '*{hashed.hexdigest().upper()}'"

    async def _write(self, job: Callable[[Session], None]) -> None:
        try:
            await self._server.write(job)
        except PrivilegeMissing as refused:
            raise self._missing() from refused

    def _missing(self) -> PrivilegeMissing:
        facts = self._server.facts
        statements = user_grants(facts.account, self._server.address.database, facts.flavour, facts.version)
        return PrivilegeMissing(
            f"The engine account may not manage users. Remedy: {' '.join(statements)}", privilege="CREATE USER"
        )


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
