"""A large database passes through this process without staying in it."""

import asyncio
from pathlib import Path

import pytest

from tests.live.postgresql.backing_up import BackedUp, ignore
from tests.live.postgresql.deployment import Deployment

MEGABYTES = 256

FILL = f"""
CREATE UNLOGGED TABLE large (n integer, filling text);
ALTER TABLE large ALTER COLUMN filling SET STORAGE EXTERNAL;
INSERT INTO large SELECT n, repeat(md5(n::text), 31) FROM generate_series(1, {MEGABYTES} * 1024) AS n;
"""

MOST_MORE = 64 * 1024 * 1024


@pytest.mark.newest_version
async def test_memory_stays_below_64_mib_more_while_a_large_table_is_dumped_and_restored(
    deployment: Deployment, tmp_path: Path
) -> None:
    server = deployment.connect_superuser()
    backed_up = BackedUp(deployment, server, reader=deployment.user)
    await backed_up.run(FILL)
    assert await deployment.value("SELECT pg_table_size('large')") > MEGABYTES * 1_000_000
    checksum = "SELECT sum(hashtext(n || filling)::bigint) FROM large"
    before = await deployment.value(checksum)
    most = began = resident()

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, resident())
            await asyncio.sleep(0.02)

    watcher = asyncio.create_task(watch())
    await backed_up.backups.dump(tmp_path, ignore)
    await backed_up.run("DROP TABLE large")
    await backed_up.backups.restore(tmp_path, ignore)
    watcher.cancel()
    assert await deployment.value(checksum) == before
    assert most - began < MOST_MORE
    await server.close()


def resident() -> int:
    """Give the bytes of this process that are in memory."""
    kilobytes = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(kilobytes.split()[1]) * 1024
