"""The versions of a server that an engine is made for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Versions:
    """Of a server, those that an engine is made for."""

    oldest: tuple[int, ...]
    before: tuple[int, ...] | None = None
    """The first that is another thing by the same name; None where later ones are taken to do as the newest does."""

    def __contains__(self, version: tuple[int, ...]) -> bool:
        """Tell whether a version is one of them; () is the newest."""
        return not version or (self.oldest <= version and (self.before is None or version < self.before))

    def __str__(self) -> str:
        """Say which they are: `12 and later`."""
        oldest = ".".join(map(str, self.oldest))
        return f"{oldest} and later" if self.before is None else f"before {'.'.join(map(str, self.before))}"
