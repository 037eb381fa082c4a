"""A large database goes through programs and files, not through dbvalet's memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.mysql.backup.conftest import Shop

MEGABYTE = 1024 * 1024


def resident() -> int:
    [pages] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(pages.split()[1]) * 1024


@contextmanager
def rises_by_less_than(limit: int) -> Iterator[None]:
    began, peak, ended = resident(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            peak[0] = max(peak[0], resident())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()
    assert peak[0] > 0
    assert peak[0] - began < limit


@pytest.mark.long
@pytest.mark.one_mariadb
async def test_200_megabytes(empty_shop: Shop, dumped: Path) -> None:
    shop = empty_shop
    shop.run(
        "CREATE TABLE large (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT) CHARSET=utf8mb4",
        "INSERT INTO large (t) VALUES " + ", ".join(["(REPEAT('some words ', 5000))"] * 20),
        *["INSERT INTO large (t) SELECT t FROM large LIMIT 1000"] * 9,
    )
    checksum = shop.root.rows(f"CHECKSUM TABLE {shop.name}.large")
    with rises_by_less_than(64 * MEGABYTE):
        manifest = await shop.backups.dump(dumped, shop.tell)
    size = manifest.files["tables.sql"].size
    assert size > 200 * MEGABYTE
    shop.run("TRUNCATE large")
    with rises_by_less_than(64 * MEGABYTE):
        await shop.backups.restore(dumped, shop.tell)
    assert shop.root.rows(f"CHECKSUM TABLE {shop.name}.large") == checksum
    # It was told in between how far it was.
    assert len([percent for percent, words in shop.told if "loaded" in words and 0 < percent < 90]) > 1
