"""A PostgreSQL with an archive, in a container that outlives its server, and a ledger of what was committed when."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

import psycopg

from engines.address import parse_address
from engines.engine import GrantsFor
from engines.postgresql import ENGINE
from engines.postgresql.server import PostgresServer
from engines.recovery import CommandsControl, RecoverySettings

IMAGE = "recovery:15"
BUILD = Path(__file__).parents[3] / "deploy" / "engine-images" / "build"
OWNER_LABEL = "dbvalet.test.owner"
READY_SECONDS = 60
PASSWORD = "of-the-recovery"

SETUP = r"""
set -e
install -d -o postgres -g postgres -m 700 /data /repo
cat >/etc/pgbackrest.conf <<END
[global]
repo1-path=/repo
repo1-retention-full=9
start-fast=y
compress-type=lz4
process-max=2
log-level-file=off
lock-path=/repo/lock
[main]
pg1-path=/data
pg1-socket-path=/tmp
END
gosu() { runuser -u postgres -- "$@"; }
gosu initdb --pgdata=/data --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 >/dev/null
cat >>/data/postgresql.conf <<END
listen_addresses = '*'
unix_socket_directories = '/tmp'
archive_mode = on
archive_command = 'pgbackrest --stanza=main archive-push %p'
archive_timeout = 60
track_commit_timestamp = on
autovacuum = off
fsync = off
END
echo "host all all all scram-sha-256" >>/data/pg_hba.conf
gosu pg_ctl -D /data -l /data/log start -w >/dev/null
gosu pgbackrest --stanza=main stanza-create
"""


@dataclass
class Cluster:
    """A running container."""

    container: str
    port: int

    def run(self, *argv: str, user: str = "postgres", check: bool = True) -> str:
        """Run a program inside."""
        done = subprocess.run(
            ["docker", "exec", "-u", user, self.container, *argv], capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def url(self, user: str = "postgres", database: str = "postgres") -> str:
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url(), autocommit=True, connect_timeout=5)

    def settings(self) -> RecoverySettings:
        inside = ("docker", "exec", "-u", "postgres", self.container)
        return RecoverySettings(
            stanza="main",
            program=(*inside, "pgbackrest"),
            control=CommandsControl(
                stop=(*inside, "pg_ctl", "-D", "/data", "stop", "-m", "fast", "-w"),
                start=(*inside, "pg_ctl", "-D", "/data", "start", "-W", "-l", "/data/log"),
                status=(*inside, "pg_ctl", "-D", "/data", "status"),
            ),
        )

    def server(self, user: str = "postgres") -> PostgresServer:
        server = ENGINE.connect(parse_address(self.url(user), ENGINE.default_port))
        assert isinstance(server, PostgresServer)
        return server

    def started_at(self) -> datetime:
        with self.connect() as session:
            return session.execute("SELECT pg_postmaster_start_time()").fetchall()[0][0]


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Start a cluster, make its stanza, and take everything away in the end."""
    subprocess.run([sys.executable, str(BUILD), IMAGE], check=True, capture_output=True)
    name = f"dbvalet-recovery-{token_hex(4)}"
    started = ["docker", "run", "--detach", "--init", f"--name={name}", "--publish=127.0.0.1::5432"]
    subprocess.run(
        [*started, f"--label={OWNER_LABEL}=recovery", f"dbvalet-test/{IMAGE}"], check=True, capture_output=True
    )
    try:
        subprocess.run(["docker", "exec", name, "bash", "-c", SETUP], check=True, capture_output=True, text=True)
        shown = subprocess.run(["docker", "port", name, "5432"], check=True, capture_output=True, text=True).stdout
        cluster = Cluster(name, int(shown.splitlines()[0].rpartition(":")[2]))
        statement = f"ALTER ROLE postgres PASSWORD '{PASSWORD}'"
        cluster.run("psql", "-h", "/tmp", "-qc", statement)
        until_it_answers(cluster)
        yield cluster
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True)


def until_it_answers(cluster: Cluster) -> None:
    ends_at = time.monotonic() + READY_SECONDS
    while True:
        try:
            cluster.connect().close()
        except psycopg.OperationalError:
            assert time.monotonic() < ends_at
            time.sleep(0.1)
        else:
            return


class Ledger:
    """A table, and from outside of the server which of its rows were committed when, on each timeline."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        with cluster.connect() as session:
            session.execute("CREATE TABLE ledger (id bigserial PRIMARY KEY)")

    def write(self, rows: int) -> None:
        with self._cluster.connect() as session:
            for _ in range(rows):
                session.execute("INSERT INTO ledger DEFAULT VALUES")

    def commits(self) -> dict[int, datetime]:
        """Give the rows that are there now, each with the instant of its commit."""
        with self._cluster.connect() as session:
            return dict(session.execute("SELECT id, pg_xact_commit_timestamp(xmin) FROM ledger").fetchall())

    def ids(self) -> set[int]:
        return set(self.commits())


def grant(cluster: Cluster, account: str) -> None:
    """Make an account that is no superuser, by the grants script with its parts for backups and recovery."""
    with cluster.connect() as session:
        session.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        script = ENGINE.grants(GrantsFor(user=account, database="postgres", password=PASSWORD))
        for wish in ("backups", "recovery"):
            script = script.replace(f"'dbvalet.{wish}', 'no'", f"'dbvalet.{wish}', 'yes'")
        session.execute(script.encode())
