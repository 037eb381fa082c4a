"""Runs the programs of a recovery: no shell, no terminal, no secret, and what they said when they failed."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.threads import in_own_thread

LAST_WORDS = 2000

TERMINATE_SECONDS = 30.0
"""How long a program that changes something may take to end in order."""

ASK_SECONDS = 2.0
"""How long one that only reads may take for that: a request waits for it, and nothing is lost when it is killed."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Its last words, for a person."""
        return (self.err.strip() or self.out.strip())[-LAST_WORDS:] or "it said nothing"


Way = Callable[[Sequence[str]], Awaitable[Said]]


async def ask(argv: Sequence[str]) -> Said:
    """Run a program that only reads to its end; when the waiting task is cancelled it is ended without delay.

    Raises: OSError, when it cannot be run
    """
    return await _run(argv, ASK_SECONDS)


async def run(argv: Sequence[str]) -> Said:
    """Run a program to its end; when the waiting task is cancelled it is ended first.

    Raises: OSError, when it cannot be run
    """
    return await _run(argv, TERMINATE_SECONDS)


async def _run(argv: Sequence[str], grace: float) -> Said:
    """Run a program; one that is still there so many seconds after it was told to end is killed.

    Its output goes to files: a server that it starts may keep them open.

    Raises: OSError, when it cannot be run
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "HOME", "LD_LIBRARY_PATH") or name.startswith("PGBACKREST_")
    }
    with tempfile.TemporaryDirectory(prefix="dbvalet-") as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        with out.open("wb") as to_out, err.open("wb") as to_err:  # noqa: ASYNC230 - small, and none may appear later
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=to_out,
                stderr=to_err,
                env={**inherited, "LC_ALL": "C"},
                start_new_session=True,  # so that it can be ended with its children
            )
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), grace)
                except TimeoutError:
                    process.kill()
                    await process.wait()
        texts = await in_own_thread(lambda: [each.read_text(errors="replace") for each in (out, err)])
    return Said(code=code, out=texts[0], err=texts[1])
