"""Tokens made by `dbvalet token`: kept in the state as SHA-256, and known to every dbvalet on it within seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from agent.errors import AgentError
from agent.log import Log
from agent.roles import Role
from agent.state.state import State
from engines.errors import Precondition

MEMORY = "tokens"

LOOK_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of a token; while it is rotated, there are several."""

    sha256: str
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

    name: str
    role: Role
    databases: tuple[str, ...]
    """Ids, or `*`."""
    allow: tuple[str, ...] | None
    deny: tuple[str, ...]
    values: tuple[Value, ...]
    backup_before_destroy: bool = False
    """Whether what it destroys is backed up first."""


class KeptTokens:
    """The tokens of a state."""

    def __init__(self, state: State, log: Log) -> None:
        self._memory = state.memory_of("")
        self._log = log
        self._watcher: asyncio.Task[None] | None = None

    async def all(self) -> list[KeptToken]:
        """Give every token.

        Raises: Precondition, when the state cannot be read
        """
        return _read(await self._memory.recall(MEMORY))

    async def add(self, token: KeptToken) -> None:
        """Keep a new token.

        Raises: AgentError, when there is one of this name; Precondition, when the state cannot be written
        """

        def added(tokens: list[KeptToken]) -> list[KeptToken]:
            if any(each.name == token.name for each in tokens):
                raise AgentError(f"There is a token {token.name}: rotate or revoke it, or take another name.")
            return [*tokens, token]

        await self._change(added)

    async def rotate(self, name: str, value: Value, *, old_until: int) -> KeptToken:
        """Give a token another value; those that it has end by `old_until`, in seconds since the epoch.

        Raises: AgentError, when there is none of this name; Precondition, when the state cannot be written
        """

        def rotated(tokens: list[KeptToken]) -> list[KeptToken]:
            _find(tokens, name)
            return [_rotated(each, value, old_until) if each.name == name else each for each in tokens]

        return _find(await self._change(rotated), name)

    async def revoke(self, name: str) -> None:
        """Forget a token with all of its values.

        Raises: AgentError, when there is none of this name; Precondition, when the state cannot be written
        """

        def without(tokens: list[KeptToken]) -> list[KeptToken]:
            gone = _find(tokens, name)
            return [each for each in tokens if each is not gone]

        await self._change(without)

    def follow(self, take: Callable[[list[KeptToken]], None]) -> None:
        """Hand the tokens on, again and again; while the state cannot be read, those that were read last hold."""
        self._watcher = asyncio.create_task(self._watch(take))

    def close(self) -> None:
        """Stop that."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self, take: Callable[[list[KeptToken]], None]) -> None:
        while True:
            try:
                take(await self.all())
            except Precondition as problem:
                self._log.warning("tokens_not_read", reason=problem.message)
            await asyncio.sleep(LOOK_SECONDS)

    async def _change(self, change: Callable[[list[KeptToken]], list[KeptToken]]) -> list[KeptToken]:
        return _read(await self._memory.change(MEMORY, lambda kept: _written(change(_read(kept)))))


def _rotated(token: KeptToken, value: Value, old_until: int) -> KeptToken:
    old = (
        replace(each, expires_at=old_until if each.expires_at is None else min(each.expires_at, old_until))
        for each in token.values
    )
    return replace(token, values=(*(each for each in old if not each.has_expired), value))


def _find(tokens: Iterable[KeptToken], name: str) -> KeptToken:
    for each in tokens:
        if each.name == name:
            return each
    raise AgentError(f"`dbvalet token` has made no token {name}; one of the configuration is changed there.")


def _written(tokens: list[KeptToken]) -> list[dict[str, Any]]:
    return [asdict(each) for each in tokens]


def _read(kept: list[dict[str, Any]] | None) -> list[KeptToken]:
    return [
        KeptToken(
            name=each["name"],
            role=Role(each["role"]),
            databases=tuple(each["databases"]),
            allow=None if each["allow"] is None else tuple(each["allow"]),
            deny=tuple(each["deny"]),
            values=tuple(Value(**value) for value in each["values"]),
            backup_before_destroy=each.get("backup_before_destroy", False),
        )
        for each in kept or []
    ]
