"""What survives a restart of dbvalet, and what several dbvalets share: one SQLite file, or a PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agent.errors import SettingsError, StateFailed
from agent.state.file import StateFile
from agent.state.presence import Presence
from engines import deadline

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

T = TypeVar("T")

FILE_SCHEME = "sqlite:///"

_THREADS = 2
"""Of its own, so that a heartbeat never waits for threads that drivers, programs or slow downloads keep busy."""


QUEUED_SECONDS = 8.0
"""How long something may wait for one of them: while the state does not answer, what queues up is refused with the
rest, so that no request waits for all that came before it."""

ANSWER_SECONDS = 10.0
"""How long the state may take to answer: a file may stand still, on a disk that dies or on one of another host. What it
was asked to do may be done later."""

LATE = "the state cannot be used: it does not answer in time"


class Values(Protocol):
    """A few JSON values by database and key. Each method raises OSError when it cannot."""

    def recall(self, database_id: str, key: str) -> Any:
        """Give a value, or None."""
        ...

    def remember(self, database_id: str, key: str, value: Any) -> None:
        """Keep a value; durable when this returns."""
        ...

    def keep_first(self, database_id: str, key: str, value: Any) -> Any:
        """Keep a value unless there is one, and give the one that is kept."""
        ...

    def change(self, database_id: str, key: str, change: Callable[[Any], Any]) -> Any:
        """Keep what `change` makes of a value, or of None, and give it; several take turns."""
        ...


class State:
    """The state. Its tables are opened, and SQLAlchemy imported, when they are first needed."""

    def __init__(
        self, url: str, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC), stays: bool = False
    ) -> None:
        """Check a state that is there, and migrate one of an earlier dbvalet; make no file.

        stays: keep a file open until `close`, as one who writes again and again

        Raises: SettingsError, when it is damaged, newer than this dbvalet, none at all or cannot be reached; it is
        left untouched
        """
        self._clock = clock
        self._opening = threading.Lock()
        self._engine: Engine | None = None
        self._threads = ThreadPoolExecutor(_THREADS, "state")
        self._file: StateFile | None = None
        self.presence: Presence | None = None
        """Which dbvalets on this state live; None where that cannot be seen, as they run on several hosts."""
        self._server_url = url
        self._values: Values
        if url.startswith(FILE_SCHEME):
            self._values = self._file = StateFile(Path(url.removeprefix(FILE_SCHEME)), stays=stays)
            self.presence = Presence(self._file.path)
            if self._file.is_behind:
                self._open_checked()
        else:
            from agent.state.server import ServerValues

            self._values = ServerValues(self._open_checked())

    @property
    def is_shared(self) -> bool:
        """Tell whether dbvalets on other hosts may use it too."""
        return self._file is None

    def memory_of(self, database_id: str) -> DatabaseMemory:
        """Give the part that belongs to one database."""
        return DatabaseMemory(self._values, database_id, self._threads)

    async def holds_work(self) -> bool:
        """Tell whether there may be more than values: without importing anything where that is known without.

        Raises: StateFailed, when the state cannot be read
        """
        if self._file is None or self._engine is not None:
            return True
        try:
            return await _on(self._threads, self._file.holds_work)
        except OSError as problem:
            raise StateFailed(sentence(problem)) from problem

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do something with the tables in one transaction; it is durable when this returns.

        Raises: StateFailed, when the state cannot be used; IntegrityError, when a row may not be
        """
        return await _on(self._threads, lambda: self._in_transaction(work))

    async def run_soon_durable(self, work: Callable[[Connection], T]) -> T:
        """Do something with the tables in one transaction; it survives the end of this process when this returns.

        It is durable with the next transaction that is. Until then a power cut can undo it (or a crash of a shared
        state's server, within a second), never a part of it, and never something before it.

        Raises: StateFailed, when the state cannot be used; IntegrityError, when a row may not be
        """
        return await _on(self._threads, lambda: self._in_transaction(work, durable=False))

    def require_room(self) -> None:
        """See, within a transaction, that the disk has room for more than it writes: for how that ends, too.

        Raises: OSError, when it is full
        """
        if self._file is not None:
            self._file.require_room()

    def now(self, connection: Connection) -> datetime:
        """Give the time by the one clock of all who share this state."""
        if self._file is not None:
            return self._clock()
        from sqlalchemy import func, select

        return connection.execute(select(func.clock_timestamp())).scalar_one().astimezone(UTC)

    def close(self) -> None:
        """Close what is open; what is under way is finished first."""
        self._threads.shutdown()
        if self._engine is not None:
            self._engine.dispose()
        if self._file is not None:
            self._file.close()

    def _in_transaction(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        from sqlalchemy import text
        from sqlalchemy.exc import IntegrityError, SQLAlchemyError

        try:
            with self._opened().connect() as connection:
                try:
                    with connection.execution_options(durable=durable).begin():
                        if self._file is None and not durable:
                            connection.execute(text("SET LOCAL synchronous_commit = off"))
                        return work(connection)
                except (SQLAlchemyError, sqlite3.Error, OSError) as problem:
                    if self._file is not None and not isinstance(problem, IntegrityError):
                        # Whatever went wrong with a file, the next one begins anew; not the pool, in which others wait.
                        connection.invalidate()
                    raise
        except IntegrityError:
            raise
        except (SQLAlchemyError, sqlite3.Error, OSError) as problem:
            raise StateFailed(sentence(OSError(f"the state cannot be used: {reason_of(problem)}"))) from problem

    def _opened(self) -> Engine:
        with self._opening:
            if self._engine is None:
                from agent.state import database

                if self._file is None:
                    self._engine = database.open_server(self._server_url)
                else:
                    self._file.make()
                    self._engine = database.open_file(self._file)
        return self._engine

    def _open_checked(self) -> Engine:
        """Open the tables at the start and bring them up to date.

        Raises: SettingsError
        """
        from sqlalchemy.exc import SQLAlchemyError

        from agent.state import database

        try:
            engine = self._opened()
            if self._file is None:
                database.migrate_server(self._server_url)
            else:
                database.migrate(engine)
        except (SQLAlchemyError, sqlite3.Error, OSError) as problem:
            raise SettingsError("state", f"it cannot be opened: {reason_of(problem)}") from None
        return engine


class DatabaseMemory:
    """The part of a state that belongs to one database: the `Memory` of its server."""

    def __init__(self, values: Values, database_id: str, threads: ThreadPoolExecutor) -> None:
        self._values = values
        self._database_id = database_id
        self._threads = threads

    async def recall(self, key: str) -> Any:
        """Give a value, or None.

        Raises: StateFailed, when the state cannot be read
        """
        return await self._asked(self._values.recall, key)

    async def remember(self, key: str, value: Any) -> None:
        """Keep a value; it is durable when this returns.

        Raises: StateFailed, when the state cannot be written
        """
        await self._asked(self._values.remember, key, value)

    async def keep_first(self, key: str, value: Any) -> Any:
        """Keep a value unless there is one, and give the one that is kept.

        Raises: StateFailed, when the state cannot be written
        """
        return await self._asked(self._values.keep_first, key, value)

    async def change(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Keep what `change` makes of a value, or of None, and give it; of several who ask at once, one after another.

        Raises: StateFailed, when the state cannot be written; whatever `change` raises: then nothing is kept
        """
        return await self._asked(self._values.change, key, change)

    async def _asked(self, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await _on(self._threads, lambda: method(self._database_id, *arguments))
        except OSError as problem:
            raise StateFailed(sentence(problem)) from problem


async def _on(threads: ThreadPoolExecutor, method: Callable[[], T]) -> T:
    """Let a thread of the state do something, unless it waits for one for too long.

    Raises: StateFailed, and whatever `method` raises
    """
    asked_at = time.monotonic()

    def in_time() -> T:
        if time.monotonic() - asked_at > QUEUED_SECONDS:
            raise StateFailed(sentence(OSError(LATE)))
        return method()

    with deadline.waiting_for("the state"):
        answer = asyncio.get_running_loop().run_in_executor(threads, in_time)
        try:
            await asyncio.wait({answer}, timeout=ANSWER_SECONDS)
        finally:
            # What no thread has begun is not done any more; what one has begun goes on, and nobody hears of its end.
            was_late = answer.cancel()
        if was_late:
            raise StateFailed(sentence(OSError(LATE)))
        return answer.result()


def reason_of(problem: Exception) -> str:
    """Give what went wrong in one line; SQLAlchemy's own text would show the statement and its values."""
    cause = getattr(problem, "orig", None) or problem
    text = (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
    return " ".join(text.split())


def sentence(problem: OSError) -> str:
    """Write a text that ends with where to look."""
    text = str(problem)
    return f"{text[0].upper()}{text[1:]}. The key `state` of dbvalet's configuration says where it is."
