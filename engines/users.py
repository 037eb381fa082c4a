"""Database users: what is known of one, and what every engine asks of a new one.

What an engine does is a `Users`; `create_user`, `change_password` and `delete_user` are the one way to it: they look
first, refuse what is protected, and read the engine again before they say that it is done.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from engines.errors import AlreadyExists, Conflict, InvalidParams, PrivilegeMissing, Protected, UserNotFound

if TYPE_CHECKING:
    from engines.health import Lack

T = TypeVar("T")

NAME_LENGTH = range(6, 33)
PASSWORD_LENGTH = range(24, 65)

# Letters and digits only: such a password stands in a connection URL without being escaped.
ALPHABET = string.ascii_letters + string.digits

NAME_PATTERN = "^[A-Za-z][A-Za-z0-9_-]{5,31}$"
_SYSTEM = re.compile("pg_.*|postgres", re.IGNORECASE)
"""Names of system accounts that would otherwise do; those of the other engines hold a dot or are shorter."""


@dataclass(frozen=True, slots=True)
class User:
    """One account of an engine; `password_encryption` is None where the engine does not tell it."""

    name: str
    read_only: bool
    protected: bool
    password_encryption: str | None = None


class Users(Protocol):
    """The engine's side. Each raises EngineUnavailable, DeadlineExceeded or PrivilegeMissing, which names the GRANT."""

    async def all(self) -> list[User]:
        """Give every account that can log in and has to do with the deployment, in the order of names."""
        ...

    async def create(self, name: str, password: str, *, read_only: bool) -> None:
        """Make an account, whole or not at all.

        Raises: AlreadyExists; Precondition, when it could write though it is to be read-only
        """
        ...

    async def set_password(self, name: str, password: str) -> None:
        """Give an account a password."""
        ...

    async def delete(self, name: str) -> None:
        """End the sessions of an account and take it away.

        Raises: Conflict, when it owns something
        """
        ...

    async def lacking(self) -> list[Lack]:
        """Tell what the engine account lacks to manage users, as far as its privileges show it."""
        ...


def made_password() -> str:
    """Make a password of 64 letters and digits that nobody has seen."""
    return "".join(secrets.choice(ALPHABET) for _ in range(PASSWORD_LENGTH[-1]))


def check_name(name: str) -> None:
    """Raises: InvalidParams, when no new user may be called so."""
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise InvalidParams(
            {"name": ["must have 6 to 32 ASCII letters, digits, _ and -, and begin with a letter"]},
        )
    if _SYSTEM.fullmatch(name):
        raise InvalidParams({"name": ["is that of a system account, or as those begin"]})


def check_password(password: str) -> None:
    """Raises: InvalidParams, when a client may not choose this password."""
    if len(password) not in PASSWORD_LENGTH:
        raise InvalidParams({"password": ["must have 24 to 64 characters"]})
    if not (password.isascii() and password.isprintable()):
        raise InvalidParams({"password": ["must be of printable ASCII characters"]})


async def find_user(users: Users, name: str) -> User:
    """Find a user by the exact name.

    Raises: UserNotFound
    """
    found = next((user for user in await users.all() if user.name == name), None)
    if found is None:
        raise UserNotFound
    return found


async def _nothing() -> None:
    return


Begin = Callable[[], Awaitable[None]]
"""Called when all that refuses has been looked at, just before the engine is asked to change something."""


async def create_user(users: Users, name: str, password: str, *, read_only: bool, begin: Begin = _nothing) -> User:
    """Make a user, and give it as the engine shows it then.

    Raises: InvalidParams, AlreadyExists, Conflict, and as `Users`
    """
    check_name(name)
    check_password(password)
    if any(user.name.lower() == name.lower() for user in await users.all()):
        raise AlreadyExists("There is a user of this name.")
    await begin()
    await users.create(name, password, read_only=read_only)
    try:
        made = await _seen(find_user(users, name))
    except UserNotFound:
        raise Conflict("The user was created, and is gone: somebody deleted it at once.") from None
    if made.read_only is not read_only:
        raise Conflict("The user was created, and the engine shows it with other rights than asked for: delete it.")
    return made


async def change_password(users: Users, name: str, password: str, *, begin: Begin = _nothing) -> User:
    """Give a user another password, and give it as the engine shows it then.

    Raises: InvalidParams, UserNotFound, Protected, and as `Users`
    """
    check_password(password)
    await _unprotected(users, name)
    await begin()
    await users.set_password(name, password)
    return await _seen(find_user(users, name))


async def delete_user(users: Users, name: str, *, begin: Begin = _nothing) -> None:
    """Take a user away, its sessions first.

    Raises: UserNotFound, Protected, Conflict, and as `Users`
    """
    await _unprotected(users, name)
    await begin()
    await users.delete(name)
    if any(user.name == name for user in await _seen(users.all())):
        raise Conflict("The user was deleted and is there again: somebody made it anew.")


async def _seen(look: Awaitable[T]) -> T:
    """Look after a change: a refusal of that is none of the change, which the engine has acknowledged."""
    try:
        return await look
    except PrivilegeMissing as blind:
        raise Conflict(
            f"The engine said that it is done, but the account may not look whether it is: {blind.message}"
        ) from blind


async def _unprotected(users: Users, name: str) -> None:
    if (await find_user(users, name)).protected:
        raise Protected("This user is protected: it is dbvalet's own, the system's, or has more rights than a user.")
