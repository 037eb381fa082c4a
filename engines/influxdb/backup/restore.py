"""Bring a logical database back: load it into one of its own, check, then bring the real one to the same.

InfluxDB 1.x renames neither logical databases nor retention policies, and dropping a logical database takes grants and
subscriptions along. So the real one stays, and after the decision its points are dropped and copied anew from the
loaded ones, which are on the server: whoever comes later can do that too, as often as it takes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from secrets import token_hex

from engines.address import Address
from engines.backup import Progress
from engines.errors import BackupFailed, ConnectionLost, EngineError
from engines.influxdb.backup import journal
from engines.influxdb.backup.catalogue import (
    Contents,
    ContinuousQuery,
    Counts,
    Place,
    Policy,
    continuous_queries_of,
    count,
    databases,
    grants_of,
    intervals_of,
    measurements_of,
    points_in,
    policies_of,
    shards_of,
)
from engines.influxdb.backup.connection import Connection, Stopped, in_thread
from engines.influxdb.backup.files import Backup, Writer, blocks_in, points_of, read_backup
from engines.influxdb.backup.journal import temporary_name, temporary_policy
from engines.influxdb.backup.lines import points_of as lines_of
from engines.influxdb.influxql import FOR_EVER, identifier, show_duration

LOADED, COPIED = 55, 95
"""Percent."""

DECIDED, IN_PLACE, FRESH = "decided", "in_place", "fresh"
"""Steps in the journal; `fresh` says that there was no real logical database, so that it has no grants of its own."""


async def restore(address: Address, folder: Path, progress: Progress) -> list[str]:
    """Load a dump beside the old data, check it, and replace the old data by it.

    Raises: BackupDamaged, BackupFailed, Conflict, EngineUnavailable, PrivilegeMissing
    """
    backup = await read_backup(folder)
    return await in_thread(address, progress, lambda connection: _restore(connection, backup))


async def clean_up(address: Address) -> None:
    """Finish or undo an interrupted restore.

    Raises: BackupFailed, EngineUnavailable, PrivilegeMissing
    """
    await in_thread(address, lambda _, __: None, _settle)


def _restore(connection: Connection, backup: Backup) -> list[str]:
    _settle(connection)
    there = databases(connection)
    contents = backup.contents
    if backup.manifest.database != connection.database:
        contents = replace(contents, continuous_queries=[])
    run = token_hex(8)
    journal.begin(connection, contents, there, run)
    try:
        if connection.database not in there:
            journal.mark(connection, FRESH)
        _load(connection, backup)
        journal.require(connection, run)
        _decide(connection)
    except (EngineError, Stopped) as failure:
        _undo_after(connection, run, failure)
        raise
    # Without what was loaded, the points that are there would be dropped for nothing.
    journal.require(connection, run)
    refused = _finish(connection, contents)
    return [*_notes(connection, backup), *refused]


def _undo_after(connection: Connection, run: str, failure: Exception) -> None:
    """Take away what was loaded; when that fails too, the journal keeps it for `clean_up`, and the failure says so.

    Where another one has taken it over, what is there is that one's.
    """
    try:
        with connection.going_on():
            if journal.is_of(connection, run):
                _settle(connection)
    except EngineError as also:
        failure.add_note(f"What was loaded is still there and is cleaned up later: {also.message}")


def _settle(connection: Connection) -> None:
    """Finish an interrupted restore that had begun to replace, undo one that had not."""
    name = temporary_name(connection.database)
    if not journal.is_ours(connection, name, databases(connection)):
        return
    if journal.is_done(connection, DECIDED):
        _finish(connection, journal.contents(connection))
    else:
        connection.tell(f"DROP DATABASE {identifier(name)}")


def _load(connection: Connection, backup: Backup) -> None:
    name = temporary_name(connection.database)
    total, done = max(backup.points, 1), 0
    for number, policy in enumerate(backup.contents.policies):
        place = Place(name, temporary_policy(number))
        _create_policy(connection, name, _lasting(policy, place.policy))
        for block, points in blocks_in(points_of(backup.folder, number)):
            connection.write_points(place, block)
            done += points
            connection.progress(LOADED * done / total, f"points of {policy.name}")
        _check_counts(connection, place, backup.contents.counts[number])


def _decide(connection: Connection) -> None:
    """Say that there is no way back; look whether that was heard when its answer is lost."""
    try:
        journal.mark(connection, DECIDED)
    except ConnectionLost:
        if not journal.is_done(connection, DECIDED):
            raise


def _finish(connection: Connection, contents: Contents) -> list[str]:
    """Do what is left after the decision, of which any part may be done; tell what the server refused."""
    database = connection.database
    # Says nothing when it is there.
    connection.tell(f"CREATE DATABASE {identifier(database)}")
    if not journal.is_done(connection, IN_PLACE):
        _replace_points(connection, contents)
        journal.mark(connection, IN_PLACE)
    connection.progress(COPIED, "retention policies, continuous queries")
    for policy in contents.policies:
        _alter_policy(connection, database, policy)
    wanted = {policy.name for policy in contents.policies}
    for policy in policies_of(connection, database):
        if policy.name not in wanted:
            connection.tell(f"DROP RETENTION POLICY {identifier(policy.name)} ON {identifier(database)}")
    _drop_continuous_queries(connection)
    refused = [told for query in contents.continuous_queries if (told := _create(connection, query)) is not None]
    if journal.is_done(connection, FRESH):
        _grant(connection, contents)
    connection.tell(f"DROP DATABASE {identifier(temporary_name(database))}")
    return refused


def _create(connection: Connection, query: ContinuousQuery) -> str | None:
    """Make a continuous query. That a server takes it no more must not keep all the rest from coming back."""
    try:
        connection.tell(query.statement)
    except BackupFailed as refused:
        return f"The continuous query {query.name} did not come back: {refused.message} It was: {query.statement}"
    return None


def _replace_points(connection: Connection, contents: Contents) -> None:
    database, name = connection.database, temporary_name(connection.database)
    # They would write what they make of half the data.
    _drop_continuous_queries(connection)
    # Dropping shards alone leaves their series in the index that 1.x keeps in memory: a measurement stays listed, and a
    # later DROP MEASUREMENT misses points (seen with 1.6).
    connection.tell("DROP SERIES FROM /.*/")
    for shard in shards_of(connection, database):
        connection.tell(f"DROP SHARD {shard}")
    there = {policy.name for policy in policies_of(connection, database)}
    for number, policy in enumerate(contents.policies):
        # For ever at first: else the server would refuse points that are past their time, and none could be counted.
        lasting = _lasting(policy, policy.name)
        if policy.name in there:
            _alter_policy(connection, database, lasting)
        else:
            _create_policy(connection, database, lasting)
        share = (COPIED - LOADED) / len(contents.policies)
        connection.progress(LOADED + share * number, f"points of {policy.name} take their place")
        place = Place(database, policy.name)
        _copy(connection, Place(name, temporary_policy(number)), place)
        _check_counts(connection, place, contents.counts[number])


def _copy(connection: Connection, source: Place, target: Place) -> None:
    """Copy the points of a policy, through here: SELECT INTO would make all values of a field one type."""
    writer = Writer()
    for measurement, chunk in measurements_of(connection, source).items():
        for interval in intervals_of(connection, source):
            for series in points_in(connection, source, measurement, interval, chunk):
                for line, _ in lines_of(series):
                    if (block := writer.add(line)) is not None:
                        connection.write_points(target, block[0])
    if (block := writer.rest()) is not None:
        connection.write_points(target, block[0])


def _check_counts(connection: Connection, place: Place, wanted: Counts) -> None:
    """Let the server count what it has. More is fine: an application may write to the real logical database."""
    for measurement, of_fields in wanted.items():
        found = count(connection, place, measurement)
        for name, number in of_fields.items():
            if found.get(name, 0) < number:
                raise BackupFailed(
                    f"Of {number} values of the field {name} of {measurement}, {found.get(name, 0)} are there."
                )


def _lasting(policy: Policy, name: str) -> Policy:
    return Policy(
        name=name,
        duration=FOR_EVER,
        shard_duration=policy.shard_duration,
        replication=policy.replication,
        default=False,
    )


def _create_policy(connection: Connection, database: str, policy: Policy) -> None:
    connection.tell(f"CREATE RETENTION POLICY {_settings(database, policy)}")


def _alter_policy(connection: Connection, database: str, policy: Policy) -> None:
    connection.tell(f"ALTER RETENTION POLICY {_settings(database, policy)}")


def _settings(database: str, policy: Policy) -> str:
    # `DURATION 0` is a parse error in 1.6.
    duration = "INF" if policy.duration == FOR_EVER else show_duration(policy.duration)
    return (
        f"{identifier(policy.name)} ON {identifier(database)} DURATION {duration} REPLICATION {policy.replication} "
        f"SHARD DURATION {show_duration(policy.shard_duration)}{' DEFAULT' if policy.default else ''}"
    )


def _drop_continuous_queries(connection: Connection) -> None:
    database = connection.database
    for query in continuous_queries_of(connection, database):
        connection.tell(f"DROP CONTINUOUS QUERY {identifier(query.name)} ON {identifier(database)}")


def _grant(connection: Connection, contents: Contents) -> None:
    """Give users what they had in a logical database that is made anew, where there still are such users."""
    database = connection.database
    users = {row["user"] for row in connection.ask("SHOW USERS").get("", [])}
    having = {grant.user for grant in grants_of(connection, database)}
    for grant in contents.grants:
        if grant.user in users - having:
            # A privilege is one of three words of the server's own.
            privilege = {"READ": "READ", "WRITE": "WRITE"}.get(grant.privilege, "ALL")
            connection.tell(f"GRANT {privilege} ON {identifier(database)} TO {identifier(grant.user)}")


def _notes(connection: Connection, backup: Backup) -> list[str]:
    made = f"{backup.manifest.created_at:%Y-%m-%d %H:%M:%S %Z}"
    notes = [
        f"{backup.points} points, the retention policies and the continuous queries are as they were at {made}. "
        "Users and subscriptions were not touched."
    ]
    finite = [policy.name for policy in backup.contents.policies if policy.duration != FOR_EVER]
    if finite:
        notes.append(
            "InfluxDB drops points that are older than the duration of their retention policy, within half an hour: "
            f"those of {', '.join(finite)} that are past it do not stay."
        )
    if backup.contents.continuous_queries and backup.manifest.database != connection.database:
        notes.append(
            f"The continuous queries are of {backup.manifest.database}, from which the backup is, and were left out."
        )
    return notes
