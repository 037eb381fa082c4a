"""What an engine offers to the service, and the one way to run an action on a server.

Engine ── connect(url) ──> Server ── perform(server, action, params) ──> result
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from importlib.metadata import entry_points
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from engines import deadline
from engines.action import Action
from engines.address import Address
from engines.errors import Conflict, DeadlineExceeded, EngineError, Precondition, PrivilegeMissing
from engines.versions import Versions

if TYPE_CHECKING:
    from engines.backup import Backups
    from engines.health import Health
    from engines.preview import Preview
    from engines.recovery import Recovery, RecoverySettings
    from engines.users import Users


class Memory(Protocol):
    """A few values that a server needs kept across restarts of dbvalet (JSON values, by key, for one database)."""

    async def recall(self, key: str) -> Any:
        """Give the value, or None."""
        ...

    async def remember(self, key: str, value: Any) -> None:
        """Keep the value; durable when this returns."""
        ...


class ForgetfulMemory:
    """Keeps values as long as the process lives: for use as a library and for tests."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    async def recall(self, key: str) -> Any:
        """Give the value, or None."""
        return self._values.get(key)

    async def remember(self, key: str, value: Any) -> None:
        """Keep the value until the process ends."""
        self._values[key] = value


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A privilege or a server setting that actions need."""

    name: str
    met: Callable[[Any], Awaitable[bool]]
    """Asks the live server: `await met(server)`."""
    remedy: Callable[[Any], str]
    """The exact GRANT or setting to apply, for this server's account: `remedy(server)`."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """Something that is switched on on the server, in the words of the documented API."""

    name: str
    status: str = "ACTIVATED"


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the live server says of itself."""

    version: tuple[int, ...]
    readable_version: str
    started_at: datetime
    """When the server process started, by the server's clock: a change means it was restarted."""
    resource_id: str | None = None
    """What the engine calls itself for good (a system identifier, a server UUID), where it has such a thing."""
    instance: str | None = None
    """What tells this server from every other one as long as it runs, by whatever address it is reached."""
    created_at: datetime | None = None
    features: tuple[Feature, ...] = ()
    replica_set: str | None = None


@dataclass(frozen=True, kw_only=True)
class PoolUse:
    """Connections of one server: open ones, those of them at work, and the bound."""

    open: int
    in_use: int
    limit: int


class Server(Protocol):
    """The live side of one database. Made without touching the network; connects when first needed."""

    @property
    def engine(self) -> Engine:
        """The engine whose server this is."""
        ...

    @property
    def address(self) -> Address:
        """Where it is, and as whom dbvalet logs in."""
        ...

    async def describe(self) -> Description:
        """Ask the server what it is.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        ...

    async def restarted(self, description: Description) -> None:
        """Put back what the server forgets when it restarts; called when a new `started_at` was seen."""
        ...

    def pool_use(self) -> PoolUse:
        """Count connections without waiting."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One kind of database server. Its actions are whatever its package's modules declare."""

    name: str
    """Stable id, also the provider id of the documented API: `postgresql`."""
    title: str
    """How people write it: `PostgreSQL`."""
    schemes: tuple[str, ...]
    default_port: int
    package: str
    """Where its actions are: every module of it is searched, but `driver`, the one that imports the driver."""
    server: str
    """`module:Class` of its Server, imported when a server is first made."""
    requirements: Mapping[str, Requirement]
    grants: Callable[[GrantsFor], str]
    """Writes the script that makes a least-privilege account."""
    backups: str | None = None
    """`module:Class` of its Backups, made from a Server; None where it has none."""
    recovery: str | None = None
    """`module:Class` of its Recovery, made from a Server and RecoverySettings; None where it has none."""
    health: str | None = None
    """`module:Class` of its Health, made from a Server; None where it tells nothing of itself."""
    users: str | None = None
    """`module:Class` of its Users, made from a Server; None where dbvalet manages none."""
    creates: str | None = None
    """The action that creates a logical database, `{"database_name": …}`; None where there is none."""
    versions: Mapping[str, Versions] = field(default_factory=dict[str, Versions])
    """Of its servers, those that it is made for, by its name or flavour; of one that is not named, nothing is said."""
    added: dict[str, Action] = field(default_factory=dict[str, Action])
    """Actions of other installed packages, see `installed_engines`."""

    @cached_property
    def actions(self) -> dict[str, Action]:
        """Every action of this engine by name, sorted."""
        package = importlib.import_module(self.package)
        found = dict(self.added)
        for info in pkgutil.iter_modules(package.__path__):
            if info.name != "driver":
                found |= actions_in(importlib.import_module(f"{self.package}.{info.name}"))
        return dict(sorted(found.items()))

    def connect(self, address: Address, memory: Memory | None = None) -> Server:
        """Make the Server of an address; it connects when first needed."""
        module, _, name = self.server.partition(":")
        return getattr(importlib.import_module(module), name)(address, memory or ForgetfulMemory())

    def backups_of(self, server: Server) -> Backups | None:
        """Make what dumps and restores the logical database of a server; None where the engine has no such thing."""
        if self.backups is None:
            return None
        module, _, name = self.backups.partition(":")
        return getattr(importlib.import_module(module), name)(server)

    def health_of(self, server: Server) -> Health | None:
        """Make what reads a server's counters and log and switches its features; None where there is no such thing."""
        if self.health is None:
            return None
        module, _, name = self.health.partition(":")
        return getattr(importlib.import_module(module), name)(server)

    def users_of(self, server: Server) -> Users | None:
        """Make what manages a server's database users; None where there is no such thing."""
        if self.users is None:
            return None
        module, _, name = self.users.partition(":")
        return getattr(importlib.import_module(module), name)(server)

    def recovery_of(self, server: Server, settings: RecoverySettings) -> Recovery | None:
        """Make what brings a server's whole cluster back to an instant; None where the engine has no such thing."""
        if self.recovery is None:
            return None
        module, _, name = self.recovery.partition(":")
        return getattr(importlib.import_module(module), name)(server, settings)


@dataclass(frozen=True, kw_only=True)
class GrantsFor:
    """For whom a grants script is written. Names are quoted by the engine's own rules."""

    user: str = "valet"
    database: str = "app"
    password: str | None = None
    """Without one the script sets none: that of an account that is there stays, and no new one can be logged in to."""
    flavour: str | None = None
    """A variant of the engine that needs other statements, `mariadb` for example."""
    version: tuple[int, ...] = ()
    """Of the server; () stands for the newest that is supported."""


def actions_in(module: ModuleType) -> dict[str, Action]:
    """Collect the actions that a module declares."""
    return {value.name: value for value in vars(module).values() if isinstance(value, Action)}


def installed_engines() -> dict[str, Engine]:
    """Find the engines of every installed package, by name.

    An entry point of the group `dbvalet.engines` names an `Engine`, or a module whose actions are added to the engine
    that its name begins with (`mysql.acme-tools`).
    """
    engines: dict[str, Engine] = {}
    additions: list[tuple[str, ModuleType]] = []
    for point in entry_points(group="dbvalet.engines"):
        loaded = point.load()
        if isinstance(loaded, ModuleType):
            additions.append((point.name.partition(".")[0], loaded))
        else:
            engines[point.name] = loaded
    for name, module in additions:
        engines[name].added.update(actions_in(module))
    return engines


def engine_for(scheme: str, engines: Mapping[str, Engine]) -> Engine | None:
    """Find the engine that answers to a URL scheme."""
    return next((engine for engine in engines.values() if scheme in engine.schemes), None)


EXPLAIN_SECONDS = 3.0
"""How long it may take, after a refusal, to find out which privilege is missing."""


async def perform(server: Server, action: Action, params: Any = None) -> Any:
    """Run an action within its deadline and give its result.

    The engine gets the deadline first, as its own limit; dbvalet's comes a moment later, for an engine that hangs.

    Raises: whatever the action raises, DeadlineExceeded, PrivilegeMissing naming the privilege and its GRANT
    """
    seconds = deadline.at_most(action.deadline)
    try:
        with deadline.within(seconds):
            async with asyncio.timeout(seconds + deadline.GRACE):
                return await action(server, params)
    except TimeoutError as late:
        told = f"{action.name} did not finish within {seconds:.3g} s: {deadline.awaited(late)} does not answer."
        if action.effect != "read":
            told += " Whether it was done is not known; look before trying again."
        raise DeadlineExceeded(told) from None
    except PrivilegeMissing as refused:
        if refused.privilege is not None:
            raise
        raise await _explained(server, action, refused) from refused


PREVIEW_SECONDS = 10.0
"""How long a dry run may take: no longer than a read."""


async def preview(server: Server, action: Action, params: Any = None) -> Preview:
    """Tell what an action would do, and change nothing.

    Raises: whatever the action would raise, in the same words; DeadlineExceeded; Precondition, when it has no preview
    """
    seconds = min(action.deadline, PREVIEW_SECONDS)
    try:
        with deadline.within(seconds):
            async with asyncio.timeout(seconds + deadline.GRACE):
                return await action.tried(server, params)
    except TimeoutError as late:
        raise DeadlineExceeded(
            f"The dry run of {action.name} did not finish within {seconds:g} s: {deadline.awaited(late)} does not "
            "answer. Nothing was changed."
        ) from None
    except PrivilegeMissing as refused:
        if refused.privilege is not None:
            raise
        raise await _explained(server, action, refused) from refused


LOOK_SECONDS = 5.0
"""How long it may take to find out what there is of what an action is about."""


async def look(server: Server, action: Action, params: Any) -> Sequence[str] | None:
    """Give what there is of what an action is about (see `Aftermath`); None where that cannot be told.

    Raises: EngineUnavailable, DeadlineExceeded
    """
    try:
        with deadline.within(LOOK_SECONDS):
            async with asyncio.timeout(LOOK_SECONDS + deadline.GRACE):
                if action.takes_params:
                    return await action.aftermath.look(server, params)
                return await action.aftermath.look(server)
    except TimeoutError as late:
        raise DeadlineExceeded(f"It cannot be seen what there is: {deadline.awaited(late)} does not answer.") from None
    except (PrivilegeMissing, Precondition):
        return None


async def _explained(server: Server, action: Action, refused: PrivilegeMissing) -> PrivilegeMissing:
    """Name the privileges that are missing, each with its remedy."""
    missing = await _explanation(server, action)
    return PrivilegeMissing(
        " ".join([f"The engine account lacks a privilege for {action.name}.", *missing])
        if missing
        else refused.message,
        privilege=", ".join(action.privileges) or None,
    )


async def _explanation(server: Server, action: Action) -> list[str]:
    """Find out which privileges are missing; nothing when the engine does not say so in time."""
    try:
        with deadline.within(EXPLAIN_SECONDS):
            async with asyncio.timeout(EXPLAIN_SECONDS + deadline.GRACE):
                return await lacking(server, action.privileges)
    except (EngineError, TimeoutError):
        return []  # that it was refused is true and known, whatever became of the engine since


def unseen(server: Server, blind: EngineError, privilege: str) -> EngineError:
    """Make the error of a change that the engine acknowledged and whose effect cannot be seen; `privilege` shows it.

    It is never PrivilegeMissing: that says that nothing was done, so that it may be asked for again.
    """
    said = f"{server.engine.title} said that it is done, but"
    if isinstance(blind, PrivilegeMissing):
        return Conflict(f"{said} the account may not look whether it is. Missing: {privilege}.")
    return type(blind)(f"{said} could not be asked again: {blind.message}")


async def require_privileges(server: Server, *names: str) -> None:
    """Refuse to go on unless the account meets these requirements; for a preview of what the engine itself refuses.

    Raises: PrivilegeMissing, which names nothing: `preview` does, as `perform` would
    """
    if await lacking(server, names):
        raise PrivilegeMissing


async def lacking(server: Server, names: tuple[str, ...]) -> list[str]:
    """Tell what of these requirements the live server does not meet, with the remedy for each."""
    reasons: list[str] = []
    for name in names:
        requirement = server.engine.requirements[name]
        if not await requirement.met(server):
            reasons.append(f"Missing: {name}. Remedy: {requirement.remedy(server)}")
    return reasons


async def unavailable(server: Server, action: Action, version: tuple[int, ...]) -> list[str]:
    """Tell why an action would be refused on this server as it is now; empty when it would run."""
    if version < action.minimum_version:
        needed = ".".join(str(part) for part in action.minimum_version)
        return [f"Needs {server.engine.title} {needed} or later."]
    return await lacking(server, action.privileges + action.settings)


async def require(server: Server, *names: str) -> None:
    """Refuse to go on unless the server's settings meet these requirements.

    Raises: Precondition
    """
    reasons = await lacking(server, names)
    if reasons:
        raise Precondition(" ".join(reasons))
