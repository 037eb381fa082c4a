"""Which faults there are, which of them a pair of engine and action meets, and why it does not meet the others.

Imports no driver and starts nothing, so that the table can be held against the catalogue without a server.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from engines.action import Effect
from engines.engine import installed_engines
from tests.live.images import ENGINES, Engine


class Fault(StrEnum):
    """What goes wrong. The value is the heading of its column."""

    DOWN = "down"
    KILLED = "killed"
    CUT = "cut"
    DIES_BEFORE = "dies before"
    DIES_DURING = "dies during"
    DIES_AFTER = "dies after"
    FROZEN = "frozen"
    FREEZES = "freezes"
    READ_ONLY = "read-only"
    DISK_FULL = "disk full"
    REVOKED = "revoked"
    REVOKED_MIDWAY = "revoked midway"
    STATE_FULL = "state full"


MEANING = {
    Fault.DOWN: "the engine was killed before the request",
    Fault.KILLED: "the engine is killed (SIGKILL) when it has got the statement",
    Fault.CUT: "the connection is cut when the engine has got the statement, and its answer is lost",
    Fault.DIES_BEFORE: "dbvalet is killed (SIGKILL) before the effect",
    Fault.DIES_DURING: "dbvalet is killed during it",
    Fault.DIES_AFTER: "dbvalet is killed after it",
    Fault.FROZEN: "the engine was frozen (SIGSTOP) before the request",
    Fault.FREEZES: "the engine freezes just before it gets the statement",
    Fault.READ_ONLY: "the engine takes no changes",
    Fault.DISK_FULL: "the engine's disk is full",
    Fault.REVOKED: "the privilege is revoked after a dry run, or a read, that went well",
    Fault.REVOKED_MIDWAY: "the privileges are revoked when the engine has got the statement, and its answer is lost",
    Fault.STATE_FULL: "the disk with dbvalet's own state and audit is full",
}

READS_BEGIN_NOTHING = "A read begins nothing: nothing is left of one that its dbvalet did not live to answer."
READS_WRITE_NOTHING = "A read writes nothing to the engine's disk."
NO_READ_ONLY_MODE = "InfluxDB 1.x has no read-only mode."
NO_PRIVILEGE = "It takes no privilege beside that to log in."

OF_CHANGES = {
    Fault.DIES_BEFORE: READS_BEGIN_NOTHING,
    Fault.DIES_DURING: READS_BEGIN_NOTHING,
    Fault.DIES_AFTER: READS_BEGIN_NOTHING,
    Fault.DISK_FULL: READS_WRITE_NOTHING,
}
"""Faults that reads do not meet, and why."""

EVERYWHERE = {("influxdb", Fault.READ_ONLY): NO_READ_ONLY_MODE}

WITHOUT_PRIVILEGE = {("postgresql", "list-extensions"), ("mysql", "get-sqlmode")}


@dataclass(frozen=True)
class Pair:
    """An action of an engine."""

    engine: Engine
    action: str
    effect: Effect

    def __str__(self) -> str:
        return f"{self.engine} {self.action}"


@dataclass(frozen=True)
class Scenario:
    """One fault, met by one action."""

    pair: Pair
    fault: Fault

    def __str__(self) -> str:
        return f"{self.pair.action}-{self.fault}".replace(" ", "-")


def pairs() -> list[Pair]:
    """Give every pair of the catalogue, as the engines themselves have it."""
    engines = installed_engines()
    return [
        Pair(engine, action.name, action.effect) for engine in ENGINES for action in engines[engine].actions.values()
    ]


def why_not(pair: Pair, fault: Fault) -> str | None:
    """Say why an action does not meet a fault; None when it does."""
    if pair.effect is Effect.READ and fault in OF_CHANGES:
        return OF_CHANGES[fault]
    if fault in (Fault.REVOKED, Fault.REVOKED_MIDWAY) and (pair.engine, pair.action) in WITHOUT_PRIVILEGE:
        return NO_PRIVILEGE
    return EVERYWHERE.get((pair.engine, fault))


def scenarios(engine: Engine) -> Iterator[Scenario]:
    """Give what is tried on an engine."""
    for pair in pairs():
        if pair.engine == engine:
            for fault in Fault:
                if why_not(pair, fault) is None:
                    yield Scenario(pair, fault)


SHORT = {
    ("postgresql", "pg-cancel-query", Fault.CUT),
    ("postgresql", "pg-stat-statements-enable", Fault.STATE_FULL),
    ("postgresql", "pg-terminate-query", Fault.KILLED),
    ("mongodb", "delete-database", Fault.CUT),
    ("mongodb", "reset-database", Fault.DISK_FULL),
    ("influxdb", "add-retention-policy", Fault.DOWN),
    ("influxdb", "del-retention-policy", Fault.CUT),
}
"""The share of every run of the live tests; MySQL takes too long to start."""


def is_short(scenario: Scenario) -> bool:
    """Tell whether a scenario is tried in every run."""
    return (scenario.pair.engine, scenario.pair.action, scenario.fault) in SHORT
