"""A fake engine at the edge of our own process, for tests of what stands between HTTP and an engine.

It is built as a real one is: `actions` declares, `driver` serves. What real drivers do is proven in `tests/live`.
"""

from dataclasses import replace

from engines.engine import Engine, GrantsFor, Requirement
from tests.fakes.driver import STAND_INS, FakeServer


async def _has_superpower(server: FakeServer) -> bool:
    return await server.check("superpower")


async def _is_preloaded(server: FakeServer) -> bool:
    return await server.check("preload")


def _remedy(server: FakeServer) -> str:
    return f"GRANT it TO {server.address.user}"


def _grants(wanted: GrantsFor) -> str:
    return f"CREATE ACCOUNT {wanted.user}"


ENGINE = Engine(
    name="fake",
    title="Fake",
    schemes=("fake", "fake+tls"),
    default_port=4321,
    package="tests.fakes",
    server="tests.fakes.driver:FakeServer",
    backups="tests.fakes.backups:FakeBackups",
    health="tests.fakes.health:FakeHealth",
    users="tests.fakes.users:FakeUsers",
    recovery="tests.fakes.recovery:FakeRecovery",
    requirements={
        "superpower": Requirement(name="superpower", met=_has_superpower, remedy=_remedy),
        "preload": Requirement(name="preload", met=_is_preloaded, remedy=_remedy),
    },
    grants=_grants,
)

BARE = replace(ENGINE, name="bare", title="Bare", schemes=("bare",), recovery=None, users=None, added={})
"""An engine that cannot be brought back to an instant."""

STAND_INS["bare"] = BARE
