"""Users of a MySQL or MariaDB server: accounts that have to do with the deployment's logical database.

One that has a global privilege, or one on another database, is more than such a user or of another deployment, be it
by a role; so is one that may log in as another. One that holds nothing has nothing to do with the deployment. They are
listed as protected, and never touched.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines import deadline
from engines.errors import Conflict, DeadlineExceeded, EngineError, Precondition, PrivilegeMissing
from engines.health import Lack
from engines.mysql.backup_rights import pattern
from engines.mysql.facts import account_of, granted_on
from engines.mysql.identifiers import SYSTEM_SCHEMAS, literal
from engines.mysql.rights import Right, Rights, read_rights, text
from engines.mysql.server import MySQLServer
from engines.mysql.user_rights import ENDS_SESSIONS, READS, WRITES, lacking, user_grants
from engines.users import User

if TYPE_CHECKING:
    from engines.mysql.driver import Session

ACCOUNTS = {
    "mysql": "SELECT User, Host, plugin FROM mysql.user",
    "mariadb": "SELECT User, Host, plugin FROM mysql.user WHERE is_role = 'N'",
}

TAKE_FROM_EVERYBODY = {
    "mysql": "Remedy: let an administrator take the roles that do more than read out of mandatory_roles.",
    "mariadb": "Remedy: let an administrator revoke FROM PUBLIC what SHOW GRANTS FOR PUBLIC tells beyond reading.",
}

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
        rights = await self._rights()
        return sorted((self._shown(account, rights) for account in accounts.values()), key=lambda user: user.name)

    async def create(self, name: str, password: str, *, read_only: bool) -> None:
        """Make an account that reads all of the deployment's database, and writes it unless it is to be read-only.

        Raises: Precondition, when everybody writes; PrivilegeMissing, AlreadyExists, EngineUnavailable; Conflict, when
        it has stayed without its privileges
        """
        facts = await self._server.log_in()
        if read_only and not _only_read((await self._rights()).held_by_everybody()):
            raise Precondition(f"A read-only user could write what everybody may. {TAKE_FROM_EVERYBODY[facts.flavour]}")
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
                        f"The user was created, and did not get its privileges: {refused.message} "
                        f"Remedy: let an administrator run DROP USER {account};"
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
            things = ", ".join(f"{text(kind)} {text(schema)}.{text(thing)}" for kind, schema, thing in defined)
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

    async def lacking(self) -> list[Lack]:
        """Look what the account lacks to manage users.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        facts = await self._server.log_in()
        grants = [text(row[0]) for row in await self._server.fetch("SHOW GRANTS")]
        return lacking(grants, self._server.address.database, facts)

    @property
    def _ends_sessions(self) -> set[str]:
        return ENDS_SESSIONS

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
        accounts = (Account(text(user), text(host), text(plugin)) for user, host, plugin in rows)
        return {account.name: account for account in accounts}

    async def _rights(self) -> Rights:
        # Else information_schema shows no grants of others, and does not say so.
        if not {"SELECT", "ALL PRIVILEGES"} & granted_on(self._server.facts.grants, "mysql"):
            raise self._missing()
        try:
            return await self._server.read(read_rights)
        except PrivilegeMissing as refused:
            raise self._missing() from refused

    def _shown(self, account: Account, rights: Rights) -> User:
        held = rights.held_by(account.user, account.host)
        is_proxy = rights.is_proxy(account.user)
        facts = self._server.facts
        own = facts.folded(self._server.address.database)
        # GRANT … ON `app\_%` reaches several, and so would whoever gives this account a password.
        others = {*map(facts.folded, self._server.others()), *SYSTEM_SCHEMAS} - {own}
        return User(
            name=account.name,
            read_only=not is_proxy and _only_read(held | rights.held_by_everybody()),
            protected=(
                account.user in ("", "root", self._server.address.user)
                or account.user.startswith(SYSTEM)
                or account.quoted == self._server.account
                or is_proxy
                or rights.is_given(account.user, account.host)
                or not held
                or any(not right.reaches(own) or any(map(right.reaches, others)) for right in held)
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


def _only_read(held: set[Right]) -> bool:
    return {right.privilege for right in held} <= {*READS}
