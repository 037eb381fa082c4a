"""Users of an InfluxDB 1.x server: those who have a privilege on the deployment's database and on no other."""

from __future__ import annotations

from engines.errors import EngineError, Precondition, PrivilegeMissing
from engines.health import Lack
from engines.influxdb.influxql import identifier, literal
from engines.influxdb.requirements import is_admin
from engines.influxdb.server import InfluxServer
from engines.users import User

READ = "READ"

NO_ACCOUNT = (
    "The url has no account: InfluxDB without authentication lets everybody write. Set auth-enabled = true"
    " in [http] of its configuration, make an administrator, and put it into the url."
)


class InfluxUsers:
    """Users of one InfluxDB database."""

    def __init__(self, server: InfluxServer) -> None:
        self._server = server

    async def all(self) -> list[User]:
        """List the users of the server.

        Raises: Precondition, when nobody has to log in; PrivilegeMissing, EngineUnavailable, DeadlineExceeded
        """
        if self._server.address.user is None:
            raise Precondition(NO_ACCOUNT)
        try:
            rows = (await self._server.read("SHOW USERS")).get("", [])
            users = [await self._shown(str(each["user"]), is_admin=bool(each["admin"])) for each in rows]
        except PrivilegeMissing as refused:
            raise self._missing() from refused
        return sorted(users, key=lambda user: user.name)

    async def create(self, name: str, password: str, *, read_only: bool) -> None:
        """Make a user that reads the deployment's database, and writes it unless it is to be read-only.

        Raises: Precondition, when a reader could write; PrivilegeMissing, EngineUnavailable
        """
        if read_only:
            await self._refuse_continuous_queries()
        await self._write(f"CREATE USER {identifier(name)} WITH PASSWORD {literal(password)}")
        privilege = READ if read_only else "ALL"
        try:
            await self._write(f"GRANT {privilege} ON {identifier(self._server.address.database)} TO {identifier(name)}")
        except EngineError:
            await self._write(f"DROP USER {identifier(name)}")
            raise

    async def set_password(self, name: str, password: str) -> None:
        """Give a user a password.

        Raises: PrivilegeMissing, EngineUnavailable
        """
        await self._write(f"SET PASSWORD FOR {identifier(name)} = {literal(password)}")

    async def delete(self, name: str) -> None:
        """Take a user away: each of its requests brings the password, so there is no session to end.

        Raises: PrivilegeMissing, EngineUnavailable
        """
        await self._write(f"DROP USER {identifier(name)}")

    async def lacking(self) -> list[Lack]:
        """Look what the account lacks to manage users.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        if self._server.address.user is None:
            return [Lack(name="auth-enabled", remedy=NO_ACCOUNT)]
        if await is_admin(self._server):
            return []
        return [Lack(name="ALL PRIVILEGES", remedy=self._remedy())]

    async def _refuse_continuous_queries(self) -> None:
        """InfluxDB 1.x lets whoever reads a database make a continuous query on it, which then writes as the server."""
        diagnostics = await self._server.read("SHOW DIAGNOSTICS")
        if diagnostics.get("config-cqs", [{"enabled": True}])[0]["enabled"]:
            raise Precondition(
                "A user who only reads could write by a continuous query, which InfluxDB 1.x lets every reader make:"
                " set enabled = false in [continuous_queries] of its configuration, and restart it."
            )

    async def _write(self, statement: str) -> None:
        try:
            await self._server.write(statement)
        except PrivilegeMissing as refused:
            raise self._missing() from refused

    async def _shown(self, name: str, *, is_admin: bool) -> User:
        rows = (await self._server.read(f"SHOW GRANTS FOR {identifier(name)}")).get("", [])
        held = {(str(each["database"]), str(each["privilege"])) for each in rows}
        held = {each for each in held if each[1] != "NO PRIVILEGES"}
        own = self._server.address.database
        return User(
            name=name,
            read_only=not is_admin and {privilege for _, privilege in held} <= {READ},
            protected=is_admin
            or name == self._server.address.user
            or not held
            or any(database != own for database, _ in held),
        )

    def _missing(self) -> PrivilegeMissing:
        return PrivilegeMissing(
            f"Only an administrator of InfluxDB manages users. Remedy: {self._remedy()}", privilege="ALL PRIVILEGES"
        )

    def _remedy(self) -> str:
        return f"GRANT ALL PRIVILEGES TO {identifier(self._server.address.user or '')}"
