"""Run the service under uvicorn."""

from __future__ import annotations

import gc
from pathlib import Path

import uvicorn

from agent.app import create_app
from agent.settings import load_settings


def serve(config: Path | None) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are finished first.

    Raises: SettingsError
    """
    settings = load_settings(config)
    app = create_app(settings)
    # What was imported lives as long as the process: the collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        log_level="warning",
        timeout_graceful_shutdown=30,
    )
