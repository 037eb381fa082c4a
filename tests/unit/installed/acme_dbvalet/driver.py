"""The server of the acme engine: needs no network."""

from datetime import UTC, datetime

from engines.address import Address
from engines.engine import Description, Engine, Memory, PoolUse


class AcmeServer:
    """Is always there."""

    def __init__(self, address: Address, memory: Memory) -> None:
        self.address = address
        self.waiting = 0

    @property
    def engine(self) -> Engine:
        from acme_dbvalet import ENGINE

        return ENGINE

    async def describe(self) -> Description:
        return Description(version=(1,), readable_version="1.0", started_at=datetime(2026, 1, 31, tzinfo=UTC))

    async def restarted(self, description: Description) -> None:
        pass

    def pool_use(self) -> PoolUse:
        return PoolUse(open=self.waiting, in_use=self.waiting, limit=9)

    async def close(self) -> None:
        pass
