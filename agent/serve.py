"""The start and the end of `dbvalet serve`. Imports of weight stand inside, after what makes them faster."""

from __future__ import annotations

import gc
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from agent.settings import Settings


def serve(config: Path | None) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are finished first, and the process then ends with 0.

    Raises: SettingsError
    """
    # Not uvicorn's handlers alone: there are none while everything is imported, and at the end uvicorn raises the
    # signal anew, which would make an ordered stop look like a crash.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    # Nearly all that a start makes stays: looking for garbage in it took a fifth of the time.
    gc.disable()
    # SQLAlchemy and structlog take it along for what is not done here: 1 MiB.
    sys.modules.setdefault("greenlet", None)  # pyright: ignore[reportArgumentType] - how Python spells "not to be had"
    settings, app, log = put_together(config)
    from agent.listen import Listener, bind, certificates_of
    from agent.log import StandardLogging

    logging.basicConfig(level=logging.WARNING, handlers=[StandardLogging(log)], force=True)
    certificates = certificates_of(settings, log)
    listener = Listener(app, bind(settings.host, settings.port), log, certificates)
    gc.freeze()
    gc.enable()
    listener.run()


def put_together(config: Path | None) -> tuple[Settings, FastAPI, Any]:
    """Read the configuration and make the service of it, with its log; nothing is connected and nothing listens.

    Raises: SettingsError
    """
    from agent.app import create_app, secrets_of
    from agent.log import make_log
    from agent.settings import load_settings

    settings = load_settings(config)
    log = make_log(settings.log_level, secrets_of(settings))
    return settings, create_app(settings, log=log), log


def _end(_number: int, _frame: object) -> None:
    sys.exit(0)
