"""Tokens made by `dbvalet token`: kept in the state as SHA-256, and known to every dbvalet on it within seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar, cast

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from agent.errors import AgentError
from agent.held import Held
from agent.log import Log
from agent.roles import Role
from agent.state.state import State
from engines.errors import Precondition

MEMORY = "tokens"

LOOK_SECONDS = 2.0

# What a later dbvalet adds to a token may be a limit of it: one with anything unknown is not understood at all.
_EXACTLY = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of a token; while it is rotated, there are several."""

    __pydantic_config__: ClassVar[ConfigDict] = _EXACTLY

    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    """In hex."""
    made_at: int
    """Seconds since the epoch."""
    expires_at: int | None
    """Seconds since the epoch; None is never."""

    @property
    def has_expired(self) -> bool:
        """Whether nobody gets in with it any more."""
        return self.expires_at is not None and self.expires_at <= time.time()


@dataclass(frozen=True, kw_only=True)
class KeptToken:
    """A token: what it allows, and its values, the newest last."""

    __pydantic_config__: ClassVar[ConfigDict] = _EXACTLY

    name: str
    role: Role
    databases: tuple[str, ...]
    """Ids, or `*`."""
    allow: tuple[str, ...] | None
    deny: tuple[str, ...]
    values: Annotated[tuple[Value, ...], Field(min_length=1)]
    backup_before_destroy: bool = False
    """Whether what it destroys is backed up first."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a state has."""

    tokens: list[KeptToken]
    not_understood: list[str]
    """Names of those that another dbvalet wrote in a way that this one does not know: here they let nobody in."""


class KeptTokens:
    """The tokens of a state."""

    def __init__(self, state: State, log: Log) -> None:
        self._memory = state.memory_of("")
        self._log = log
        self._watcher: asyncio.Task[None] | None = None

    async def all(self) -> Kept:
        """Give every token.

        Raises: Precondition, when the state cannot be read
        """
        return _read(await self._memory.recall(MEMORY))

    async def add(self, token: KeptToken) -> None:
        """Keep a new token.

        Raises: AgentError, when there is one of this name; Precondition, when the state cannot be written
        """

        def added(kept: list[Any]) -> list[Any]:
            if any(_name_of(each) == token.name for each in kept):
                raise AgentError(f"There is a token {token.name}: rotate or revoke it, or take another name.")
            return [*kept, asdict(token)]

        await self._change(added)

    async def rotate(self, name: str, next_value: Callable[[Value], Value], *, old_until: int) -> KeptToken:
        """Give a token another value; those that it has end by `old_until`, in seconds since the epoch.

        next_value: makes it, from the newest there is

        Raises: AgentError, when there is none of this name or it is not understood; Precondition, when the state cannot
        be written
        """

        def rotated(kept: list[Any]) -> list[Any]:
            place = _place_of(kept, name)
            token = _understood(kept[place])
            if token is None:
                raise AgentError(f"Another dbvalet wrote the token {name} in a way that this one does not know.")
            return [*kept[:place], asdict(_rotated(token, next_value(token.values[-1]), old_until)), *kept[place + 1 :]]

        return next(each for each in await self._change(rotated) if each.name == name)

    async def revoke(self, name: str) -> None:
        """Forget a token with all of its values, also one that is not understood.

        Raises: AgentError, when there is none of this name; Precondition, when the state cannot be written
        """

        def without(kept: list[Any]) -> list[Any]:
            place = _place_of(kept, name)
            return [*kept[:place], *kept[place + 1 :]]

        await self._change(without)

    def follow(self, take: Callable[[list[KeptToken]], None]) -> None:
        """Hand the tokens on, again and again; while they cannot be read, nothing is handed on."""
        self._watcher = asyncio.create_task(self._watch(take))

    def close(self) -> None:
        """Stop that."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self, take: Callable[[list[KeptToken]], None]) -> None:
        held, told, odd = Held(), False, list[str]()
        while True:
            try:
                kept = await self.all()
                take(kept.tokens)
                held.renew()
                told = False
                if kept.not_understood != odd:
                    odd = kept.not_understood
                    self._log.warning("tokens_not_understood", names=odd)
            except Precondition as problem:
                self._log.warning("tokens_not_read", reason=problem.message)
            except Exception:  # noqa: BLE001 - the watch must outlive a bug, which is logged
                self._log.exception("bug")
            if held.is_over and not told:
                told = True
                self._log.error("tokens_without_effect", reason="for too long it could not be read which there are")
            await asyncio.sleep(LOOK_SECONDS)

    async def _change(self, change: Callable[[list[Any]], list[Any]]) -> list[KeptToken]:
        # On what is kept as it stands there: what this dbvalet does not understand is not lost by it.
        return _read(await self._memory.change(MEMORY, lambda kept: change(kept or []))).tokens


def _rotated(token: KeptToken, value: Value, old_until: int) -> KeptToken:
    old = (
        replace(each, expires_at=old_until if each.expires_at is None else min(each.expires_at, old_until))
        for each in token.values
    )
    return replace(token, values=(*(each for each in old if not each.has_expired), value))


def _name_of(kept: Any) -> str:
    return str(cast("dict[str, Any]", kept).get("name")) if isinstance(kept, dict) else "?"


def _place_of(kept: list[Any], name: str) -> int:
    for place, each in enumerate(kept):
        if _name_of(each) == name:
            return place
    raise AgentError(f"`dbvalet token` has made no token {name}; one of the configuration is changed there.")


_TOKEN = TypeAdapter(KeptToken)


def _understood(kept: Any) -> KeptToken | None:
    try:
        return _TOKEN.validate_python(kept)
    except ValidationError:
        return None


def _read(kept: list[Any] | None) -> Kept:
    found = [(_name_of(each), _understood(each)) for each in kept or []]
    return Kept(
        tokens=[token for _, token in found if token is not None],
        not_understood=[name for name, token in found if token is None],
    )
