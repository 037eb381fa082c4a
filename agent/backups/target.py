"""What makes and restores backups: of a deployment's own logical database, or of another one on its server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from agent.databases import Database
from engines.backup import Backups
from engines.engine import Server, perform
from engines.errors import AlreadyExists, EngineUnavailable, InvalidParams, Precondition
from engines.neighbours import refuse_others

READY_SECONDS = 15.0
"""How long an engine may take to say whether it is ready for backups."""


@asynccontextmanager
async def target(database: Database, logical_database: str | None) -> AsyncGenerator[Backups]:
    """Give what makes and restores backups of a logical database; None is the deployment's own.

    Raises: Precondition, when its engine has no such thing
    """
    if logical_database is None:
        yield _offered(database, database.server)
        return
    server = database.engine.connect(database.server.address.of(logical_database))
    try:
        yield _offered(database, server)
    finally:
        await server.close()


def _offered(database: Database, server: Server) -> Backups:
    backups = database.engine.backups_of(server)
    if backups is None:
        raise Precondition(f"There are no backups of {database.engine.title} here.")
    return backups


async def require_ready(backups: Backups) -> None:
    """Refuse to go on unless everything is there that backups and restores take.

    Raises: Precondition, which says what is missing and how to get it; EngineUnavailable
    """
    try:
        async with asyncio.timeout(READY_SECONDS):
            missing = await backups.missing()
    except TimeoutError:
        raise EngineUnavailable("The engine does not say whether it is ready for backups.") from None
    if missing:
        raise Precondition(" ".join(missing))


async def require_ready_at(database: Database, logical_database: str | None) -> None:
    """Refuse to go on unless a backup of a logical database can be made and restored.

    Raises: Precondition, EngineUnavailable
    """
    async with target(database, logical_database) as backups:
        await require_ready(backups)


async def make_room(database: Database, logical_database: str) -> None:
    """Create the logical database that is going to be restored, if it is gone.

    Raises: Protected, when it is the own one of another deployment by now; PrivilegeMissing, EngineUnavailable
    """
    refuse_others(database.server, logical_database)
    if database.engine.creates is None:
        return
    create = database.engine.actions[database.engine.creates]
    try:
        await perform(database.server, create, create.validate({"database_name": logical_database}))
    except (AlreadyExists, InvalidParams):
        return  # An odd name, which only others make: the restore itself says when it is not there.
