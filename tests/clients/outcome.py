"""What became of a call: the client got what it wanted, or showed its user why not, or broke."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.live.images import Engine

ENGINES: dict[str, Engine] = {"ad-pg": "postgresql", "ad-my": "mysql", "ad-mg": "mongodb", "ad-inf": "influxdb"}


@dataclass(frozen=True)
class Outcome:
    """One call of one client on one database."""

    works: bool
    value: Any = None
    """What the client made of the answer."""
    refusal: str | None = None
    """The text that its user saw; None when it broke."""
    broke: str | None = None
    """How, for the end of the run."""


@dataclass
class Book:
    """All outcomes, by client, call and database."""

    outcomes: dict[tuple[str, str], dict[str, Outcome]] = field(default_factory=dict)

    def write(self, client: str, call: str, database: str, outcome: Outcome) -> Outcome:
        """Keep an outcome; a call that broke once stays broken."""
        row = self.outcomes.setdefault((client, call), {})
        before = row.get(database)
        if before is None or before.broke is None:
            row[database] = outcome
        return outcome

    def broken(self) -> list[str]:
        """List what no user should see."""
        return [
            f"{client}: {call} on {database}: {outcome.broke}"
            for (client, call), row in self.outcomes.items()
            for database, outcome in row.items()
            if outcome.broke is not None
        ]
