"""What a backup uses: memory, and a disk that is full."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import influxdb as bare
import pytest

from tests.live.accounts import account_on
from tests.live.admins import refuse_admins
from tests.live.influxdb.backup_contents import NOW, query, write
from tests.live.influxdb.conftest import sizes_in
from tests.live.servers import LiveServer

CHECKOUT = Path(__file__).parents[3]
MOST = 64 * 1024 * 1024


async def in_a_process(work: str, url: str, folder: Path, *more: str) -> str:
    """Give the last line of what the child says."""
    refuse_admins(url)
    argv = [sys.executable, "-m", "tests.live.influxdb.backup_child", work, url, folder, *more]
    done = await asyncio.to_thread(subprocess.run, argv, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def big(root: bare.InfluxDBClient, influxdb: LiveServer) -> Iterator[str]:
    """A logical database of 200 MB in line protocol: many small points, and the longest strings that there can be."""
    query(root, "CREATE DATABASE big")
    for number in range(2800):
        write(influxdb, "big", "autogen", [f'long,n={number % 5} s="{"x" * 64_000}" {NOW + number}'])
    for start in range(0, 250_000, 10_000):
        lines = [
            f"small,host=h{n % 50} value={n}i,load={n / 7},other={n / 3} {NOW + n}"
            for n in range(start, start + 10_000)
        ]
        write(influxdb, "big", "autogen", lines)
    yield account_on(influxdb, "big")
    query(root, "DROP DATABASE big")


@pytest.mark.long
async def test_memory_rises_by_less_than_64_mib(big: str, root: bare.InfluxDBClient, tmp_path: Path) -> None:
    assert int(await in_a_process("dump", big, tmp_path)) < MOST
    assert sum(sizes_in(tmp_path).values()) > 190_000_000
    query(root, "DROP MEASUREMENT small", database="big")
    assert int(await in_a_process("restore", big, tmp_path)) < MOST
    assert query(root, "SELECT count(*) FROM small", database="big")[0]["count_value"] == 250_000
    assert query(root, "SELECT count(*) FROM long", database="big")[0]["count_s"] == 2800


@pytest.mark.long
async def test_a_full_disk_is_told_and_leaves_no_file(big: str, tmp_path: Path) -> None:
    assert await in_a_process("dump", big, tmp_path, "5000000") == "OSError File too large"
    assert sizes_in(tmp_path) == {}
