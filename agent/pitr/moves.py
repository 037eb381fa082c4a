"""What a restore to an instant does to the server, step by step, and what a cancellation may cut off of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from agent.operations.kind import Run
from engines.backup import Progress
from engines.errors import EngineError, RecoveryFailed
from engines.recovery import Recovery, Standing, Timeline

T = TypeVar("T")


async def told(run: Run, doing: Coroutine[Any, Any, None]) -> None:
    """Tell the server to stop or to start: that cannot be taken back, so that who cancels waits until it is done.

    A program that is ended may have told it already, or go on where `docker exec` has begun it.
    """
    task = asyncio.ensure_future(doing)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if run.lost:
            task.cancel()
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()  # does nothing to one that has ended; dbvalet does not wait any longer
        _ = task.cancelled() or task.exception()  # a server that did not stop or start is brought back all the same
        raise


async def started(run: Run, recovery: Recovery) -> Standing:
    """Start the server; one that was still shutting down counts as running, ends without a word, and is started then.

    Raises: RecoveryFailed, EngineUnavailable
    """
    progress = part(run, run.percent, run.percent)
    await recovery.start()
    try:
        return await recovery.wait_promoted(progress)
    except RecoveryFailed:
        if await recovery.is_running():
            raise
    await recovery.start()
    return await recovery.wait_promoted(progress)


async def line_of(recovery: Recovery, standing: Standing, known: list[Timeline]) -> Timeline | None:
    """Tell what can be told of a timeline that has just begun; `Clusters.learn` adds the rest.

    Its history reaches the archive a moment later, or not at all where that was set up differently then.
    """
    try:
        return await recovery.fork_of(standing, known)
    except EngineError:
        pass
    try:
        marker = await recovery.commit(None)
    except EngineError:
        return None
    if marker is None:
        return None
    return Timeline(
        number=marker.timeline, parent=None, forked_at_lsn=None, began_at=marker.committed_at, ended_at=None
    )


async def condition(recovery: Recovery) -> str:
    """Tell a person what has become of the server."""
    try:
        running = await recovery.is_running()
    except EngineError:
        return "Whether the server runs is not known."
    return "The server runs, but takes no writes." if running else "The server is down."


async def uncancelled(run: Run, way: Coroutine[Any, Any, T]) -> T:
    """Go a way to its end, whoever asks meanwhile for the operation to be cancelled: it may be half done already.

    Only an owner that must stop stops: what is left of it is done by the next one.
    """
    going = asyncio.create_task(way)
    while not going.done():
        try:
            await asyncio.wait([going])
        except asyncio.CancelledError:
            if run.lost or run.leaving:
                going.cancel()
                await asyncio.wait([going])
                raise
    return going.result()


def part(run: Run, begin: float, end: float) -> Progress:
    """Tell the progress of a part as that of the whole."""
    return lambda percent, words: run.progress(begin + (end - begin) * percent / 100, words)
