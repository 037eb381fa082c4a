"""A restore whose client was ended goes on in the server's container: it must not reach a server that lives again."""

from __future__ import annotations

import asyncio

import pytest

from engines.postgresql.recovery.server import PostgresRecovery
from engines.recovery import Undo
from tests.live.recovery.cluster import Cluster, running_cluster

pytestmark = pytest.mark.engine_images()

RESTORING = r"""
for each in /proc/[0-9]*/cmdline; do
    case "$(tr '\0' ' ' <$each 2>/dev/null)" in pgbackrest*restore*) echo $each ;; esac
done
"""


def ignore(_percent: float, _step: str) -> None:
    return


def restoring(cluster: Cluster) -> bool:
    return bool(cluster.run("sh", "-c", RESTORING))


@pytest.fixture
def cluster():
    with running_cluster() as cluster:
        yield cluster


@pytest.mark.long
async def test_a_cancelled_restore_does_not_go_on_beside_the_undo_and_the_live_server(cluster: Cluster) -> None:
    with cluster.connect() as session:
        session.execute("CREATE TABLE a AS SELECT g, 'x' AS t FROM generate_series(1, 1000) g")
    server = cluster.server()
    recovery = PostgresRecovery(server, cluster.settings())
    await recovery.full_backup(ignore)
    with cluster.connect() as session:
        session.execute("UPDATE a SET t = 'y'")
        session.execute("CHECKPOINT")
        (path,) = session.execute("SELECT pg_relation_filepath('a')").fetchone() or ("",)
    assert await recovery.missing() == []
    (backup,) = await recovery.sets()
    await recovery.mark()
    await recovery.stop()

    # The repository hangs at the table's file, for the first one who asks.
    file = f"/repo/backup/main/{backup.label}/pg_data/{path}.lz4"
    cluster.run("mv", file, "/tmp/aside")
    cluster.run("mkfifo", file)
    first = asyncio.create_task(recovery.restore(Undo(label=backup.label, timeline=1), ignore))
    async with asyncio.timeout(30):
        while not restoring(cluster):  # noqa: ASYNC110 - a process has no event
            await asyncio.sleep(0.2)
        await asyncio.sleep(3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert restoring(cluster)
    assert any("earlier restore" in each for each in [await recovery._repository.missing() or ""])

    cluster.run("mv", "/tmp/aside", file)
    await recovery.restore(Undo(label=backup.label, timeline=1), ignore)
    assert not restoring(cluster)
    await recovery.start()
    assert (await recovery.wait_promoted(ignore)).timeline == 2
    with cluster.connect() as session:
        assert session.execute("SELECT count(*) FROM a WHERE t = 'y'").fetchone() == (1000,)
    await server.close()
