"""`dbvalet serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  dbvalet serve --config dbvalet.yaml
  dbvalet serve --config dbvalet.yaml --check
  DBVALET_DATABASE_URL=… DBVALET_TOKEN_FILE=/run/secrets/token dbvalet serve"""


def serve(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="The YAML file; a sidecar of one database needs none."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the configuration and exit.")] = False,
) -> None:
    """Serve the API until SIGTERM or SIGINT.

    Requests under way are finished before it ends. The log goes to standard output, one JSON object a line; the line
    "listening" has the address.
    """
    from agent import serve as service

    if not check:
        service.serve(config)
        return
    settings, _, log = service.put_together(config)
    from agent.listen import certificates_of

    certificates_of(settings, log)
    databases, tokens = len(settings.all_databases()), len(settings.all_tokens())
    typer.echo(f"The configuration is valid: databases: {databases}, tokens: {tokens}, listen: {settings.listen}")
