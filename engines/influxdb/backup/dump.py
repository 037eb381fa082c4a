"""Write a logical database into files."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from engines.address import Address
from engines.backup import Manifest, Progress, write_manifest
from engines.errors import BackupFailed, Conflict
from engines.influxdb.backup.catalogue import (
    Contents,
    Counts,
    Place,
    Policy,
    continuous_queries_of,
    databases,
    grants_of,
    intervals_of,
    measurements_of,
    points_in,
    policies_of,
)
from engines.influxdb.backup.connection import SILENCE_SECONDS, Connection, in_thread
from engines.influxdb.backup.files import PointsFile, Writer, points_of, write_contents
from engines.influxdb.backup.journal import is_ours, temporary_name
from engines.influxdb.backup.lines import points_of as lines_of
from engines.threads import in_own_thread

NOT_OF_ONE_INSTANT = (
    "Not of one point in time, which InfluxDB 1.x cannot give: points written while the backup was made may be in it "
    "or not."
)
ACCOUNTS = "Users, their passwords and subscriptions are not in it. A restore leaves them as they are."


async def dump(address: Address, folder: Path, progress: Progress) -> Manifest:
    """Write every retention policy with its points, the continuous queries and the grants.

    Raises: BackupFailed, Conflict, EngineUnavailable, PrivilegeMissing, OSError
    """
    try:
        version = await in_thread(address, progress, lambda connection: _dump(connection, folder))
        return await write_manifest(
            folder,
            engine="influxdb",
            flavour=None,
            readable_version=version,
            database=address.database,
            tool="line protocol over HTTP",
            notes=[NOT_OF_ONE_INSTANT, ACCOUNTS],
        )
    except BaseException:
        await in_own_thread(_empty, folder)
        raise


def _dump(connection: Connection, folder: Path) -> str:
    database = connection.database
    there = databases(connection)
    if is_ours(connection, temporary_name(database), there):
        raise Conflict("A restore was interrupted here; finish or undo it first (clean up).")
    if database not in there:
        raise BackupFailed("The logical database of this deployment's URL does not exist in InfluxDB.")
    contents = Contents(
        policies=policies_of(connection, database),
        continuous_queries=continuous_queries_of(connection, database),
        grants=grants_of(connection, database),
    )
    counts: list[Counts] = []
    for number, policy in enumerate(contents.policies):
        share = 1 / len(contents.policies)
        with points_of(folder, number).open("wb") as file:
            counts.append(_dump_policy(connection, policy, PointsFile(file), number * share, share))
    write_contents(folder, replace(contents, counts=counts))
    connection.progress(95, "checksums")
    version, _ = connection.version_and_clock(time.monotonic() + SILENCE_SECONDS)
    return version


def _dump_policy(connection: Connection, policy: Policy, file: PointsFile, begun: float, share: float) -> Counts:
    place = Place(connection.database, policy.name)
    measurements = measurements_of(connection, place)
    intervals = intervals_of(connection, place)
    counts: Counts = {}
    writer = Writer()
    steps = max(len(measurements) * len(intervals), 1)
    step = 0
    for measurement, chunk in measurements.items():
        of_fields = counts.setdefault(measurement, {})
        for interval in intervals:
            step += 1
            for series in points_in(connection, place, measurement, interval, chunk):
                for line, there in lines_of(series):
                    for each in there:
                        of_fields[series.fields[each]] = of_fields.get(series.fields[each], 0) + 1
                    if (block := writer.add(line)) is not None:
                        file.write(*block)
            connection.progress(95 * (begun + share * step / steps), f"points of {measurement} in {policy.name}")
    if (block := writer.rest()) is not None:
        file.write(*block)
    file.end()
    return counts


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
