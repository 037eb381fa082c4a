"""The fake engine's users."""

from engines.health import Lack
from engines.users import User
from tests.fakes.driver import FakeServer


class FakeUsers:
    """Raises the server's `problem`; what it holds is the server's `users`."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    async def all(self) -> list[User]:
        await self._server.perform("list-users")
        return sorted(self._server.users.values(), key=lambda user: user.name)

    async def create(self, name: str, password: str, *, read_only: bool) -> None:
        await self._server.perform(f"create-user {name}")
        self._server.passwords[name] = password
        self._server.users[name] = User(name=name, read_only=read_only, protected=False)
        self._server.end()

    async def set_password(self, name: str, password: str) -> None:
        await self._server.perform(f"set-password {name}")
        self._server.passwords[name] = password
        self._server.end()

    async def lacking(self) -> list[Lack]:
        return [
            Lack(name=each, remedy=f"GRANT {each}") for each in ("userright",) if not await self._server.check(each)
        ]

    async def delete(self, name: str) -> None:
        await self._server.perform(f"delete-user {name}")
        del self._server.users[name]
        self._server.end()
