"""Writes docs/compatibility.md of the outcomes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tests.clients.outcome import ENGINES, Book, Outcome

HEAD = """# Which calls of the official clients work

Made by `scripts/clients`, which runs the clients as they are against a dbvalet with four live engines; a call that
breaks a client ends that run with an error. ✓ works; a number: refused, and the client shows its user that text.

"""

TITLES = {"postgresql": "PostgreSQL", "mysql": "MySQL", "mongodb": "MongoDB", "influxdb": "InfluxDB"}


def page(book: Book, versions: Iterable[str]) -> str:
    """Render the whole page."""
    notes: dict[str, int] = {}
    parts = [HEAD, "Run with " + ", ".join(versions) + ".\n"]
    for client in dict.fromkeys(client for client, _ in book.outcomes):
        titles = [TITLES[engine] for engine in ENGINES.values()]
        parts.append(f"\n## {client}\n\n| call | {' | '.join(titles)} |\n|---|{'---|' * len(titles)}\n")
        for (of, call), row in book.outcomes.items():
            if of == client:
                cells = " | ".join(_cell(row.get(database), database, notes) for database in ENGINES)
                parts.append(f"| `{call}` | {cells} |\n")
    parts.append("\n## Refusals\n\n")
    parts += [f"{number}. {text}\n" for text, number in notes.items()]
    return "".join(parts)


def _cell(outcome: Outcome | None, database: str, notes: dict[str, int]) -> str:
    match outcome:
        case None:
            return ""
        case Outcome(works=True):
            return "✓"
        case Outcome(broke=str()):
            return "**broken**"
        case _:
            text = re.sub(r"\d+\.\d+\.\d+\.\d+:\d+", "HOST:PORT", str(outcome.refusal))
            text = text.replace(database, "ID").replace("|", "\\|")
            return str(notes.setdefault(text, len(notes) + 1))
