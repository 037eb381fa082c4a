"""Users of one logical database of MongoDB: they are kept in it, and read or write that one alone."""

from __future__ import annotations

from typing import Any

from engines.errors import PrivilegeMissing
from engines.health import Lack
from engines.mongodb.grants import ENDS_SESSIONS, USER_ACTIONS, user_remedy
from engines.mongodb.requirements import ANY_COLLECTION, CLUSTER, met
from engines.mongodb.server import MongoServer
from engines.users import User

READS, WRITES = "read", "readWrite"


class MongoUsers:
    """Users of one MongoDB deployment."""

    def __init__(self, server: MongoServer) -> None:
        self._server = server
        self._database = server.address.database

    async def all(self) -> list[User]:
        """List the users that are kept in the deployment's logical database.

        Raises: PrivilegeMissing, EngineUnavailable, DeadlineExceeded
        """
        try:
            reply = await self._server.read(self._database, {"usersInfo": 1})
        except PrivilegeMissing as refused:
            raise self._missing() from refused
        return sorted((self._shown(each) for each in reply["users"]), key=lambda user: user.name)

    async def create(self, name: str, password: str, *, read_only: bool) -> None:
        """Make a user that reads all of the logical database, and writes it unless it is to be read-only.

        Raises: PrivilegeMissing, EngineUnavailable
        """
        role = {"role": READS if read_only else WRITES, "db": self._database}
        await self._write({"createUser": name, "pwd": password, "roles": [role]})

    async def set_password(self, name: str, password: str) -> None:
        """Give a user a password.

        Raises: PrivilegeMissing, EngineUnavailable
        """
        await self._write({"updateUser": name, "pwd": password})

    async def delete(self, name: str) -> None:
        """End what the sessions of a user are doing, then take it away: its connections are nobody's from then on.

        Raises: UserNotFound, PrivilegeMissing, EngineUnavailable
        """
        try:
            # Not as a write: this command takes no write concern. It has to know the user.
            await self._server.read("admin", {"killAllSessions": [{"user": name, "db": self._database}]})
        except PrivilegeMissing as refused:
            raise self._missing() from refused
        await self._write({"dropUser": name})

    async def lacking(self) -> list[Lack]:
        """Look what the account lacks to manage users.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        own = {"db": self._database, "collection": ""}
        remedy = user_remedy(self._server.address.user or "valet", self._database)
        lacks = [
            Lack(name=action, remedy=remedy)
            for action in USER_ACTIONS
            if not (await met(action, own)(self._server) or await met(action, ANY_COLLECTION)(self._server))
        ]
        if not await met(ENDS_SESSIONS, CLUSTER)(self._server):
            lacks.append(Lack(name=ENDS_SESSIONS, remedy=remedy))
        return lacks

    async def _write(self, command: dict[str, Any]) -> None:
        try:
            await self._server.write(self._database, command)
        except PrivilegeMissing as refused:
            raise self._missing() from refused

    def _shown(self, found: dict[str, Any]) -> User:
        roles = {(each["role"], each["db"]) for each in found["roles"]}
        ours = {(READS, self._database), (WRITES, self._database)}
        return User(
            name=found["user"],
            read_only=roles <= {(READS, self._database)},
            protected=found["user"] == self._server.address.user or not roles or not roles <= ours,
            password_encryption=", ".join(sorted(found.get("mechanisms", []))) or None,
        )

    def _missing(self) -> PrivilegeMissing:
        user = self._server.address.user or ""
        return PrivilegeMissing(
            f"The engine account may not manage users. Remedy: {user_remedy(user, self._database)}",
            privilege="createUser",
        )
