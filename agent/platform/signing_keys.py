"""The keys that sign short-lived tokens: in the state, so that every dbvalet on it knows them; rotated with overlap."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from agent.held import Held
from agent.log import Log
from agent.state.state import State
from engines.errors import Precondition

MEMORY = "signing_keys"

LIFETIME_SECONDS = 3600
"""How long a token lasts. Clients ask for another one when less than 5 minutes are left."""

ROTATE_SECONDS = 30 * 24 * 3600
"""How old the newest key may become."""

SPREAD_SECONDS = 60
"""How long a new key only verifies: until then every dbvalet on the state has read it."""

LOOK_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key for HMAC-SHA-256."""

    id: str
    secret: str
    made_at: int
    """Seconds since the epoch."""


class SigningKeys:
    """The keys as last read. To verify takes no I/O."""

    def __init__(self, state: State, log: Log) -> None:
        self._state = state
        self._memory = state.memory_of("")
        self._log = log
        self._keys: list[Key] = []
        self._held = Held()
        self._watcher: asyncio.Task[None] | None = None

    def find(self, key_id: str) -> Key | None:
        """Give a key that a token names; none while it could not be read for too long which there are."""
        if self._held.is_over:
            return None
        return next((each for each in self._keys if each.id == key_id), None)

    async def signing(self) -> Key:
        """Give the key to sign with; the first one is made when it is first needed.

        Raises: Precondition, when the state cannot be used
        """
        if not self._keys or self._held.is_over:
            kept = await self._memory.keep_first(MEMORY, [_as_json(_made())])
            self._take(kept)
        now = time.time()
        spread = [each for each in self._keys if each.made_at + SPREAD_SECONDS <= now]
        return max(spread or self._keys[:1], key=lambda each: each.made_at)

    async def rotate(self, *, older_than: int = 0) -> None:
        """Add a key, and forget those that no token can be signed with any more; of several dbvalets one does it.

        older_than: seconds; nothing is done where a key was made since

        Raises: Precondition, when the state cannot be used
        """
        now = int(time.time())

        def rotated(kept: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
            kept = kept or []
            newest = max((each["made_at"] for each in kept), default=0)
            if older_than and now - newest <= older_than:
                return kept
            old_until = newest + SPREAD_SECONDS + LIFETIME_SECONDS
            usable = kept if now < old_until else [each for each in kept if each["made_at"] == newest]
            return [*usable, _as_json(_made())]

        before = {each.id for each in self._keys}
        self._take(await self._memory.change(MEMORY, rotated))
        for made in (each for each in self._keys if each.id not in before and each.made_at >= now):
            self._log.info("signing_key_rotated", key=made.id)

    async def replace(self) -> None:
        """Have one new key and no other: every token that was signed ends as soon as a dbvalet has read this.

        Raises: Precondition, when the state cannot be used
        """
        await self._memory.remember(MEMORY, [_as_json(_made())])
        await self.read()

    async def read(self) -> None:
        """Read the keys that there are.

        Raises: Precondition, when the state cannot be read
        """
        self._take(await self._memory.recall(MEMORY) or [])

    def start(self) -> None:
        """Follow what others on this state make, and rotate in time."""
        self._watcher = asyncio.create_task(self._watch())

    def close(self) -> None:
        """Stop that."""
        if self._watcher is not None:
            self._watcher.cancel()

    def _take(self, kept: list[dict[str, Any]]) -> None:
        self._keys = [Key(**each) for each in kept]
        self._held.renew()

    async def _watch(self) -> None:
        while True:
            try:
                await self.read()
                if not self._keys and self._state.is_shared:
                    # Made before it is needed, so that the others know it by the time its first token is shown to them.
                    await self.signing()
                if self._keys and time.time() - max(each.made_at for each in self._keys) > ROTATE_SECONDS:
                    await self.rotate(older_than=ROTATE_SECONDS)
            except Precondition as problem:
                self._log.warning("signing_keys_not_read", reason=problem.message)
            except Exception:  # noqa: BLE001 - the watch must outlive a bug, which is logged
                self._log.exception("bug")
            await asyncio.sleep(LOOK_SECONDS)


def _made() -> Key:
    return Key(id=token_hex(8), secret=token_hex(32), made_at=int(time.time()))


def _as_json(key: Key) -> dict[str, Any]:
    return {"id": key.id, "secret": key.secret, "made_at": key.made_at}
