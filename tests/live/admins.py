"""The accounts that may do everything on a server of the tests, and the guard that keeps dbvalet off them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from urllib.parse import unquote

from engines.address import Address
from engines.engine import Engine as AnyEngine
from engines.engine import Memory, Server
from tests.live.images import Engine

ADMIN_PASSWORD = "pass/word:of@the#admin"
ADMINS: dict[Engine, str] = {"postgresql": "postgres", "mysql": "root", "mongodb": "root", "influxdb": "root"}

_ACCOUNT = re.compile(r"://([^:@/]+):([^@/]+)@")
_reasons: list[str] = []


class AdminUsed(AssertionError):
    """A dbvalet under test is to log in as an administrator, and its test does not say why."""


@contextmanager
def as_admin(reason: str) -> Iterator[None]:
    """Let a dbvalet be given an administrator's account in this block, and say why no smaller one would do."""
    assert reason.strip()
    _reasons.append(reason)
    try:
        yield
    finally:
        _reasons.pop()


def refuse_admins(text: str) -> None:
    """Look through a URL, or whatever holds some, for an administrator's account.

    Raises: AdminUsed
    """
    accounts = ((unquote(user), unquote(password)) for user, password in _ACCOUNT.findall(text))
    if not _reasons and any(user in ADMINS.values() and password == ADMIN_PASSWORD for user, password in accounts):
        raise AdminUsed(
            "a dbvalet under test has the account of tests.live.accounts.account_on(…), so that what it does is known"
            ' to need no more; where it must be an administrator\'s, say so: with as_admin("why"): …'
        )


def guard_connections() -> None:
    """Let no Server of this process be made with an administrator's account."""
    connect = AnyEngine.connect

    @wraps(connect)
    def guarded(self: AnyEngine, address: Address, memory: Memory | None = None) -> Server:
        refuse_admins(address.url)
        return connect(self, address, memory)

    AnyEngine.connect = guarded
