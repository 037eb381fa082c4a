"""One JSON object a line on standard output. Secrets of the configuration are blotted out wherever they turn up."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from functools import reduce
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import orjson

from engines.lean import without

# For the colours of a console and for contexts of greenlets, of which there are none here: 6 MiB.
with without("rich", "greenlet"):
    import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Log = Any
"""A structlog logger (its own types are only known to type checkers)."""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

BLOT = "[secret]"

LONGEST_TRACEBACK = 32 * 1024
"""Characters. Whoever finds a way into a deep recursion must not fill a disk with it."""

SHORTEST_SECRET = 8
"""Characters. A shorter password, `app` for example, would blot out half of what a log says: it is only blotted out
where it stands as one, between `:` and `@`."""


def make_log(level: str = "info", secrets: Iterable[str] = (), stream: Any = None) -> FilteringBoundLogger:
    """Make the log. `stream` is a binary file, standard output by default."""
    return cast(
        "FilteringBoundLogger",
        structlog.wrap_logger(
            structlog.BytesLogger(cast("Any", Output(stream or sys.stdout.buffer))),
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                _blotting(secrets),
                _cut_traceback,
                structlog.processors.JSONRenderer(serializer=_to_json),
            ],
            cache_logger_on_first_use=True,
        ),
    )


def secrets_in_url(url: str) -> set[str]:
    """List what of a database URL must never be seen: all of it, and its password as written and as meant."""
    # Not urlsplit: this comes before anything has checked the URL.
    written = url.partition("://")[2].partition("/")[0].rpartition("@")[0].partition(":")[2]
    secrets = {url}
    for password in {written, unquote(written)} - {""}:
        secrets |= {password if len(password) >= SHORTEST_SECRET else f":{password}@"}
    return secrets


class Output:
    """Where the lines go. What was done on an engine is answered, even though no line of it can be written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost = 0
        """How many writes failed: the disk is full, or nobody reads the pipe any more."""

    def write(self, line: bytes) -> None:
        """Write a line, or count it as lost."""
        try:
            self._stream.write(line)
        except OSError:
            self.lost += 1

    def flush(self) -> None:
        """Push the line out, or count it as lost."""
        try:
            self._stream.flush()
        except OSError:
            self.lost += 1


class StandardLogging(logging.Handler):
    """Puts what libraries say through `logging` into the log, as lines of the same form."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.ERROR)
        try:
            self._log.log(level, "library", logger=record.name, message=record.getMessage(), exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 - as every handler: a library's bad message must not break what it was doing
            self.handleError(record)


def _to_json(event: Any, **_: Any) -> bytes:
    return orjson.dumps(event)


def _cut_traceback(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Leave out the middle: the beginning tells where it came from, the end what it is."""
    traceback = event.get("exception")
    if isinstance(traceback, str) and len(traceback) > LONGEST_TRACEBACK:
        part = LONGEST_TRACEBACK // 2
        event["exception"] = f"{traceback[:part]}\n…\n{traceback[-part:]}"
    return event


_DECLARED = frozenset({"event", "level", "timestamp", "who", "database", "action", "outcome"})
"""Keys whose values are names that the code or the configuration declares: they need no search for secrets."""


def blotter(secrets: Iterable[str]) -> Callable[[str], str]:
    """Give what takes secrets out of a text."""
    known = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def blot(text: str) -> str:
        if any(secret in text for secret in known):
            return reduce(lambda text, secret: text.replace(secret, BLOT), known, text)
        return text

    return blot


def _blotting(secrets: Iterable[str]) -> Callable[[WrappedLogger, str, EventDict], EventDict]:
    """Texts of engines and of Python can quote what they were given, an exception's traceback for example."""
    blot = blotter(secrets)

    def blot_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        for key, value in event.items():
            if key in _DECLARED or value is None or isinstance(value, int | float):
                continue
            event[key] = blot(value if isinstance(value, str) else repr(value))
        return event

    return blot_event
