"""One JSON object a line on standard output. Secrets of the configuration are blotted out wherever they turn up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import reduce
from typing import TYPE_CHECKING, Any, cast

import orjson
import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Log = Any
"""A structlog logger (its own types are only known to type checkers)."""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

BLOT = "[secret]"


def make_log(level: str = "info", secrets: Iterable[str] = (), stream: Any = None) -> FilteringBoundLogger:
    """Make the log. `stream` is a binary file, standard output by default."""
    return cast(
        "FilteringBoundLogger",
        structlog.wrap_logger(
            structlog.BytesLogger(stream or sys.stdout.buffer),
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                _blotting(secrets),
                structlog.processors.JSONRenderer(serializer=_to_json),
            ],
            cache_logger_on_first_use=True,
        ),
    )


def _to_json(event: Any, **_: Any) -> bytes:
    return orjson.dumps(event, default=repr)


def _blotting(secrets: Iterable[str]) -> Callable[[WrappedLogger, str, EventDict], EventDict]:
    """Texts of engines and of Python can quote what they were given, an exception's traceback for example."""
    known = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def blot(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        for key, value in event.items():
            if isinstance(value, str) and any(secret in value for secret in known):
                event[key] = reduce(lambda text, secret: text.replace(secret, BLOT), known, value)
        return event

    return blot
