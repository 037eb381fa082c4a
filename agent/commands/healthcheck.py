"""`dbvalet healthcheck`."""

from __future__ import annotations

import os

import typer

from agent.commands.trust import Ca

EXAMPLES = """\b
Examples:
  dbvalet healthcheck
  DBVALET_LISTEN=0.0.0.0:8000 dbvalet healthcheck --ca /etc/dbvalet/ca.pem

\b
With TLS: --ca or DBVALET_CA_FILE, and where a client certificate is demanded,
DBVALET_CLIENT_CERTIFICATE and DBVALET_CLIENT_KEY.
Exit codes: 0 ready; 1 not."""


def healthcheck(ca: Ca = None) -> None:
    """Ask the dbvalet of this machine whether it is ready.

    It listens at DBVALET_LISTEN, 127.0.0.1:8000 unless that is set. `python -m agent.healthcheck` does the same,
    without loading what only a command line needs.
    """
    from agent.healthcheck import problem_of

    problem = problem_of({**os.environ, "DBVALET_CA_FILE": str(ca or "")})
    if problem:
        typer.echo(problem, err=True)
        raise typer.Exit(1)
