"""What is written down before something is changed, and before its answer leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

from agent.api.errors import STATUS
from agent.audit.line import Change, Head, Page, Row, redacted
from agent.backups.named import told_of
from agent.errors import AgentError, Overloaded, RateLimited, StateUnavailable
from agent.log import Log, blotter
from agent.state.state import State
from engines.action import Effect
from engines.errors import EngineError, Precondition

if TYPE_CHECKING:
    from sqlalchemy import Connection

Told = Callable[[], None]
"""Tells the log what was written down."""


class Journal:
    """Writes the audit. Where it is switched off, nothing is written and nothing refused."""

    def __init__(self, state: State, log: Log, secrets: Iterable[str] = (), *, on: bool = True) -> None:
        """`secrets` are blotted out of whatever a client has written, wherever they stand."""
        self._state = state
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)
        self._blot = blotter(self._secrets)
        self._log = log
        self._on = on

    @asynccontextmanager
    async def line_of(self, change: Change) -> AsyncGenerator[None]:
        """Let something be tried; how it ended is written down when this is left, and before its answer leaves.

        Raises: StateUnavailable, when the line cannot be written, and whatever is raised within
        """
        try:
            yield
        except (StateUnavailable, RateLimited, Overloaded):
            # Of what was shed a line would cost more than the request did.
            raise
        except (AgentError, EngineError) as refused:
            await self.end(change, STATUS[refused.code], refused.code)
            raise
        except (ClientDisconnect, asyncio.CancelledError):
            # Nobody waits for the answer, but what was begun may have been done.
            with suppress(StateUnavailable):  # which is in the log
                await asyncio.shield(self.end(change, None, "client_left"))
            raise
        except Exception:
            await self.end(change, STATUS["internal"], "internal")
            raise
        await self.end(change, *change.ended)

    async def page(
        self, *, after: int, limit: int, databases: Collection[str] | None = None, hidden: Collection[str] = ()
    ) -> list[Row]:
        """Read lines in their order; only those of some databases, unless None, and none of those that are hidden.

        Raises: Precondition, when the state cannot be read
        """
        from agent.audit import record

        return await self._state.run(
            lambda connection: record.page(connection, after=after, limit=limit, databases=databases, hidden=hidden)
        )

    async def begin(
        self, change: Change, also: Callable[[Connection], None] | None = None, *, first_line: bool = False
    ) -> None:
        """Make sure that the line can be written, before anything is touched; for what destroys, a first one is.

        also: something else that has to be written down before
        first_line: write one before though it destroys nothing

        Raises: StateUnavailable, IntegrityError of `also`
        """
        if not self._on and also is None:
            return
        from agent.audit import record

        is_kept = first_line or change.effect == Effect.DESTRUCTIVE

        def work(connection: Connection) -> None:
            if also is not None:
                also(connection)
            if not self._on:
                return
            self._state.require_room()
            if is_kept:
                self._append(connection, change, None, "begun")
                return
            with connection.begin_nested() as tried:
                self._append(connection, change, None, "begun")
                tried.rollback()
            if also is None:
                record.touch(connection)

        try:
            if is_kept or also is not None:
                await self._state.run(work)
            else:
                await self._state.run_soon_durable(work)
        except Precondition as problem:
            raise StateUnavailable(f"Nothing was done, since it cannot be written down. {problem.message}") from problem

    async def end(self, change: Change, status: int | None, code: str) -> None:
        """Write down how it ended: on disk when this returns, but for a write with a key, which survives a crash alone.

        The row of that key is on disk since before it was begun. A power cut in the moments after may take the answer
        and its line: the row is then that of a request whose end nobody saw, and a retry goes by what the engine shows.

        Raises: StateUnavailable, AgentError of `change.also`: then that is how it ended
        """
        if not self._on and change.also is None:
            return

        def work(connection: Connection) -> Head | None:
            if change.also is not None:
                change.also(connection)
            return self._append(connection, change, status, code) if self._on else None

        try:
            if change.also is not None and change.effect == Effect.WRITE:
                head = await self._state.run_soon_durable(work)
            else:
                head = await self._state.run(work)
        except AgentError as refused:
            refused.message += told_of(change.saved)
            change.also = None
            await self.end(change, STATUS[refused.code], refused.code)
            raise
        except Precondition as problem:
            self._tell_lost(change, code, problem)
            done = "It was done" if code == "ok" else f"It ended as {code}"
            raise StateUnavailable(
                f"{done}, but that cannot be written down; look before trying again. {problem.message}"
                f"{told_of(change.saved)}"
            ) from problem
        if head is not None:
            self._tell(change, head)

    def add(self, connection: Connection, change: Change, code: str) -> Told:
        """Write down how something ended that has no answer, in the transaction that says so elsewhere too.

        What has ended has ended: a line that another one keeps out is lost, and only the log says so. What is given
        tells the log, and is called once the transaction is committed.
        """
        if not self._on:
            return lambda: None
        try:
            with connection.begin_nested():
                head = self._append(connection, change, None, code)
        except Precondition as problem:
            return partial(self._tell_lost, change, code, problem)
        return partial(self._tell, change, head)

    def _tell(self, change: Change, head: Head) -> None:
        # The log goes elsewhere: what stands there shows a chain that was made anew from its beginning.
        self._log.info("audited", request_id=change.request_id, line=str(head))

    def _tell_lost(self, change: Change, code: str, problem: Precondition) -> None:
        self._log.error(
            "not_audited",
            request_id=change.request_id,
            who=change.who,
            action=change.action,
            database=change.database,
            outcome=code,
            reason=problem.message,
        )

    def _append(self, connection: Connection, change: Change, status: int | None, code: str) -> Head:
        from agent.audit import record

        # The other fields are declared: who, action and database by the configuration or the code, not by a client.
        without_secrets = replace(
            change,
            request_id=self._blot(change.request_id),
            path=self._blot(change.path),
            params=redacted(change.params, self._secrets),
        )
        return record.append(connection, without_secrets, self._state.now(connection), status, code)


async def pages(state: State, after: int | None, size: int) -> AsyncGenerator[Page]:
    """Give the lines after one of them, or all that stand there, page by page.

    Raises: Precondition, when the state cannot be read
    """
    from agent.audit import record

    while True:

        def work(connection: Connection, after: Any = after) -> Page:
            record.at_one_moment(connection)
            heads = record.heads(connection)
            rows = record.page(connection, after=after, limit=size)
            return Page(rows, heads, record.count(connection) if len(rows) < size else None)

        page = await state.run(work)
        yield page
        if page.lines is not None:
            return
        after = page.rows[-1].sequence
