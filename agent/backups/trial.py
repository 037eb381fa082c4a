"""Whether something can be written, asked by whoever has to end in time whatever disk or bucket do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread

from agent.operations.outcome import told

TRY_SECONDS = 5.0


async def problem_of(attempt: Callable[[], None]) -> str | None:
    """Try something that blocks and raises OSError when it cannot be done; say why not, or None.

    What does not answer within `TRY_SECONDS` keeps a thread, and nobody: neither who waits nor the end of the process.
    """
    answer: Future[None] = Future()

    def work() -> None:
        answer.set_running_or_notify_cancel()
        try:
            attempt()
        except BaseException as problem:  # noqa: BLE001 - raised again where it is awaited
            answer.set_exception(problem)
        else:
            answer.set_result(None)

    # A thread of an executor would be waited for at the end of the process.
    Thread(target=work, name="dbvalet-trial", daemon=True).start()
    try:
        async with asyncio.timeout(TRY_SECONDS):
            await asyncio.wrap_future(answer)
    except TimeoutError:
        return f"it does not answer within {TRY_SECONDS:g} s."
    except OSError as problem:
        return told(problem)
    return None
