"""What a request says with its header `Idempotency-Key`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import orjson

from engines.errors import InvalidParams

HEADER = "Idempotency-Key"

LONGEST = 255


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request with a key."""

    who: str
    """The name of its token: keys of several clients do not meet."""
    key: str
    fingerprint: str

    @property
    def mark(self) -> str:
        """What an operation that it begins is found by."""
        return sha256(orjson.dumps([self.who, self.key, self.fingerprint])).hexdigest()


def key_of(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Read the key of a request; None without one.

    Raises: InvalidParams
    """
    given = [value for name, value in headers if name == b"idempotency-key"]
    if not given:
        return None
    key = given[0].decode("latin-1").strip(" \t")
    if len(given) > 1 or not 1 <= len(key) <= LONGEST or any(not "!" <= each <= "~" for each in key):
        raise InvalidParams({HEADER: [f"must be one value of 1 to {LONGEST} visible ASCII characters"]})
    return key


def fingerprint_of(method: str, path: str, body: bytes) -> str:
    """Give the same text for requests that ask for the same."""
    try:
        asked = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS) if body else b""
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        asked = body
    return sha256(b"\0".join([method.encode(), path.encode(), asked])).hexdigest()
