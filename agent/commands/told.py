"""What goes to standard output and must not get lost without a word."""

from __future__ import annotations

import typer


def tell(text: str | bytes, if_lost: str) -> None:
    """Write a line to standard output.

    if_lost: what it means that it could not be written, and what helps

    Raises: AgentError, when it cannot be: the disk is full; BrokenPipeError, when nobody reads it any more
    """
    from agent.errors import AgentError

    try:
        typer.echo(text)
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise AgentError(f"Standard output cannot be written: {problem.strerror}. {if_lost}") from problem
