"""The fake engine's server: it answers, fails, blocks or hangs as a test tells it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from engines.address import Address
from engines.engine import Description, Engine, Feature, Memory, PoolUse
from engines.users import User

if TYPE_CHECKING:
    from tests.fakes.actions import Thing

STARTED = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


STAND_INS: dict[str, Engine] = {}
"""Engines, by the scheme of their URLs, that are served by this server in place of their own."""


@dataclass
class Gate:
    """Holds whoever passes until it is opened, and tells who stands before it."""

    waiting: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def passed(self) -> None:
        self.waiting += 1
        try:
            await self.open.wait()
        finally:
            self.waiting -= 1


@dataclass
class FakeBackupControls:
    """How the fake engine's backups behave; `done` is what was done, in order."""

    missing: list[str] = field(default_factory=list[str])
    missing_problem: Exception | None = None
    gates: "dict[str, Gate]" = field(default_factory=dict[str, Gate])
    """Before `dump`, `restore` or `swap`, the moment in which a restore has begun to change things."""
    problems: dict[str, Exception] = field(default_factory=dict[str, Exception])
    """Raised by `dump`, `verify`, `restore`, `swap` or `clean_up`."""
    padding: int = 0
    """Bytes of noise in each dump."""
    half_done: bool = False
    """Whether a restore was cut off and not cleaned up."""
    clean_up_seconds: float = 0
    """How long it takes; one that is stopped begins anew."""
    done: list[str] = field(default_factory=list[str])


@dataclass
class FakeRecoveryControls:
    """What the fake cluster is, and how its recovery behaves; `done` is what was done, in order."""

    up: bool = True
    shuts_down_later: bool = False
    """A stop that fails has told the server to stop all the same: it ends when it is waited for."""
    archives_at_the_stop: bool = True
    content: str = "last"
    """`last`, or the instant that was brought back, or `half` while a restore is under way."""
    timeline: int = 1
    wal_at: str = "0/100"
    missing: list[str] = field(default_factory=list[str])
    older_sets: list[str] = field(default_factory=list[str])
    """Labels, newest first, behind `F`."""
    problems: dict[str, list[BaseException | None]] = field(default_factory=dict[str, list[BaseException | None]])
    """What each call of a step raises, one after another."""
    gates: dict[str, Gate] = field(default_factory=dict[str, Gate])
    done: list[str] = field(default_factory=list[str])

    async def passed(self, step: str) -> None:
        self.done.append(step)
        if step in self.gates:
            await self.gates[step].passed()
        planned = self.problems.get(step)
        if planned and (problem := planned.pop(0)) is not None:
            raise problem


class FakeServer:
    """`things` is what it holds; `performed` what was done on it, in order."""

    def __init__(self, address: Address, memory: Memory) -> None:
        self.address = address
        self.memory = memory
        self.things: dict[str, str] = {"first": "blue"}
        self.performed: list[str] = []
        self.problem: BaseException | None = None
        """Raised by every action."""
        self.problems: dict[str, BaseException] = {}
        """Raised by those that are performed under a name."""
        self.problem_after: BaseException | None = None
        """Raised by an action that was carried out."""
        self.gate: Gate | None = None
        """Before every action."""
        self.gates: dict[str, Gate] = {}
        """Before those that are performed under a name."""
        self.described = 0
        self.description: Description | Exception = Description(
            version=(1, 2),
            readable_version="1.2.0",
            started_at=STARTED,
            resource_id="system-1",
            created_at=STARTED,
            features=(Feature(name="shiny"),),
            replica_set="rs0",
        )
        self.describe_gate: Gate | None = None
        self.put_back: list[Description] = []
        """With what `restarted` was called."""
        self.put_back_problem: Exception | None = None
        self.put_back_gate: Gate | None = None
        self.unmet: set[str] = set()
        """Requirements that are not met."""
        self.check_problem: Exception | None = None
        self.check_gate: Gate | None = None
        self.pool = PoolUse(open=2, in_use=1, limit=4)
        self.backups = FakeBackupControls()
        self.recovery = FakeRecoveryControls()
        self.users = {
            "self-hosted": User(name="self-hosted", read_only=False, protected=False),
            "valet": User(name="valet", read_only=False, protected=True, password_encryption="SCRAM-SHA-256"),
        }
        self.passwords: dict[str, str] = {}
        self.closed = False
        self.close_problem: Exception | None = None
        self.close_gate: Gate | None = None
        self.result: Any = None
        """What `odd-result` gives."""
        self.now: Callable[[], str] = lambda: "now"

    @property
    def engine(self) -> Engine:
        from tests.fakes import ENGINE

        return STAND_INS.get(self.address.scheme, ENGINE)

    async def perform(self, what: str) -> None:
        """Stand in for a round trip."""
        if self.gate is not None:
            await self.gate.passed()
        if what in self.gates:
            await self.gates[what].passed()
        if self.problem is not None:
            raise self.problem
        if what in self.problems:
            raise self.problems[what]
        self.performed.append(what)

    def end(self) -> None:
        """Stand in for the way of the answer."""
        if self.problem_after is not None:
            raise self.problem_after

    def list_things(self) -> "list[Thing]":
        return [{"name": name, "colour": colour} for name, colour in sorted(self.things.items())]

    async def check(self, requirement: str) -> bool:
        if self.check_gate is not None:
            await self.check_gate.passed()
        if self.check_problem is not None:
            raise self.check_problem
        return requirement not in self.unmet

    async def describe(self) -> Description:
        self.described += 1
        if self.describe_gate is not None:
            await self.describe_gate.passed()
        if isinstance(self.description, Exception):
            raise self.description
        return self.description

    async def restarted(self, description: Description) -> None:
        if self.put_back_gate is not None:
            await self.put_back_gate.passed()
        if self.put_back_problem is not None:
            raise self.put_back_problem
        self.put_back.append(description)

    def pool_use(self) -> PoolUse:
        return self.pool

    async def close(self) -> None:
        if self.close_gate is not None:
            await self.close_gate.passed()
        if self.close_problem is not None:
            raise self.close_problem
        self.closed = True
