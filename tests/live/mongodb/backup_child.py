"""Dump or restore in a process: `python -m tests.live.mongodb.backup_child dump|restore URL FOLDER [BYTES|WORDS]`."""

import asyncio
import tempfile
from pathlib import Path

from engines.engine import Server
from engines.mongodb import ENGINE
from engines.mongodb.backup import MongoBackups
from tests.live.backup_child import arguments, work_on
from tests.live.mongodb.conftest import connect


def backups_of(server: Server) -> MongoBackups:
    backups = ENGINE.backups_of(server)
    assert isinstance(backups, MongoBackups)
    return backups


async def main() -> None:
    work, url, folder, given = arguments()
    server = connect(url)
    backups = backups_of(server)
    await backups.missing()
    with tempfile.TemporaryDirectory() as first:
        # What is imported for the first dump is no use of memory by a larger one.
        empty = connect(url.replace("/big?", "/nothing?"))
        await backups_of(empty).dump(Path(first), lambda _, __: None)
        await empty.close()
    await work_on(backups, work, folder, given)
    await server.close()


if __name__ == "__main__":
    asyncio.run(main())
