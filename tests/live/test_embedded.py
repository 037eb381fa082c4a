"""The demo's own engines: real servers from a wheel and from unpacked packages, spoken to through their drivers."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pymongo
import pymongo.errors
import pymysql
import pytest
from influxdb import InfluxDBClient
from influxdb.exceptions import InfluxDBClientError

from agent.demo.apt_packages import AptPackages
from agent.demo.engines import EmbeddedEngines, demo_folder
from agent.demo.postgresql import start_postgresql
from agent.demo.processes import RunFolder, server_users
from agent.demo.started import StartedEngine
from tests.leftovers import OtherProgram, all_gone, command_of, descendants, wait_until

ENGINES = ["postgresql", "mysql", "mongodb", "influxdb"]

# The first one on a machine fetches packages.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def progress() -> list[tuple[str, str]]:
    return []


@pytest.fixture(scope="module")
def engines(progress: list[tuple[str, str]]) -> Iterator[EmbeddedEngines]:
    with EmbeddedEngines(demo_folder(), lambda engine, text: progress.append((engine, text))) as engines:
        yield engines


@pytest.fixture
def embedded(engines: EmbeddedEngines) -> StartedEngine:
    return engines.started["postgresql"]


def test_every_engine_runs_where_there_is_apt(engines: EmbeddedEngines, progress: list[tuple[str, str]]) -> None:
    if AptPackages.available():
        assert engines.left_out == {}
    assert sorted([*engines.started, *engines.left_out]) == sorted(ENGINES)
    for engine, started in engines.started.items():
        (line,) = (text for name, text in progress if name == engine and "ready on" in text)
        assert line.startswith(f"{started.version} ready on 127.0.0.1:{started.port} after ")


def test_servers_listen_on_the_loopback_address_only(engines: EmbeddedEngines) -> None:
    ports = {started.port for started in engines.started.values()}
    listening = [
        (address, int(port, 16))
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        for address, _, port in [line.split()[1].partition(":")]
        if line.split()[3] == "0A"
    ]

    assert {port for _, port in listening} >= ports
    assert {address for address, port in listening if port in ports} == {"0100007F"}


def test_postgresql_counts_statements_and_speaks_utf8(embedded: StartedEngine) -> None:
    with psycopg.connect(embedded.admin_url) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
        assert connection.execute("SELECT 'é'::text").fetchone() == ("é",)
        seen = connection.execute("SELECT count(*) FROM pg_stat_statements WHERE query LIKE 'SELECT $1::text'")

        assert seen.fetchone() == (1,)
        assert connection.info.parameter_status("server_version") == embedded.version


def test_postgresql_lets_nobody_in_without_the_password(embedded: StartedEngine) -> None:
    for password in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host="127.0.0.1", port=embedded.port, user="postgres", password=password, dbname="postgres")
    with psycopg.connect(embedded.admin_url) as connection:
        rules = connection.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall()
    assert rules == [("scram-sha-256",)]


def test_mysql_has_one_account_with_a_password(engines: EmbeddedEngines) -> None:
    started = engines.started["mysql"]
    with pytest.raises(pymysql.err.OperationalError, match="1045"):
        pymysql.connect(host="127.0.0.1", port=started.port, user="root", password="")

    with (
        pymysql.connect(
            host="127.0.0.1", port=started.port, user="root", password=started.admin_password
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT user, host FROM mysql.user WHERE user NOT LIKE 'm%.s%'")
        assert cursor.fetchall() == (("root", "127.0.0.1"),)
        cursor.execute("CREATE DATABASE custom_db")
        cursor.execute("DROP DATABASE custom_db")


def test_mongodb_lets_nobody_write_without_an_account(engines: EmbeddedEngines) -> None:
    started = engines.started["mongodb"]
    with pymongo.MongoClient(f"mongodb://127.0.0.1:{started.port}/") as stranger:
        with pytest.raises(pymongo.errors.OperationFailure) as refused:
            stranger["custom_db"]["c"].insert_one({})
        assert refused.value.code == 13
        with pytest.raises(pymongo.errors.OperationFailure) as refused:
            stranger["admin"].command("createUser", "second", pwd="x", roles=["root"])
        assert refused.value.code == 13

    with pymongo.MongoClient(started.admin_url) as admin:
        admin["custom_db"]["c"].insert_one({})
        assert "custom_db" in admin.list_database_names()
        admin.drop_database("custom_db")


def test_influxdb_lets_nobody_ask_without_an_account(engines: EmbeddedEngines) -> None:
    started = engines.started["influxdb"]
    with pytest.raises(InfluxDBClientError) as refused:
        InfluxDBClient("127.0.0.1", started.port).get_list_database()
    assert refused.value.code == 401

    admin = InfluxDBClient("127.0.0.1", started.port, started.admin_user, started.admin_password)
    admin.create_database("custom_db")
    assert {"name": "custom_db"} in admin.get_list_database()
    admin.drop_database("custom_db")


# A server whose one backend sleeps and whose other counts without end, started by a process that waits to be ended.
PARENT = """
import sys, threading, time
import psycopg
from agent.demo.postgresql import start_postgresql
from agent.demo.processes import RunFolder, server_users

def keep_busy(url, statement):
    try:
        psycopg.connect(url).execute(statement)
    except psycopg.Error:
        pass

with RunFolder(server_users()[int(sys.argv[1])]) as run:
    url = start_postgresql(run, lambda *_: None).admin_url
    for statement in ("SELECT pg_sleep(1000)", "SELECT count(*) FROM generate_series(1, 1000000000000)"):
        threading.Thread(target=keep_busy, args=(url, statement), daemon=True).start()
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute("SELECT count(*) FROM pg_stat_activity WHERE state = 'active'").fetchone() != (3,):
            time.sleep(0.01)
    print(run.path, flush=True)
    time.sleep(float(sys.argv[2]))
"""


def shared_memory_of(run: Path) -> str:
    """Give the id of the System V segment that PostgreSQL marks its data directory with."""
    return (run / "postgresql/data/postmaster.pid").read_text().splitlines()[6].split()[1]


def shared_memory_segments() -> set[str]:
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


@pytest.mark.parametrize("user", range(len(server_users())), ids=lambda index: f"server user {index}")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None], ids=str)
def test_nothing_of_postgresql_is_left_after(user: int, how: signal.Signals | None) -> None:
    # Whoever started the tests may have them ignore SIGINT (a shell's &), which programs hand on.
    listening = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    with OtherProgram(listening + PARENT, str(user), "1000" if how else "1") as parent:
        run = Path(parent.line())
        pids = descendants(parent.process.pid)
        assert sum(command_of(pid).startswith("postgres: ") for pid in pids) >= 7
        segment = shared_memory_of(run)
        assert segment in shared_memory_segments()

        if how is None:
            assert parent.process.wait(30) == 0
        else:
            assert parent.end(how) != 0

    assert wait_until(lambda: all_gone(pids))
    assert wait_until(lambda: not run.exists())
    assert segment not in shared_memory_segments()


@pytest.mark.parametrize("user", server_users(), ids=lambda user: f"uid={user.uid} prefix={bool(user.prefix)}")
def test_postgresql_starts_as_each_user_that_this_machine_allows(user) -> None:
    with RunFolder(user) as run:
        started = start_postgresql(run, lambda *_: None)
        with psycopg.connect(started.admin_url) as connection:
            assert connection.execute("SELECT current_setting('data_directory')").fetchone() == (
                str(run.path / "postgresql/data"),
            )
    assert not run.path.exists()


def test_all_engines_are_gone_when_the_parent_is_killed() -> None:
    source = """
import time
from agent.demo.engines import EmbeddedEngines, demo_folder
with EmbeddedEngines(demo_folder(), lambda *_: None) as engines:
    print(len(engines.started), engines.run.path, flush=True)
    time.sleep(1000)
"""
    with OtherProgram(source) as parent:
        count, _, run = parent.line().partition(" ")
        pids = descendants(parent.process.pid)
        assert len(pids) >= 1 + 2 * int(count)

        parent.end(signal.SIGKILL)

    assert wait_until(lambda: all_gone(pids))
    assert wait_until(lambda: not Path(run).exists())
