"""The codes of failures: which causes carry each, and what it means. Read from the causes themselves."""

from __future__ import annotations

from collections.abc import Iterator

from agent import errors as agent_errors
from engines import errors as engine_errors

Cause = type[agent_errors.AgentError] | type[engine_errors.EngineError]

_WITHOUT_A_CAUSE = {
    "internal": "A bug of dbvalet. The text holds only the request id, under which the log has the rest.",
    "method_not_allowed": "There is something at this path, but not for this method.",
}


def causes() -> dict[str, list[Cause]]:
    """Give the causes that reach a client by their code, the general one before those that it splits into."""
    found: dict[str, list[Cause]] = {}
    for root in (agent_errors.AgentError, engine_errors.EngineError):
        for cause in _below(root):
            if cause is not agent_errors.SettingsError:
                found.setdefault(cause.code, []).append(cause)
    return found


def meaning(code: str) -> str:
    """Say what a code means; nothing for one that is not known."""
    if code in _WITHOUT_A_CAUSE:
        return _WITHOUT_A_CAUSE[code]
    # A cause that took over the code of another is a case of it.
    own = [each for each in causes().get(code, []) if "code" in vars(each)]
    return " ".join(engine_errors.default_message(each) for each in own)


def _below(cause: Cause) -> Iterator[Cause]:
    for each in cause.__subclasses__():
        if each.__module__ in (agent_errors.__name__, engine_errors.__name__):
            yield each
            yield from _below(each)
