"""The live side of a MongoDB deployment."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from engines import deadline
from engines.address import Address
from engines.engine import Description, Engine, Memory, PoolUse
from engines.errors import PrivilegeMissing
from engines.mongodb import ENGINE
from engines.neighbours import nobody

if TYPE_CHECKING:
    from engines.mongodb.driver import Client

CONNECTIONS = 4
DESCRIBE_SECONDS = 2.0


class MongoServer:
    """A MongoDB server or replica set, asked through `read` and `write`."""

    def __init__(self, address: Address, memory: Memory) -> None:
        self.engine: Engine = ENGINE
        self.address = address
        self.others: Callable[[], Collection[str]] = nobody
        self._client: Client | None = None
        self._process: object = None
        """What told the server process apart when `_version` and `_created_at` were read."""
        self._version: tuple[int, ...] = ()
        self._readable_version = ""
        self._created_at: datetime | None = None
        self._first_seen: datetime | None = None

    async def read(self, database: str, command: dict[str, Any]) -> dict[str, Any]:
        """Run a command that changes nothing.

        Raises: EngineUnavailable, DeadlineExceeded, PrivilegeMissing and the causes of `engines.mongodb.driver`
        """
        client = await self._connected()
        return await client.read(database, command)

    async def write(self, database: str, command: dict[str, Any]) -> dict[str, Any]:
        """Run a command that changes something, once.

        Raises: ConnectionLost, when it may or may not have been done; and as `read`
        """
        client = await self._connected()
        return await client.write(database, command)

    async def describe(self) -> Description:
        """Ask the server what it is: one round trip, two more when its process is a new one.

        Raises: EngineUnavailable, DeadlineExceeded
        """
        with deadline.within(DESCRIBE_SECONDS):
            # `hello` is unknown to 4.2 before 4.2.10; all that are supported answer this one, to any account.
            hello = await self.read("admin", {"isMaster": 1})
            started_at, process = await self._process_of(hello)
            if process != self._process or not self._version:
                build = await self.read("admin", {"buildInfo": 1})
                self._version = tuple(build["versionArray"][:3])
                self._readable_version = build["version"]
                self._created_at = await self._startup_time(first=True)
                self._process = process
        return Description(
            version=self._version,
            readable_version=self._readable_version,
            started_at=started_at,
            created_at=self._created_at,
            instance=instance_of(hello),
            replica_set=hello.get("setName"),
        )

    def of_others(self, names: Collection[str]) -> set[str]:
        """Tell which of these are own databases of other deployments on the server; names differ by more than case."""
        theirs = {each.lower() for each in self.others()}
        return {name for name in names if name.lower() in theirs and name != self.address.database}

    async def restarted(self, description: Description) -> None:
        """Do nothing: MongoDB keeps across a restart all that the actions change."""

    def pool_use(self) -> PoolUse:
        """Count connections without waiting."""
        return PoolUse(open=0, in_use=0, limit=CONNECTIONS) if self._client is None else self._client.pool_use()

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _connected(self) -> Client:
        if self._client is not None:
            return self._client
        # The import takes a while, which other databases' requests should not wait for.
        driver = await asyncio.to_thread(importlib.import_module, "engines.mongodb.driver")
        client: Client = self._client or driver.Client(self.address, CONNECTIONS)
        self._client = client
        return client

    async def _process_of(self, hello: dict[str, Any]) -> tuple[datetime, object]:
        """Tell when the server process started, and what tells it apart from another."""
        topology = hello.get("topologyVersion")
        if topology is not None:
            # Since 4.4: an ObjectId made when the process starts, so its time is that of the start.
            process = topology["processId"]
            return process.generation_time.astimezone(UTC), process
        started_at = await self._startup_time(first=False)
        if started_at is None:
            # 4.2 and an account that may not read the startup log: nothing else tells, so it never seems restarted.
            self._first_seen = started_at = self._first_seen or hello["localTime"].astimezone(UTC)
        return started_at, started_at

    async def _startup_time(self, *, first: bool) -> datetime | None:
        """Read from the log of starts, oldest (the birth of the data directory) or newest; None when not allowed."""
        try:
            reply = await self.read(
                "local",
                {
                    "find": "startup_log",
                    "sort": {"$natural": 1 if first else -1},
                    "limit": 1,
                    "singleBatch": True,
                    "projection": {"startTime": 1},
                },
            )
        except PrivilegeMissing:
            return None
        entries = reply["cursor"]["firstBatch"]
        return entries[0]["startTime"].astimezone(UTC) if entries else None


def instance_of(hello: dict[str, Any]) -> str | None:
    """Read out of `hello` what tells a replica set, or a server of none, from every other; None where nothing does.

    The routers of a sharded cluster do not say which cluster it is.
    """
    if hello.get("msg") == "isdbgrid":
        return None
    if "setName" in hello:
        return f"{hello['setName']} {sorted(hello['hosts'])}" if "hosts" in hello else None
    topology = hello.get("topologyVersion")
    return None if topology is None else str(topology["processId"])
