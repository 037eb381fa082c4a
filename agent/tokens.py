"""Who a request comes from: static tokens, kept as SHA-256."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256

from agent.errors import Forbidden, SettingsError, Unauthenticated
from agent.roles import Role, allows, needed_for
from agent.settings import Settings
from agent.tasks import Task
from engines.action import Action


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The holder of a token."""

    name: str
    role: Role
    databases: frozenset[str] | None
    """Ids in its scope; None is all."""
    allow: frozenset[str] | None = None
    deny: frozenset[str] = field(default_factory=frozenset[str])

    def sees(self, database_id: str) -> bool:
        """Tell whether a database is in this token's scope."""
        return self.databases is None or database_id in self.databases

    def refusal(self, action: Action | Task) -> str | None:
        """Tell why this token may not perform an action or a task; None when it may."""
        if not allows(self.role, action.effect):
            return f"{action.name} needs the role {needed_for(action.effect)}; this token is {self.role}."
        if action.name in self.deny or (self.allow is not None and action.name not in self.allow):
            return f"{action.name} is not among the actions of this token."
        return None

    def require_all_databases(self) -> None:
        """Refuse a token that sees some databases only.

        Raises: Forbidden
        """
        if self.databases is not None:
            raise Forbidden("This shows every database; the token sees some of them only.")


class Tokens:
    """The tokens that are known."""

    def __init__(self, settings: Settings) -> None:
        """Raises: SettingsError, when the same token stands there twice"""
        self._by_digest: dict[bytes, Principal] = {}
        for number, token in enumerate(settings.all_tokens()):
            digest = (
                bytes.fromhex(token.sha256)
                if token.sha256
                else sha256(token.secret().get_secret_value().encode()).digest()
            )
            if digest in self._by_digest:
                raise SettingsError(settings.key_of_token(number), f"{token.name} has the same token as another")
            self._by_digest[digest] = Principal(
                name=token.name,
                role=token.role,
                databases=None if "*" in token.databases else frozenset(token.databases),
                allow=None if token.allow is None else frozenset(token.allow),
                deny=frozenset(token.deny),
            )

    def authenticate(self, authorization: bytes | None) -> Principal:
        """Find the principal of an `Authorization` header, given as the bytes that came.

        Raises: Unauthenticated, with one text for every cause
        """
        scheme, _, rest = (authorization or b"").partition(b" ")
        token = rest.strip(b" \t")
        if scheme.lower() == b"bearer" and token:
            digest = sha256(token).digest()
            # What the comparison's time could tell is about a digest, from which no token follows.
            for known, principal in self._by_digest.items():
                if hmac.compare_digest(known, digest):
                    return principal
        raise Unauthenticated
