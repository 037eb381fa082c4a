from collections.abc import AsyncIterator

import pytest

from tests.fakes.service import Valet, running


@pytest.fixture
async def valet() -> AsyncIterator[Valet]:
    async with running() as valet:
        yield valet
