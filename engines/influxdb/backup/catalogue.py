"""What there is in a logical database, and how its points are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as by_default
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from engines.influxdb.backup.connection import Connection, Series
from engines.influxdb.influxql import identifier, read_duration

FIRST_TIME, LAST_TIME = -(2**63) + 2, 2**63 - 2
"""Nanoseconds: the earliest and the latest time that a point can have."""

MOST_ROWS, FEWEST_ROWS = 2000, 10
VALUES_AT_A_TIME = 40_000
STRING_COUNTS_AS = 300
"""Values: a string may have 64 KiB."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

READ_POINTS = "SELECT *::field FROM %s WHERE time >= %d AND time <= %d GROUP BY *"

COUNT_VALUES = "SELECT count(*::field) FROM %s WHERE time >= %d AND time <= %d"

Interval = tuple[int, int]
"""First and last nanosecond."""

Counts = dict[str, dict[str, int]]
"""How many values there are, by measurement and field."""


class Place(NamedTuple):
    """Where points are."""

    database: str
    policy: str


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A retention policy; durations in nanoseconds, 0 for ever."""

    name: str
    duration: int
    shard_duration: int
    replication: int
    default: bool


@dataclass(frozen=True, kw_only=True)
class ContinuousQuery:
    """A continuous query."""

    name: str
    statement: str
    """Which makes it; it names the logical database."""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What a user may do in the logical database."""

    user: str
    privilege: str


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All of a logical database but its points."""

    policies: Sequence[Policy]
    continuous_queries: Sequence[ContinuousQuery] = ()
    grants: Sequence[Grant] = ()
    counts: Sequence[Counts] = by_default(default_factory=list[Counts])
    """For each policy."""


def databases(connection: Connection) -> set[str]:
    """List the names of all logical databases."""
    return {row["name"] for row in connection.ask("SHOW DATABASES").get("databases", [])}


def policies_of(connection: Connection, database: str) -> list[Policy]:
    """List the retention policies of a logical database."""
    return [
        Policy(
            name=row["name"],
            duration=read_duration(row["duration"]),
            shard_duration=read_duration(row["shardGroupDuration"]),
            replication=row["replicaN"],
            default=row["default"],
        )
        for row in connection.ask(f"SHOW RETENTION POLICIES ON {identifier(database)}").get("", [])
    ]


def continuous_queries_of(connection: Connection, database: str) -> list[ContinuousQuery]:
    """List the continuous queries of a logical database."""
    return [
        ContinuousQuery(name=row["name"], statement=row["query"])
        for row in connection.ask("SHOW CONTINUOUS QUERIES").get(database, [])
    ]


def grants_of(connection: Connection, database: str) -> list[Grant]:
    """List who may do what in a logical database; admins may do everything anyway."""
    return [
        Grant(user=user["user"], privilege=row["privilege"])
        for user in connection.ask("SHOW USERS").get("", [])
        for row in connection.ask(f"SHOW GRANTS FOR {identifier(user['user'])}").get("", [])
        if row["database"] == database
    ]


def shards_of(connection: Connection, database: str) -> list[int]:
    """List the ids of the shards of a logical database."""
    return [row["id"] for row in connection.ask("SHOW SHARDS").get(database, [])]


def intervals_of(connection: Connection, place: Place) -> list[Interval]:
    """Divide all time where shards of a policy begin or end.

    A field has one type in a shard, and may have another in the next. A query over both would give one type for all.
    """
    rows = [
        row for row in connection.ask("SHOW SHARDS").get(place.database, []) if row["retention_policy"] == place.policy
    ]
    if not rows:
        return []
    cuts = sorted({nanoseconds(row[end]) for row in rows for end in ("start_time", "end_time")})[1:-1]
    starts = [FIRST_TIME, *cuts]
    return [(start, end - 1) for start, end in zip(starts, [*cuts, LAST_TIME + 1], strict=True)]


def nanoseconds(text: str) -> int:
    """Read a time as the server writes it."""
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1) * 1000


def measurements_of(connection: Connection, place: Place) -> dict[str, int]:
    """List the measurements of a policy, with how many rows of each should be read at a time."""
    rows = connection.ask(f"SHOW FIELD KEYS ON {identifier(place.database)} FROM {identifier(place.policy)}./.*/")
    found: dict[str, int] = {}
    for name, fields in rows.items():
        weight = sum(STRING_COUNTS_AS if each["fieldType"] == "string" else 1 for each in fields)
        found[name] = min(max(VALUES_AT_A_TIME // weight, FEWEST_ROWS), MOST_ROWS)
    return found


def points_in(
    connection: Connection, place: Place, measurement: str, interval: Interval, chunk: int
) -> Iterator[Series]:
    """Read the points of a measurement within an interval, `chunk` rows at a time at most."""
    return connection.stream(READ_POINTS % (source(place, measurement), *interval), chunk)


def count(connection: Connection, place: Place, measurement: str) -> dict[str, int]:
    """Let the server count the values of a measurement, by field."""
    counts: dict[str, int] = {}
    for interval in intervals_of(connection, place):
        for series in connection.stream(COUNT_VALUES % (source(place, measurement), *interval), MOST_ROWS):
            for name, number in zip(series.fields, series.rows[0][1:], strict=True):
                field = name.removeprefix("count_")
                counts[field] = counts.get(field, 0) + (number or 0)
    return counts


def source(place: Place, measurement: str) -> str:
    """Name a measurement in a query."""
    return f"{identifier(place.database)}.{identifier(place.policy)}.{identifier(measurement)}"
