"""The codes of failures: which causes carry each, and what it means. Read from the causes themselves."""

from __future__ import annotations

from collections.abc import Iterator

from agent.errors import AgentError, SettingsError
from engines.errors import EngineError, default_message

Cause = type[AgentError] | type[EngineError]

_WITHOUT_A_CAUSE = {
    "internal": "A bug of dbvalet. The text holds only the request id, under which the log has the rest.",
    "method_not_allowed": "There is something at this path, but not for this method.",
}


def causes() -> dict[str, list[Cause]]:
    """Give the causes that reach a client by their code, the most general first.

    One that has no code of its own reaches none: it ends an operation, or it is a bug.
    """
    found: dict[str, list[Cause]] = {}
    for cause in (*_below(EngineError), *_below(AgentError)):
        if cause is not SettingsError and cause.code != EngineError.code:
            found.setdefault(cause.code, []).append(cause)
    return found


def meaning(code: str) -> str:
    """Say what a code means; nothing for one that is not known."""
    carried_by = causes().get(code)
    return default_message(carried_by[0]) if carried_by else _WITHOUT_A_CAUSE.get(code, "")


def _below(cause: Cause) -> Iterator[Cause]:
    """Those of other packages are left out: what they mean is not known where they are not installed."""
    for each in cause.__subclasses__():
        if each.__module__ == cause.__module__:
            yield each
            yield from _below(each)
