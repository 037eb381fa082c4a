"""`Idempotency-Key`: what is asked for under a key is done once, however often it is asked for.

A row is on disk before the engine is touched, and its answer is written before the client has it. That of what destroys
is on disk then; that of a write survives whatever ends dbvalet, but a power cut in the moments after may take it. A
row without an answer is of a request that runs, or of one whose end nobody saw: then the engine itself tells what
became of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import orjson

from agent.api.errors import failed
from agent.asked import HEADER, Asked
from agent.audit.journal import Journal
from agent.audit.line import Change
from agent.backups.named import Named, told_of
from agent.errors import AgentError, AnswerUnknown, KeyInProgress, StateUnavailable
from agent.state.state import State
from engines.aftermath import Verdict
from engines.errors import EngineError, InvalidParams, Precondition

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row

REPLAYED = (b"idempotent-replayed", b"true")
"""A header of an answer that was given before."""

KEPT = timedelta(hours=24)

SILENT = timedelta(seconds=180)
"""How long a dbvalet on another host may take over a request, all deadlines of actions included."""


def not_again(why: str) -> str:
    """Say why something is not done again whose end nobody saw."""
    return (
        f"An earlier request with this `{HEADER}` was begun and nobody saw its end. {why}: it is not done again. "
        "Look, then ask with a new key."
    )


NOT_AGAIN = not_again("What the engine shows does not tell whether it was done, or has been changed by others since")

TAKEN_OVER = (
    f"This took so long that another request with its `{HEADER}` was let through, and what that one was answered is "
    "kept. What this one has done is not undone. Ask again with the same key for the answer that is kept, and look."
)

WITHOUT_END = frozenset({"engine_unavailable", "deadline_exceeded", "state_unavailable", "internal"})
"""Codes after which the engine may have done it or not."""

NOT_BEGUN = frozenset({"overloaded", "in_progress"})
"""Codes that say that nothing was begun, whatever their status."""

REFUSED_FIRST = frozenset({"invalid_params", "protected", "privilege_missing"})
"""Codes with which an engine refuses what it has begun nothing of: see `engines.errors`."""

BEFORE_ANYTHING = frozenset({400, 401, 403, 404, 413, 422, 429})
"""Statuses after which nothing was begun: the same key may ask again."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer as it is kept: JSON, or nothing at all."""

    status: int
    code: str
    body: bytes
    replayed: bool = False


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """It was begun and nobody knows how it ended."""

    before: list[str] | None
    """What the action was about, as the engine had it then."""
    saved: list[Named] = field(default_factory=list[Named])
    """The backups that were made of what it destroys."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """Under which key the work of this task is done."""

    mark: str
    in_doubt: bool
    """Whether it may have been begun before: what it makes is looked for first."""
    begins: Callable[[], None]
    """Says that something is begun from here on, unless that is refused for what `passes`."""
    hold: Callable[[Connection], None]
    """Keeps the key in the transaction of what is begun; raises AnswerUnknown when another dbvalet has it by now."""


begun: ContextVar[Begun | None] = ContextVar("begun", default=None)


class Once:
    """The keys of a state."""

    def __init__(self, state: State, journal: Journal, owner: str, claim: Callable[[], None]) -> None:
        """`owner` stands for this process in the state; `claim` shows that it lives, or raises OSError."""
        self._state = state
        self._journal = journal
        self._owner = owner
        self._claim = claim
        self._running: set[tuple[str, str]] = set()

    async def perform(
        self,
        asked: Asked,
        change: Change,
        *,
        prepare: Callable[[], Awaitable[None]],
        look: Callable[[], Awaitable[Sequence[str] | None]],
        judge: Callable[[Sequence[str] | None, Sequence[str] | None], Verdict],
        run: Callable[[], Awaitable[bytes]],
        done: Callable[[], bytes],
    ) -> Answer:
        """Carry out an action, or give what became of it when it was asked for under this key before.

        prepare: what comes before it is begun; it may refuse it, and adds the backups that it makes to `change.saved`;
        look: what the action is about, as the engine has it; judge: what became of it, by that before and now; run: do
        it and give the answer's body; done: the body of one that was done

        Raises: InvalidParams (another request has this key), KeyInProgress, AnswerUnknown, StateUnavailable, and
        whatever `prepare`, `look` and `run` raise
        """
        with self.at_work(asked):
            found = await self.find(asked)
            if isinstance(found, Answer):
                change.replayed, change.ended = True, (found.status, found.code)
                return found
            if found is None:
                await prepare()
                await self.begin(asked, change, await look())
            else:
                change.saved += found.saved
                verdict = judge(found.before, await look())
                if verdict is Verdict.UNKNOWN:
                    raise AnswerUnknown(NOT_AGAIN + told_of(change.saved))
                if verdict is Verdict.DONE:
                    return self._ended(asked, change, done())
                await prepare()
                await self._begin_again(asked, change, found)
            try:
                body = await run()
            except (AgentError, EngineError) as refused:
                if refused.code in WITHOUT_END:
                    raise
                if found is not None:
                    # The first try may have ended since it was looked for: then that is why the engine refuses.
                    verdict = judge(found.before, await look())
                    if verdict is Verdict.DONE:
                        return self._ended(asked, change, done())
                    if verdict is Verdict.UNKNOWN:
                        raise
                if refused.code not in REFUSED_FIRST:
                    change.also = partial(self.keep, asked, answer_of(change.path, refused))
                elif found is None:
                    # What an earlier request with this key has begun stays in doubt.
                    change.also = partial(self.forget, asked)
                raise
            return self._ended(asked, change, body)

    def _ended(self, asked: Asked, change: Change, body: bytes) -> Answer:
        answer = Answer(status=200, code="ok", body=body)
        change.also = partial(self.keep, asked, answer)
        return answer

    @contextmanager
    def at_work(self, asked: Asked) -> Generator[None]:
        """Let one request of a key work at a time.

        Raises: KeyInProgress
        """
        known = (asked.who, asked.key)
        if known in self._running:
            raise KeyInProgress
        self._running.add(known)
        try:
            yield
        finally:
            self._running.discard(known)

    async def find(self, asked: Asked) -> Answer | Doubt | None:
        """Find what was asked for under a key. What is in doubt is this process's from then on.

        Raises: InvalidParams, KeyInProgress, StateUnavailable
        """
        from agent.state.tables import idempotency_keys as keys

        here = (keys.c.who == asked.who) & (keys.c.key == asked.key)

        def work(connection: Connection) -> Answer | Doubt | None:
            row = connection.execute(keys.select().where(here)).one_or_none()
            now = self._state.now(connection)
            if row is None or row.begun_at < now - KEPT:
                return None
            if row.fingerprint != asked.fingerprint:
                raise InvalidParams({HEADER: ["was used for another request; take a new one"]})
            if row.answer is not None:
                return _answer(row.answer)
            if self._lives(row, now):
                raise KeyInProgress
            self._claim()
            # One of several that find it at the same time gets it.
            as_seen = here & (keys.c.owner == row.owner) & (keys.c.begun_at == row.begun_at)
            taken = keys.update().where(as_seen, keys.c.answer.is_(None))
            if connection.execute(taken.values(owner=self._owner, begun_at=now)).rowcount != 1:
                raise KeyInProgress
            return _doubt(row.before)

        try:
            return await self._state.run(work)
        except Precondition as problem:
            raise StateUnavailable(
                f"Nothing was done, since its key cannot be looked up. {problem.message}"
            ) from problem

    async def begin(self, asked: Asked, change: Change, before: Sequence[str] | None = None) -> None:
        """Write down that a request is begun, together with what the audit needs to be sure of.

        Raises: KeyInProgress, StateUnavailable
        """
        from sqlalchemy.exc import IntegrityError

        from agent.state.tables import idempotency_keys as keys

        def work(connection: Connection) -> None:
            # Before its row is there: one whose owner is not seen to live is done again by the next who asks.
            self._claim()
            now = self._state.now(connection)
            connection.execute(keys.delete().where(keys.c.begun_at < now - KEPT))
            connection.execute(
                keys.insert().values(
                    who=asked.who,
                    key=asked.key,
                    fingerprint=asked.fingerprint,
                    owner=self._owner,
                    begun_at=now,
                    before=_written(before, change.saved),
                )
            )

        try:
            await self._journal.begin(change, work)
        except IntegrityError:
            raise KeyInProgress from None

    def keep_before(self, asked: Asked, before: Sequence[str] | None, connection: Connection) -> None:
        """Keep what a request is about, as it is before it is begun.

        Raises: KeyInProgress, when another dbvalet has taken the request over
        """
        from agent.state.tables import idempotency_keys as keys

        row = keys.update().where(self._is_ours(asked)).values(before=_written(before, ()))
        if connection.execute(row).rowcount != 1:
            raise KeyInProgress

    async def _begin_again(self, asked: Asked, change: Change, doubt: Doubt) -> None:
        """Write down that it is done again, with the backup that was made of what is left.

        Raises: KeyInProgress, when another dbvalet has taken the request over; StateUnavailable
        """
        from agent.state.tables import idempotency_keys as keys

        def work(connection: Connection) -> None:
            row = keys.update().where(self._is_ours(asked)).values(before=_written(doubt.before, change.saved))
            if connection.execute(row).rowcount != 1:
                raise KeyInProgress

        await self._journal.begin(change, work if change.saved != doubt.saved else None)

    def keep(self, asked: Asked, answer: Answer, connection: Connection) -> None:
        """Keep the answer, in the transaction of its line.

        Raises: AnswerUnknown, when another dbvalet has taken the request over
        """
        from agent.state.tables import idempotency_keys as keys

        text = orjson.dumps({"status": answer.status, "code": answer.code, "body": answer.body.decode()}).decode()
        kept = connection.execute(keys.update().where(self._is_ours(asked)).values(answer=text))
        if kept.rowcount != 1:
            raise AnswerUnknown(TAKEN_OVER)

    def hold(self, asked: Asked, connection: Connection) -> None:
        """Keep a key until the end of a transaction: who takes the request over finds what is begun in it.

        Raises: AnswerUnknown, when another dbvalet has taken it over
        """
        from agent.state.tables import idempotency_keys as keys

        held = keys.select().where(self._is_ours(asked)).with_for_update()
        if connection.execute(held).one_or_none() is None:
            raise AnswerUnknown(TAKEN_OVER)

    def forget(self, asked: Asked, connection: Connection) -> None:
        """Forget a request that was refused before anything was begun, unless another dbvalet has taken it over."""
        from agent.state.tables import idempotency_keys as keys

        connection.execute(keys.delete().where(self._is_ours(asked)))

    def _is_ours(self, asked: Asked) -> ColumnElement[bool]:
        from agent.state.tables import idempotency_keys as keys

        here = (keys.c.who == asked.who) & (keys.c.key == asked.key)
        return here & (keys.c.owner == self._owner) & keys.c.answer.is_(None)

    async def write(self, change: Callable[[Connection], None]) -> None:
        """Keep or forget where there is no line of the audit to do it with.

        Raises: AnswerUnknown, StateUnavailable
        """
        try:
            await self._state.run(change)
        except Precondition as problem:
            raise StateUnavailable(f"The answer cannot be kept. {problem.message}") from problem

    async def write_soon(self, change: Callable[[Connection], None]) -> None:
        """Write what is needed only if this process ends: should a power cut take it, nothing tells what became of it.

        Raises: AgentError of `change`, StateUnavailable
        """
        try:
            await self._state.run_soon_durable(change)
        except Precondition as problem:
            raise StateUnavailable(f"Nothing was done, since it cannot be written down. {problem.message}") from problem

    def _lives(self, row: Row[Any], now: datetime) -> bool:
        """Tell whether who began a request still works on it."""
        if row.owner == self._owner:
            return False  # whoever asks now is the one that is at work here
        if self._state.presence is not None:
            return self._state.presence.lives(row.owner)
        return row.begun_at > now - SILENT


def answer_of(path: str, refused: AgentError | EngineError) -> Answer:
    """Give a refusal as it is kept."""
    response = failed(path, refused)
    return Answer(status=response.status_code, code=refused.code, body=bytes(response.body))


def _answer(text: str) -> Answer:
    kept = orjson.loads(text)
    return Answer(status=kept["status"], code=kept["code"], body=kept["body"].encode(), replayed=True)


def _written(before: Sequence[str] | None, saved: Sequence[Named]) -> str | None:
    if saved:
        return orjson.dumps({"before": before, "saved": saved}).decode()
    return None if before is None else orjson.dumps(list(before)).decode()


def _doubt(text: str | None) -> Doubt:
    kept: Any = None if text is None else orjson.loads(text)
    if not isinstance(kept, dict):
        return Doubt(before=kept)
    with_backups = cast("dict[str, Any]", kept)
    return Doubt(before=with_backups["before"], saved=with_backups["saved"])
