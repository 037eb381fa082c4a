"""The values that engines need kept, where the state is a PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from sqlalchemy import Engine, Select, func, select
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.exc import SQLAlchemyError

from agent.state.tables import memory


class ServerValues:
    """A few JSON values by database and key, in the table `memory`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def recall(self, database_id: str, key: str) -> Any:
        """Give a value, or None.

        Raises: OSError
        """
        wanted = select(memory.c.value).where(memory.c.database_id == database_id, memory.c.key == key)
        try:
            with self._engine.connect() as connection:
                text = connection.execute(wanted).scalar()
        except SQLAlchemyError as problem:
            raise _told("read", problem) from problem
        return None if text is None else orjson.loads(text)

    def remember(self, database_id: str, key: str, value: Any) -> None:
        """Keep a value; durable when this returns.

        Raises: OSError
        """
        try:
            with self._engine.begin() as connection:
                connection.execute(_turn(database_id, key))
                connection.execute(_keeping(database_id, key, value))
        except SQLAlchemyError as problem:
            raise _told("written", problem) from problem

    def keep_first(self, database_id: str, key: str, value: Any) -> Any:
        """Keep a value unless there is one, and give the one that is kept.

        Raises: OSError
        """
        row = insert(memory).values(database_id=database_id, key=key, value=orjson.dumps(value).decode())
        try:
            with self._engine.begin() as connection:
                connection.execute(_turn(database_id, key))
                connection.execute(row.on_conflict_do_nothing())
        except SQLAlchemyError as problem:
            raise _told("written", problem) from problem
        return self.recall(database_id, key)

    def change(self, database_id: str, key: str, change: Callable[[Any], Any]) -> Any:
        """Keep what `change` makes of a value, or of None, and give it; of several who ask at once, one after another.

        Raises: OSError
        """
        found = select(memory.c.value).where(memory.c.database_id == database_id, memory.c.key == key)
        try:
            with self._engine.begin() as connection:
                connection.execute(_turn(database_id, key))
                text = connection.execute(found).scalar()
                value = change(None if text is None else orjson.loads(text))
                connection.execute(_keeping(database_id, key, value))
        except SQLAlchemyError as problem:
            raise _told("written", problem) from problem
        return value


def _turn(database_id: str, key: str) -> Select[Any]:
    """Wait for one's turn with a value until the end of the transaction: a row that is not there cannot be locked."""
    return select(func.pg_advisory_xact_lock(func.hashtextextended(f"memory {database_id} {key}", 0)))


def _keeping(database_id: str, key: str, value: Any) -> Insert:
    row = insert(memory).values(database_id=database_id, key=key, value=orjson.dumps(value).decode())
    return row.on_conflict_do_update(
        index_elements=[memory.c.database_id, memory.c.key], set_={"value": row.excluded.value}
    )


def _told(done: str, problem: SQLAlchemyError) -> OSError:
    from agent.state.state import reason_of

    return OSError(f"the state cannot be {done}: {reason_of(problem)}")
