"""Short-lived tokens (JWT, HS256): made for a static one, and worth what that one is worth when they are used."""

from __future__ import annotations

import time
from typing import Any

from agent.platform.signing_keys import LIFETIME_SECONDS, SigningKeys

ALGORITHM = "HS256"
ISSUER = "dbvalet"


class SignedTokens:
    """Makes and reads them. PyJWT is imported when the first one is met."""

    def __init__(self, keys: SigningKeys) -> None:
        self._keys = keys

    async def sign(self, name: str, fingerprint: str, database_id: str | None = None) -> str:
        """Make a token for the holder of a static one, for a single database or for all of its scope.

        Raises: Precondition, when the state cannot be used
        """
        import jwt

        key = await self._keys.signing()
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "sub": name,
            "tok": fingerprint,
            "iat": now,
            "exp": now + LIFETIME_SECONDS,
        }
        if database_id is not None:
            claims["db"] = database_id
        return jwt.encode(claims, key.secret, ALGORITHM, headers={"kid": key.id})

    def read(self, token: str) -> dict[str, Any] | None:
        """Give the claims of a token that is ours, whole and not expired; None for every other."""
        import jwt

        try:
            key = self._keys.find(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                return None
            return jwt.decode(
                token,
                key.secret,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                options={"require": ["exp", "iat", "sub", "tok"]},
            )
        except jwt.PyJWTError:
            return None
