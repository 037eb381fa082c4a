"""Links that carry no token: signed, for a quarter of an hour, and good as long as the token that asked for them is."""

from __future__ import annotations

import hmac
import re
import time
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_hex
from typing import Any

from agent.databases import Database, Databases
from agent.dispatch import authorise
from agent.errors import DatabaseNotFound, Forbidden, LinkInvalid
from agent.state.state import State
from agent.tasks import Task
from agent.tokens import Principal, Tokens

LINK_SECONDS = 900
"""How long one can be used, and not longer than its token; a download that has begun may take longer."""

_SECONDS = re.compile("[1-9][0-9]{0,11}")


@dataclass(frozen=True, kw_only=True)
class Link:
    """What a link that is as it was given lets do."""

    task: Task
    fingerprint: str
    """Of the static token that stands behind it."""
    name: str
    """Of that token."""
    ends: int
    """Seconds since the epoch."""


class Links:
    """Signs links and reads them."""

    def __init__(self, state: State, tokens: Tokens, databases: Databases) -> None:
        self._memory = state.memory_of("")
        self._tokens = tokens
        self._databases = databases

    async def sign(self, principal: Principal, task: Task, about: str) -> tuple[int, str]:
        """Give when a link ends, in seconds since the epoch, and its signature; neither needs quoting in a URL.

        about: all that the link says beside these two

        Raises: Precondition, when the state cannot be written
        """
        ends = int(time.time()) + LINK_SECONDS
        if principal.until is not None:
            ends = min(ends, principal.until)
        link = Link(task=task, fingerprint=principal.fingerprint, name=principal.name, ends=ends)
        return ends, f"{link.fingerprint}.{await self._digest(link, about)}"

    async def read(self, task: Task, about: str, ends: str, signature: str) -> Link:
        """Read a link; `good_for` tells whether it still holds.

        Raises: LinkInvalid, when it was changed; Precondition, when the state cannot be read
        """
        fingerprint, _, digest = signature.partition(".")
        behind = self._tokens.behind(fingerprint)
        if behind is None or not _SECONDS.fullmatch(ends) or not digest.isascii():
            raise LinkInvalid
        link = Link(task=task, fingerprint=fingerprint, name=behind.name, ends=int(ends))
        if not hmac.compare_digest(await self._digest(link, about), digest):
            raise LinkInvalid
        return link

    def good_for(self, link: Link, database_id: str) -> tuple[Principal, Database]:
        """Find who asked for a link, and the database: as long as the link holds and its token may do this there.

        Raises: LinkInvalid
        """
        principal = self._tokens.behind(link.fingerprint)
        if principal is None or principal.name != link.name or link.ends <= time.time():
            raise LinkInvalid
        try:
            database = self._databases.find(principal, database_id)
            authorise(principal, database, link.task)
        except (DatabaseNotFound, Forbidden):
            raise LinkInvalid from None
        return principal, database

    async def _digest(self, link: Link, about: str) -> str:
        # Of the state, so that another dbvalet that shares it can answer the link.
        key: Any = await self._memory.keep_first("link_key", token_hex(32))
        # The name of a token may have spaces: it comes last.
        text = f"{link.task.name} {about} {link.ends} {link.fingerprint} {link.name}"
        return hmac.new(bytes.fromhex(key), text.encode(), sha256).hexdigest()
