"""The fake engine's backups: its things, as a file of JSON, and as much noise as a test wants."""

import asyncio
import json
import os
from pathlib import Path

from engines.backup import Manifest, Progress, read_manifest, write_manifest
from tests.fakes.driver import FakeServer


class FakeBackups:
    """`server.backups` tells how they behave."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._controls = server.backups

    async def missing(self) -> list[str]:
        if self._controls.missing_problem is not None:
            raise self._controls.missing_problem
        return self._controls.missing

    async def dump(self, folder: Path, progress: Progress) -> Manifest:
        progress(50, "dumping things")
        await self._passed("dump")
        _write(folder, self._server.things, self._controls.padding)
        return await write_manifest(
            folder,
            engine="fake",
            flavour=None,
            readable_version="1.2.0",
            database="app",
            tool="fake 1",
            notes=["no colours"],
        )

    async def verify(self, folder: Path) -> Manifest:
        await self._passed("verify")
        return await read_manifest(folder)

    async def restore(self, folder: Path, progress: Progress) -> list[str]:
        progress(10, "bringing things back")
        await self._passed("restore")
        things = _read(folder)
        self._controls.half_done = True
        await self._passed("swap")
        self._server.things = things
        self._controls.half_done = False
        return ["things were replaced"]

    async def clean_up(self) -> None:
        await self._passed("clean_up")
        await asyncio.sleep(self._controls.clean_up_seconds)
        self._controls.half_done = False

    async def _passed(self, step: str) -> None:
        if step in self._controls.gates:
            await self._controls.gates[step].passed()
        if step in self._controls.problems:
            raise self._controls.problems[step]
        self._controls.done.append(step)


def _write(folder: Path, things: dict[str, str], padding: int) -> None:
    (folder / "things.json").write_text(json.dumps(things))
    with (folder / "noise").open("wb") as noise:
        for _ in range(padding // 1_000_000):
            noise.write(os.urandom(1_000_000))


def _read(folder: Path) -> dict[str, str]:
    return json.loads((folder / "things.json").read_text())
