"""A deployment on the live PostgreSQL, with the account that the grants script makes."""

from collections.abc import AsyncIterator

import pytest

from tests.live.images import newest
from tests.live.postgresql.deployment import Deployment, new_deployment
from tests.live.servers import LiveServer, spawn


@pytest.fixture
async def deployment(postgresql: LiveServer) -> AsyncIterator[Deployment]:
    """A fresh logical database, dbvalet's server for it, and people who use it."""
    async with new_deployment(postgresql) as made:
        yield made


@pytest.fixture(scope="module")
async def private_server() -> AsyncIterator[LiveServer]:
    """A server of the newest version that the tests of one module may freeze, stop and kill."""
    image = newest("postgresql")
    with spawn(image.flavour, image.version) as server:
        yield server


@pytest.fixture
async def private_deployment(private_server: LiveServer) -> AsyncIterator[Deployment]:
    """A fresh logical database on the private server."""
    async with new_deployment(private_server) as made:
        yield made
