"""What is remembered of a cluster's past: its timelines and markers. Each function works inside of a transaction."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, or_, select, update

from agent.state.tables import markers, timelines
from engines.recovery import Marker, Timeline


def newest_system(connection: Connection, database_id: str) -> str | None:
    """Give the identifier of the cluster that was seen last behind a database."""
    return connection.execute(
        select(timelines.c.system_identifier)
        .where(timelines.c.database_id == database_id)
        .order_by(timelines.c.began_at.desc(), timelines.c.timeline.desc())
        .limit(1)
    ).scalar()


def timelines_of(connection: Connection, database_id: str, system_identifier: str) -> list[Timeline]:
    """List the timelines of a cluster, as they were lived."""
    found = connection.execute(
        select(timelines)
        .where(timelines.c.database_id == database_id, timelines.c.system_identifier == system_identifier)
        .order_by(timelines.c.timeline)
    )
    return [
        Timeline(
            number=row.timeline,
            parent=row.parent,
            forked_at_lsn=row.forked_at_lsn,
            began_at=row.began_at,
            ended_at=row.ended_at,
        )
        for row in found
    ]


def keep_timeline(connection: Connection, database_id: str, system_identifier: str, timeline: Timeline) -> None:
    """Write a timeline down, or what has changed of it."""
    row = _row(connection, timelines).values(
        database_id=database_id,
        system_identifier=system_identifier,
        timeline=timeline.number,
        parent=timeline.parent,
        forked_at_lsn=timeline.forked_at_lsn,
        began_at=timeline.began_at,
        ended_at=timeline.ended_at,
    )
    changed = {name: row.excluded[name] for name in ("parent", "forked_at_lsn", "began_at", "ended_at")}
    connection.execute(row.on_conflict_do_update(index_elements=timelines.primary_key, set_=changed))


def _row(connection: Connection, table: Table) -> Any:
    """Begin an insert that knows `on_conflict_do_update`.

    A delete before an insert would not do: of two transactions that write one key down for the first time, neither
    sees the other's row. What is not used is not imported, as it takes memory.
    """
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert

        return insert(table)
    from sqlalchemy.dialects.sqlite import insert as insert_into_file

    return insert_into_file(table)


def end_timeline(
    connection: Connection, database_id: str, system_identifier: str, number: int, at: datetime | None
) -> None:
    """Tell when a timeline was left; None: it is lived on after all."""
    connection.execute(update(timelines).where(*_key(database_id, system_identifier, number)).values(ended_at=at))


def _key(database_id: str, system_identifier: str, number: int) -> tuple[ColumnElement[bool], ...]:
    return (
        timelines.c.database_id == database_id,
        timelines.c.system_identifier == system_identifier,
        timelines.c.timeline == number,
    )


def markers_of(connection: Connection, database_id: str) -> list[Marker]:
    """List the markers of a database, oldest first."""
    found = connection.execute(
        select(markers).where(markers.c.database_id == database_id).order_by(markers.c.committed_at)
    )
    return [
        Marker(committed_at=row.committed_at, timeline=row.timeline, lsn=row.lsn, archived=row.archived)
        for row in found
    ]


def keep_markers(connection: Connection, database_id: str, made: Iterable[Marker]) -> None:
    """Write markers down, and forget those that a later archived one makes needless."""
    for each in made:
        row = _row(connection, markers).values(
            database_id=database_id,
            committed_at=each.committed_at,
            timeline=each.timeline,
            lsn=each.lsn,
            archived=each.archived,
        )
        # What another dbvalet saw in the archive meanwhile is there.
        seen = {"archived": or_(markers.c.archived, row.excluded.archived)}
        connection.execute(row.on_conflict_do_update(index_elements=markers.primary_key, set_=seen))
    latest = max((each.committed_at for each in markers_of(connection, database_id) if each.archived), default=None)
    if latest is not None:
        connection.execute(delete(markers).where(markers.c.database_id == database_id, markers.c.committed_at < latest))
