"""A stanza that holds the backups and timelines of an earlier cluster too."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime

import pytest

from engines.errors import BackupDamaged, OutsideWindow, Precondition
from engines.postgresql.recovery.server import PostgresRecovery
from engines.recovery import Timeline
from tests.live.recovery.cluster import PASSWORD, Cluster, Ledger, running_cluster, until_it_answers

pytestmark = [pytest.mark.engine_images(), pytest.mark.long]

ON_TIMELINE_2 = """
set -e
gosu() { runuser -u postgres -- "$@"; }
gosu pgbackrest --stanza=main --type=full backup
gosu pg_ctl -D /data stop -m fast -w
gosu touch /data/standby.signal
gosu pg_ctl -D /data start -w -l /data/log
gosu pg_ctl -D /data promote -w
gosu psql -h /tmp -qc 'SELECT pg_switch_wal()'
for _ in $(seq 100); do test -e /repo/archive/main/15-1/00000002.history && break; sleep 0.2; done
"""

ANOTHER = """
set -e
gosu() { runuser -u postgres -- "$@"; }
gosu pg_ctl -D /data stop -m fast -w
mv /data /data.old
install -d -o postgres -g postgres -m 700 /data
gosu initdb --pgdata=/data --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
cp -p /data.old/postgresql.conf /data.old/pg_hba.conf /data/
gosu pg_ctl -D /data -l /data/log start -w
"""


def run(cluster: Cluster, script: str) -> None:
    done = subprocess.run(
        ["docker", "exec", cluster.container, "bash", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def ignore(_percent: float, _step: str) -> None:
    return


async def test_after_an_upgrade_no_backup_and_no_timeline_of_the_old_cluster_is_used() -> None:
    with running_cluster() as cluster:
        run(cluster, ON_TIMELINE_2)
        server = cluster.server()
        recovery = PostgresRecovery(server, cluster.settings())
        old = await recovery.standing()
        assert (old.timeline, (await recovery.fork_of(old)).parent) == (2, 1)
        assert [each.usable for each in await recovery.sets()] == [True]

        run(cluster, ANOTHER)
        cluster.run("psql", "-h", "/tmp", "-qc", f"ALTER ROLE postgres PASSWORD '{PASSWORD}'")
        until_it_answers(cluster)
        assert any("is of another server" in each for each in await recovery.missing())
        cluster.run("pgbackrest", "--stanza=main", "stanza-upgrade")
        Ledger(cluster).write(3)
        new = await recovery.standing()
        assert new.system_identifier != old.system_identifier
        assert any("no backup of pgBackRest yet" in each for each in await recovery.missing())
        assert await recovery.sets() == []
        lines = [
            Timeline(
                number=1, parent=None, forked_at_lsn=None, began_at=datetime(2000, 1, 1, tzinfo=UTC), ended_at=None
            )
        ]
        with pytest.raises(Precondition, match="No backup leads"):
            await recovery.choose_undo(1, lines)
        with pytest.raises(OutsideWindow, match="no backup yet"):
            await recovery.choose(datetime.now(UTC), lines, [])
        assert (await recovery.window(lines, [])).earliest is None
        with pytest.raises(BackupDamaged, match="not in the archive"):
            await recovery._repository.forks(new.system_identifier, 2)

        await recovery.full_backup(ignore)
        assert await recovery.missing() == []
        (own,) = await recovery.sets()
        assert (await recovery.choose_undo(1, lines)).label == own.label
        await server.close()
