"""The command `dbvalet`: one module of `agent.commands` for each of its commands."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the command; what cannot be done ends it with one line, a mistake in the configuration with exit code 2."""
    from agent.errors import AgentError, SettingsError

    try:
        match sys.argv[1:]:
            # How the service is started day by day: it need not wait 40 ms for the command line's library.
            case ["serve"]:
                _serve(None)
            case ["serve", "--config" | "-c", file]:
                _serve(Path(file))
            case _:
                _run()
    except AgentError as refused:
        print(f"dbvalet: {refused.message}", file=sys.stderr)
        sys.exit(2 if isinstance(refused, SettingsError) else 1)


def _serve(config: Path | None) -> None:
    from agent.serve import serve

    serve(config)


def _run() -> None:
    from agent.commands.root import app

    app()
