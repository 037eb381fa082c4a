"""What clients have set for a database: the hours of its periodic backups, its maintenance window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, cast

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, ValidationError

from agent.state.state import State
from engines.action import texts_by_field
from engines.aftermath import AS_ASKED
from engines.errors import InvalidParams

if TYPE_CHECKING:
    from sqlalchemy import Connection

WINDOW_HOURS = 8
"""How long a maintenance window is; clients choose only when it begins."""

_HOURS_TEXT = "must be an hour from 0 to 23 (UTC), or a list of at least one of them"


@dataclass(frozen=True, kw_only=True)
class MaintenanceWindow:
    """When work on a database hurts least."""

    weekday_utc: int
    """0 is Sunday."""
    starting_hour_utc: int


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What was chosen for one database."""

    periodic_backups_enabled: bool = False
    periodic_backups_scheduled_at: tuple[int, ...] = ()
    """Hours in UTC, sorted, each once."""
    scheduled_since: datetime | None = None
    """When this schedule was chosen: hours before it were never asked for."""
    maintenance_window: MaintenanceWindow | None = None


def _as_integer(value: Any) -> Any:
    """Give 2 for 2.0: to JSON Schema, and to clients with one kind of number, it is the same."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _hours(value: Any) -> list[int]:
    given: list[Any] = cast(list[Any], value) if isinstance(value, list) else [value]
    given = [_as_integer(hour) for hour in given]
    if not given or any(type(hour) is not int or not 0 <= hour <= 23 for hour in given):
        raise ValueError(_HOURS_TEXT)
    return sorted(set(given))


class _Change(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class WindowChange(_Change):
    """A change of the maintenance window: what is left out stays as it is, or is 0."""

    weekday_utc: Annotated[StrictInt, Field(ge=0, le=6), BeforeValidator(_as_integer)] = 0
    """0 is Sunday."""
    starting_hour_utc: Annotated[StrictInt, Field(ge=0, le=23), BeforeValidator(_as_integer)] = 0


Hour = Annotated[int, Field(ge=0, le=23)]


class DatabaseChange(_Change):
    """A change of a database: what is left out stays as it is."""

    periodic_backups_enabled: StrictBool = False
    periodic_backups_scheduled_at: Annotated[
        list[Hour], BeforeValidator(_hours, json_schema_input_type=Hour | Annotated[list[Hour], Field(min_length=1)])
    ] = [0]
    """Hours in UTC: one, or a list of them."""
    maintenance_window: WindowChange = WindowChange()


def read_change(body: Mapping[str, Any], shown: frozenset[str]) -> DatabaseChange:
    """Read `{"database": {…}}`; of the fields that are `shown`, those that cannot be changed are told to be read-only.

    Raises: InvalidParams
    """
    errors = {field: ["is not known"] for field in body if field != "database"}
    fields: Any = body.get("database")
    if "database" not in body:
        errors["database"] = ["is required"]
    elif not isinstance(fields, dict):
        errors["database"] = ["must be an object"]
    if errors:
        raise InvalidParams(errors)
    try:
        return DatabaseChange.model_validate(fields)
    except ValidationError as invalid:
        texts = texts_by_field(invalid, whole="database")
        for field in shown - DatabaseChange.model_fields.keys() & texts.keys():
            texts[field] = ["is read-only"]
        if "maintenance_window.duration_in_hour" in texts:
            texts["maintenance_window.duration_in_hour"] = ["is read-only"]
        raise InvalidParams(texts) from None


class AllChoices:
    """The choices of every database, in the state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: dict[str, Choices] = {}

    def last_known(self, database_id: str) -> Choices:
        """Give what was chosen when the state was last read."""
        return self._known.get(database_id, Choices())

    async def of(self, database_id: str) -> Choices:
        """Give what was chosen for a database.

        Raises: Precondition, when the state cannot be read
        """
        if not await self._state.holds_work():
            return Choices()
        found = self._known[database_id] = await self._state.run(lambda connection: chosen(connection, database_id))
        return found

    async def change(self, database_id: str, change: DatabaseChange) -> Choices:
        """Change what a change names, all of it or nothing, and give what is chosen now.

        Raises: Precondition, when the state cannot be written
        """

        def work(connection: Connection) -> Choices:
            before = chosen(connection, database_id)
            after = _changed(before, change, self._state.now(connection))
            if after != before:
                _keep(connection, database_id, after)
            return after

        return await self._state.run(work)


def shows(choices: Choices, change: DatabaseChange) -> list[str]:
    """Give what is chosen of that which a change names, for `engines.aftermath.judge`."""
    if _changed(choices, change, datetime.now(UTC)) == choices:
        return [AS_ASKED]
    named = {field: getattr(choices, field) for field in sorted(change.model_fields_set)}
    return [orjson.dumps(named).decode()]


def chosen(connection: Connection, database_id: str) -> Choices:
    """Read the choices of a database inside of a transaction."""
    from sqlalchemy import select

    from agent.state.tables import database_settings

    row = connection.execute(
        select(database_settings).where(database_settings.c.database_id == database_id)
    ).one_or_none()
    if row is None:
        return Choices()
    window = None
    if row.maintenance_weekday_utc is not None:
        window = MaintenanceWindow(
            weekday_utc=row.maintenance_weekday_utc, starting_hour_utc=row.maintenance_starting_hour_utc
        )
    return Choices(
        periodic_backups_enabled=row.periodic_backups_enabled,
        periodic_backups_scheduled_at=tuple(orjson.loads(row.periodic_backups_scheduled_at)),
        scheduled_since=row.scheduled_since,
        maintenance_window=window,
    )


def _changed(before: Choices, change: DatabaseChange, now: datetime) -> Choices:
    given = change.model_fields_set
    enabled = (
        change.periodic_backups_enabled if "periodic_backups_enabled" in given else before.periodic_backups_enabled
    )
    hours = before.periodic_backups_scheduled_at
    if "periodic_backups_scheduled_at" in given or (enabled and not hours):
        hours = tuple(change.periodic_backups_scheduled_at)
    window = before.maintenance_window
    if "maintenance_window" in given:
        parts = change.maintenance_window
        current = window or MaintenanceWindow(weekday_utc=0, starting_hour_utc=0)
        set_parts = parts.model_fields_set
        window = MaintenanceWindow(
            weekday_utc=parts.weekday_utc if "weekday_utc" in set_parts else current.weekday_utc,
            starting_hour_utc=parts.starting_hour_utc
            if "starting_hour_utc" in set_parts
            else current.starting_hour_utc,
        )
    same_schedule = (enabled, hours) == (before.periodic_backups_enabled, before.periodic_backups_scheduled_at)
    return Choices(
        periodic_backups_enabled=enabled,
        periodic_backups_scheduled_at=hours,
        scheduled_since=before.scheduled_since if same_schedule else now,
        maintenance_window=window,
    )


def _keep(connection: Connection, database_id: str, choices: Choices) -> None:
    from sqlalchemy import delete, insert

    from agent.state.tables import database_settings

    window = choices.maintenance_window
    connection.execute(delete(database_settings).where(database_settings.c.database_id == database_id))
    connection.execute(
        insert(database_settings).values(
            database_id=database_id,
            periodic_backups_enabled=choices.periodic_backups_enabled,
            periodic_backups_scheduled_at=orjson.dumps(choices.periodic_backups_scheduled_at).decode(),
            scheduled_since=choices.scheduled_since,
            maintenance_weekday_utc=window.weekday_utc if window else None,
            maintenance_starting_hour_utc=window.starting_hour_utc if window else None,
        )
    )
