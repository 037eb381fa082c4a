"""Short-lived tokens (JWT, HS256): made for a static one, and worth what that one is worth when they are used."""

from __future__ import annotations

import time
from hashlib import sha256
from typing import Any

from agent.platform.signing_keys import LIFETIME_SECONDS, SigningKeys

ALGORITHM = "HS256"
ISSUER = "dbvalet"

REMEMBERED = 1024
"""Tokens that need not be verified again; the oldest is forgotten first."""


class SignedTokens:
    """Makes and reads them. PyJWT is imported when the first one is met."""

    def __init__(self, keys: SigningKeys) -> None:
        self._keys = keys
        self._verified: dict[bytes, dict[str, Any]] = {}
        """By digest: a dump of this memory gives no token away."""

    async def sign(
        self, name: str, fingerprint: str, *, database_id: str | None = None, until: int | None = None
    ) -> str:
        """Make a token for the holder of a static one, for a single database or for all of its scope.

        until: seconds since the epoch that it may not outlive, as it is made for one that ends then

        Raises: Precondition, when the state cannot be used
        """
        import jwt

        key = await self._keys.signing()
        now = int(time.time())
        ends = now + LIFETIME_SECONDS
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "sub": name,
            "tok": fingerprint,
            "iat": now,
            "exp": ends if until is None else min(ends, until),
        }
        if database_id is not None:
            claims["db"] = database_id
        return jwt.encode(claims, key.secret, ALGORITHM, headers={"kid": key.id})

    def read(self, token: str) -> dict[str, Any] | None:
        """Give the claims of a token that is ours, whole and not expired; None for every other."""
        digest = sha256(token.encode()).digest()
        claims = self._verified.get(digest)
        if claims is not None and claims["exp"] > time.time() and self._keys.find(claims["kid"]) is not None:
            return claims
        self._verified.pop(digest, None)
        claims = self._verify(token)
        if claims is not None:
            if len(self._verified) >= REMEMBERED:
                del self._verified[next(iter(self._verified))]
            self._verified[digest] = claims
        return claims

    def _verify(self, token: str) -> dict[str, Any] | None:
        import jwt

        try:
            key = self._keys.find(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key.secret,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                # When it was made is by the clock of the dbvalet that made it, which may be ahead of this one's.
                options={"require": ["exp", "iat", "sub", "tok"], "verify_iat": False},
            )
        except jwt.PyJWTError:
            return None
        return claims | {"kid": key.id}
