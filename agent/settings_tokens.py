"""The part of the configuration that says who may do what, and how often."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PrivateAttr, SecretStr, model_validator

from agent.roles import Role
from agent.settings_values import Name, Rate, Section, like, secret_of

SHORTEST_TOKEN = 16


class TokenSettings(Section):
    """A static token: its value, a file that holds it, or its SHA-256 in hex."""

    name: Name
    """Who holds it, as the log says."""
    token: SecretStr | None = None
    """Its value, at least 16 visible ASCII characters."""
    token_file: Path | None = None
    """A file that holds its value and nothing else."""
    sha256: Annotated[str, like(r"[0-9a-fA-F]{64}", "must be 64 hex digits")] | None = None
    """The SHA-256 of its value, in hex: then the value is not here at all."""
    role: Role
    """A reader reads, an operator changes too, an admin also destroys."""
    databases: Annotated[list[str], Field(min_length=1)]
    """Database ids, or `"*"` for all."""
    allow: list[str] | None = None
    """Only these actions."""
    deny: list[str] = Field(default_factory=list[str])
    """All actions of the role but these."""
    expires_at: datetime | None = None
    """With an offset, as in 2027-01-31T00:00:00Z: from then on it is refused. Never unless given."""
    backup_before_destroy: bool = False
    """As at a database, for whatever this token destroys."""

    _value: SecretStr = PrivateAttr()

    @model_validator(mode="after")
    def _onesecret_of(self) -> Self:
        if sum(value is not None for value in (self.token, self.token_file, self.sha256)) != 1:
            raise ValueError("exactly one of token, token_file and sha256 is needed")
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise ValueError("expires_at needs an offset, such as 2027-01-31T00:00:00Z")
        self._value = secret_of(self.token, self.token_file)
        value = self._value.get_secret_value()
        if self.sha256 is None and len(value) < SHORTEST_TOKEN:
            raise ValueError(
                f"the token needs at least {SHORTEST_TOKEN} characters: make one with `openssl rand -hex 32`"
            )
        if re.search(r"[^!-~]", value):
            raise ValueError("the token may hold visible ASCII characters only, and no space: others are lost in HTTP")
        return self

    def secret(self) -> SecretStr:
        """Give the token's value; empty where only its SHA-256 is known."""
        return self._value


class LimitSettings(Section):
    """Requests that one token may make, by effect: `100/second`, `10/minute`. Without a value there is no limit.
    What the token may not do is counted too. And how many may be at work on one database."""

    read: Rate | None = None
    """Actions that read, and the other routes."""
    write: Rate | None = None
    """Actions that change something."""
    destructive: Rate | None = None
    """Actions that destroy something."""
    concurrent: Annotated[int, Field(ge=1)] = 256
    """Requests on one database at a time, reads and changes counted apart; more are answered 503 `overloaded` at once.
    While a server does not answer, 8 of each may wait for it."""
