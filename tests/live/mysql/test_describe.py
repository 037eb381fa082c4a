"""A server tells what it is, the same each time and as long as it runs."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from engines import deadline
from engines.errors import DeadlineExceeded, EngineUnavailable
from engines.mysql.server import MySQLServer
from tests.live.mysql.conftest import Root, connect
from tests.live.servers import LiveServer


async def test_version_and_identity(server: MySQLServer, root: Root) -> None:
    described = await server.describe()
    text = str(root.value("SELECT @@version"))
    assert described.version[:2] == root.live.version_tuple
    if root.is_mariadb:
        assert text.startswith(described.readable_version)
        assert described.readable_version.endswith("-MariaDB")
        assert described.resource_id is None
    else:
        assert described.readable_version == text.partition("-")[0]
        assert described.resource_id == root.value("SELECT @@server_uuid")
    assert described.replica_set is None


async def test_two_servers_are_told_apart_and_one_is_the_same_by_whatever_account(
    server: MySQLServer, private_server: MySQLServer, account: str
) -> None:
    again = connect(account)
    try:
        described, same, another = [await each.describe() for each in (server, again, private_server)]
    finally:
        await again.close()
    assert described.instance is not None
    assert described.instance == same.instance != another.instance


async def test_the_start_stays_the_same_to_the_second_and_is_the_servers(server: MySQLServer, root: Root) -> None:
    began = time.monotonic()
    starts: set[datetime] = set()
    while time.monotonic() - began < 1.5:
        starts.add((await server.describe()).started_at)
        await asyncio.sleep(0.01)
    assert len(starts) == 1
    [start] = starts
    uptime = int(root.rows("SHOW GLOBAL STATUS LIKE 'Uptime'")[0][1])
    assert abs(datetime.now(UTC) - timedelta(seconds=uptime) - start) < timedelta(seconds=3)
    # As a connection finds it at its login, whatever the time zone.
    assert server.facts.started_at == start


async def test_the_data_directory_is_older_than_the_start(server: MySQLServer) -> None:
    described = await server.describe()
    assert described.created_at is not None
    assert described.created_at.tzinfo is UTC
    assert (
        described.started_at - timedelta(minutes=2) < described.created_at < described.started_at + timedelta(minutes=1)
    )


async def test_the_servers_time_zone_changes_nothing(server: MySQLServer, account: str, root: Root) -> None:
    before = await server.describe()
    root.run("SET GLOBAL time_zone = '+09:00'")
    elsewhere = connect(account)
    try:
        assert await elsewhere.describe() == before
    finally:
        await elsewhere.close()
        root.run("SET GLOBAL time_zone = 'SYSTEM'")


async def test_a_frozen_server_takes_two_seconds_at_most(private: LiveServer, private_server: MySQLServer) -> None:
    await private_server.describe()
    with private.paused(), deadline.within(10):
        began = time.monotonic()
        with pytest.raises((DeadlineExceeded, EngineUnavailable)):
            await private_server.describe()
        # 2 s, and what it takes to find out that the server cannot be told to stop.
        assert time.monotonic() - began < 5


async def test_the_pool_counts_its_connections(server: MySQLServer) -> None:
    assert (server.pool_use().open, server.pool_use().in_use) == (0, 0)
    await server.describe()
    assert (server.pool_use().open, server.pool_use().in_use, server.pool_use().limit) == (1, 0, 4)
    await asyncio.gather(*(server.fetch("SELECT SLEEP(0.05)") for _ in range(20)))
    assert (server.pool_use().open, server.pool_use().in_use) == (4, 0)
    await server.close()
    assert server.pool_use().open == 0
    with pytest.raises(EngineUnavailable):
        await server.fetch("SELECT 1")
