"""Who a request comes from: static tokens, kept as SHA-256, and the short-lived ones made for them."""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256

from agent.errors import Forbidden, SettingsError, Unauthenticated
from agent.held import HELD_SECONDS, Held
from agent.kept_tokens import KeptToken
from agent.platform.signed_tokens import SignedTokens
from agent.roles import Role, allows, needed_for
from agent.settings import Settings, TokenSettings
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
    backup_before_destroy: bool = False
    """Whether what it destroys is backed up first."""
    until: int | None = None
    """When the token that was shown ends, in seconds since the epoch; None is never."""
    fingerprint: str = ""
    """Of the static token, be it shown or only stand behind a short-lived one."""
    is_kept: bool = False
    """Whether the token is one of the state: good as long as it is read there."""

    @property
    def has_expired(self) -> bool:
        """Whether nobody gets in with it any more."""
        return self.until is not None and self.until <= time.time()

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
    """The tokens that are known: those of the configuration, and those that are kept in the state."""

    def __init__(self, settings: Settings, signed: SignedTokens) -> None:
        """Raises: SettingsError, when the same token stands there twice"""
        self._signed = signed
        self._held = Held()
        self._declared: dict[bytes, Principal] = {}
        for number, token in enumerate(settings.all_tokens()):
            digest = (
                bytes.fromhex(token.sha256)
                if token.sha256
                else sha256(token.secret().get_secret_value().encode()).digest()
            )
            if digest in self._declared:
                raise SettingsError(settings.key_of_token(number), f"{token.name} has the same token as another")
            expires_at = None if token.expires_at is None else int(token.expires_at.timestamp())
            self._declared[digest] = _principal(token, digest, expires_at)
        self.take([])

    def take(self, kept: Iterable[KeptToken]) -> None:
        """Know these tokens beside those of the configuration, and no others; of two of a name the latter counts."""
        self._held.renew()
        names = {each.name for each in self._declared.values()}
        self._by_digest = dict(self._declared)
        for token in kept:
            if token.name not in names:
                for value in token.values:
                    digest = bytes.fromhex(value.sha256)
                    self._by_digest.setdefault(digest, _principal(token, digest, value.expires_at))
        self._by_fingerprint = {each.fingerprint: each for each in self._by_digest.values()}

    def known(self) -> list[Principal]:
        """List the principals of every token, one for each of its values."""
        return list(self._by_digest.values())

    def authenticate(self, authorization: bytes | None) -> Principal:
        """Find the principal of an `Authorization` header, given as the bytes that came.

        Raises: Unauthenticated, with one text for every cause but that of a token that was good when it was last read
        """
        scheme, _, rest = (authorization or b"").partition(b" ")
        token = rest.strip(b" \t")
        if scheme.lower() == b"bearer" and token:
            principal = self._static(token) or (self._short_lived(token) if token.count(b".") == 2 else None)
            if principal is not None:
                self._require_held(principal)
                return principal
        raise Unauthenticated

    async def exchange(self, authorization: bytes | None) -> tuple[Principal, str]:
        """Give the principal of a static token, which comes as the password of `Basic`, and a short-lived token for it.

        Raises: Unauthenticated; Precondition, when the state cannot be used
        """
        scheme, _, rest = (authorization or b"").partition(b" ")
        try:
            given = base64.b64decode(rest.strip(b" \t"), validate=True) if scheme.lower() == b"basic" else b""
        except ValueError:
            given = b""
        token = given.partition(b":")[2]
        principal = self._static(token) if token else None
        if principal is None:
            raise Unauthenticated("A token is needed: `Authorization: Basic` with the base64 of `:TOKEN`.")
        self._require_held(principal)
        return principal, await self.signed_for(principal)

    async def signed_for(self, principal: Principal, database_id: str | None = None) -> str:
        """Make a short-lived token that does not outlive the one shown, on request for one database only.

        Raises: Precondition, when the state cannot be used
        """
        return await self._signed.sign(
            principal.name, principal.fingerprint, database_id=database_id, until=principal.until
        )

    def behind(self, fingerprint: str) -> Principal | None:
        """Find the principal of a static token by its fingerprint, as long as that token lets in."""
        principal = self._by_fingerprint.get(fingerprint)
        if principal is None or principal.has_expired or (principal.is_kept and self._held.is_over):
            return None
        return principal

    def _require_held(self, principal: Principal) -> None:
        """Raises: Unauthenticated, where too long ago it was read whether there still is such a token"""
        if principal.is_kept and self._held.is_over:
            raise Unauthenticated(
                f"For {HELD_SECONDS / 60:.0f} minutes dbvalet could not read in its state which tokens there are: "
                "those that `dbvalet token` made are not taken until it can."
            )

    def _static(self, token: bytes) -> Principal | None:
        digest = sha256(token).digest()
        # What the comparison's time could tell is about a digest, from which no token follows.
        for known, principal in self._by_digest.items():
            if hmac.compare_digest(known, digest):
                return None if principal.has_expired else principal
        return None

    def _short_lived(self, token: bytes) -> Principal | None:
        """Read a short-lived token: worth what the static one is allowed now, and nothing when that is gone."""
        claims = self._signed.read(token.decode("ascii", errors="replace"))
        if claims is None:
            return None
        principal = self._by_fingerprint.get(str(claims["tok"]))
        if principal is None or principal.name != claims["sub"] or principal.has_expired:
            return None
        principal = replace(principal, until=claims["exp"])
        only = claims.get("db")
        if only is None:
            return principal
        seen = principal.databases is None or only in principal.databases
        return replace(principal, databases=frozenset({str(only)} if seen else ()))


def _principal(token: TokenSettings | KeptToken, digest: bytes, until: int | None) -> Principal:
    return Principal(
        name=token.name,
        role=token.role,
        databases=None if "*" in token.databases else frozenset(token.databases),
        allow=None if token.allow is None else frozenset(token.allow),
        deny=frozenset(token.deny),
        backup_before_destroy=token.backup_before_destroy,
        until=until,
        # Of the digest, so that a token that was changed under the same name takes its short-lived ones with it.
        fingerprint=sha256(b"fingerprint" + digest).hexdigest()[:16],
        is_kept=isinstance(token, KeptToken),
    )
