"""`dbvalet` that is killed at a moment of its first action that changes something: DIE says at which."""

import asyncio
import os
import signal
from typing import Any

from agent import dispatch
from agent.cli import main

BEFORE, DURING, AFTER = "before", "during", "after"

_perform = dispatch.perform


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def perform(server: Any, action: Any, params: Any = None) -> Any:
    at = os.environ["DIE"] if action.effect != "read" else None
    if at == BEFORE:
        die()
    elif at == DURING:
        asyncio.get_running_loop().call_later(0.003, die)
    result = await _perform(server, action, params)
    if at is not None:
        die()
    return result


if __name__ == "__main__":
    # Not for who imports this for its names.
    dispatch.perform = perform  # pyright: ignore[reportPrivateImportUsage]
    main()
