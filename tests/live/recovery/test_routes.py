"""A served dbvalet brings a live cluster back to an instant, also when it is killed on the way."""

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import psycopg
import pytest

from agent.demo.postgresql import wheel_programs
from tests.live.recovery.cluster import Cluster, Ledger, grant, running_cluster, until_it_answers
from tests.unit.running import TOKEN, Running, configuration, serving

pytestmark = pytest.mark.engine_images()

ACCOUNT = "valet"
ONE = "/api/databases/ad-x"
LIMIT = 90


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        grant(cluster, ACCOUNT)
        yield cluster


@pytest.fixture(scope="module")
def ledger(cluster: Cluster) -> Ledger:
    return Ledger(cluster)


@pytest.fixture(scope="module")
def config(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = cluster.settings()
    control = settings.control
    commands = {name: list(getattr(control, name)) for name in ("stop", "start", "status")}
    pitr = {"stanza": "main", "program": list(settings.program), "control": {"commands": commands}}
    database = {"id": "ad-x", "url": cluster.url(ACCOUNT), "pitr": pitr}
    return configuration(tmp_path_factory.mktemp("pitr"), database)


def client_of(running: Running) -> httpx.Client:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.Client(base_url=running.url, headers=headers, timeout=30, trust_env=False)


def ended(client: httpx.Client, operation_id: str, seconds: float = LIMIT) -> dict[str, Any]:
    ends_at = time.monotonic() + seconds
    while True:
        shown = client.get(f"{ONE}/operations/{operation_id}").json()["operation"]
        if shown["finished_at"]:
            return shown
        assert time.monotonic() < ends_at, shown
        time.sleep(0.1)


def log_of(running: Running) -> str:
    """End a dbvalet and give what it logged."""
    running.process.terminate()
    assert running.process.stdout is not None
    return b"".join(running.process.stdout.readlines()).decode()


def restore(client: httpx.Client, at: datetime) -> dict[str, Any]:
    answer = client.post(f"{ONE}/pitr/restore", json={"restore_time": at.isoformat()})
    assert answer.status_code == 201, answer.text
    return answer.json()["operation"]


def until(commits: dict[int, datetime], at: datetime) -> set[int]:
    return {id_ for id_, committed in commits.items() if committed <= at}


def test_rows_come_back_to_an_instant_over_http(config: Path, cluster: Cluster, ledger: Ledger) -> None:
    with serving(config) as running, client_of(running) as client:
        nothing = client.post(f"{ONE}/pitr/restore", json={"restore_time": datetime.now(UTC).isoformat()})
        assert nothing.status_code == 409
        assert "no backup of pgBackRest yet" in nothing.json()["error"]
        cluster.run("pgbackrest", "--stanza=main", "--type=full", "backup")
        time.sleep(1.2)  # later than the second in which the backup ended
        ledger.write(20)
        commits = ledger.commits()
        middle = sorted(commits.values())[11]

        window = client.get(f"{ONE}/pitr/recovery_window").json()["recovery_window"]
        before = cluster.started_at()
        for outside in (
            datetime.fromisoformat(window["earliest_recoverable_at"]) - timedelta(microseconds=1),
            datetime.now(UTC) + timedelta(minutes=5),
        ):
            refused = client.post(f"{ONE}/pitr/restore", json={"restore_time": outside.isoformat()})
            assert refused.status_code == 422, refused.text
            assert refused.json()["errors"]["restore_time"]
        assert cluster.started_at() == before

        shown = ended(client, restore(client, middle)["id"])
        assert shown["status"] == "finished", shown
        assert ledger.ids() == until(commits, middle)
        assert cluster.started_at() != before
        assert "A full backup was made of the state it has now." in shown["notes"]

        # What was there until the last moment is not lost: the abandoned timeline is in the archive.
        last = max(commits.values())
        shown = ended(client, restore(client, last)["id"])
        assert shown["status"] == "finished", shown
        assert ledger.ids() == until(commits, last)


def test_a_damaged_repository_is_told_and_nothing_is_stopped(config: Path, cluster: Cluster) -> None:
    before = cluster.started_at()
    each = "cd /repo/backup/main && for f in backup.info backup.info.copy; do"
    spoil, mend = f"{each} cp $f $f.kept && head -c 100 $f.kept >$f; done", f"{each} mv $f.kept $f; done"
    with serving(config) as running, client_of(running) as client:
        cluster.run("sh", "-c", spoil)
        try:
            window = client.get(f"{ONE}/pitr/recovery_window")
            asked = client.post(f"{ONE}/pitr/restore", json={"restore_time": datetime.now(UTC).isoformat()})
        finally:
            cluster.run("sh", "-c", mend)
        if 500 in (window.status_code, asked.status_code):
            pytest.fail(log_of(running))
        assert [(each.status_code, each.json()["code"]) for each in (window, asked)] == [(409, "precondition")] * 2
        assert "cannot be read" in window.json()["error"], window.text
        assert client.get(f"{ONE}/pitr/recovery_window").json()["recovery_window"]["earliest_recoverable_at"]
    assert cluster.started_at() == before


def physical(cluster: Cluster) -> list[str]:
    found = json.loads(cluster.run("pgbackrest", "--stanza=main", "--output=json", "info"))[0]["backup"]
    return [each["label"] for each in found]


def test_a_backup_of_such_a_database_has_a_physical_one_beside_it_but_pushes_out_none(
    config: Path, cluster: Cluster
) -> None:
    before = physical(cluster)
    programs = os.pathsep.join([str(wheel_programs()), os.environ["PATH"]])
    with serving(config, more={"PATH": programs}) as running, client_of(running) as client:
        for made in (1 - bool(before), 0):
            begun = client.post(f"{ONE}/backups", json={})
            assert begun.status_code == 201, begun.text
            shown = ended(client, begun.json()["database_backup"]["operation_id"])
            assert shown["status"] == "finished", shown
            after = physical(cluster)
            assert len(after) == len(before) + made
            before = after
        assert shown["notes"][-1].startswith("No backup of the whole server was made: there is one of "), shown


@pytest.mark.long
@pytest.mark.parametrize("damage", ["mv {file} /tmp/kept", "cp {file} /tmp/kept && head -c 2000 /tmp/kept >{file}"])
def test_a_set_that_turns_out_to_be_damaged_takes_no_server_down(
    config: Path, cluster: Cluster, ledger: Ledger, damage: str
) -> None:
    with cluster.connect() as session:
        session.execute("DROP TABLE IF EXISTS big")
        session.execute("CREATE TABLE big AS SELECT id, 'then' AS text FROM generate_series(1, 50000) AS id")
        session.execute("CHECKPOINT")
        cluster.run("pgbackrest", "--stanza=main", "--type=full", "backup")
        place = session.execute("SELECT pg_relation_filepath('big')").fetchall()[0][0]
        session.execute("UPDATE big SET text = 'now'")  # so that its file is taken from the set
        session.execute("CHECKPOINT")
    label = json.loads(cluster.run("pgbackrest", "--stanza=main", "--output=json", "info"))[0]["backup"][-1]["label"]
    file = f"/repo/backup/main/{label}/pg_data/{place}.lz4"
    time.sleep(1.2)
    ledger.write(5)
    commits = ledger.commits()
    at = sorted(commits.values())[-3]
    with serving(config) as running, client_of(running) as client:
        cluster.run("sh", "-c", damage.format(file=file))
        try:
            shown = ended(client, restore(client, at)["id"])
        finally:
            cluster.run("cp", "/tmp/kept", file)
        assert shown["status"] == "error", shown
        assert "pgbackrest restore ended with" in shown["error"]
        assert "The last state was brought back: nothing is lost." in shown["error"], shown
        assert ledger.ids() == set(commits)
        with cluster.connect() as session:
            assert session.execute("SELECT DISTINCT text FROM big").fetchall() == [("now",)]
        again = ended(client, restore(client, at)["id"])
        assert again["status"] == "finished", again
        assert ledger.ids() == until(commits, at)


@pytest.mark.long
def test_who_cancels_while_the_server_shuts_down_gets_it_started_again(
    config: Path, cluster: Cluster, ledger: Ledger, tmp_path: Path
) -> None:
    ledger.write(5)
    commits = ledger.commits()
    changed = json.loads(config.read_text())
    stop = changed["databases"][0]["pitr"]["control"]["commands"]["stop"]
    inside, command = stop[: stop.index(cluster.container) + 1], stop[stop.index(cluster.container) + 1 :]
    late = "touch /tmp/asked; sleep 4; " + " ".join(command)
    changed["databases"][0]["pitr"]["control"]["commands"]["stop"] = [*inside, "sh", "-c", late]
    other = tmp_path / config.name
    other.write_text(json.dumps(changed))
    before = cluster.started_at()
    with serving(other) as running, client_of(running) as client:
        operation = restore(client, datetime.now(UTC) - timedelta(milliseconds=1))
        ends_at = time.monotonic() + LIMIT
        while "asked" not in cluster.run("ls", "/tmp"):
            assert time.monotonic() < ends_at
            time.sleep(0.1)
        client.post(f"{ONE}/operations/{operation['id']}/cancel")
        shown = ended(client, operation["id"])
    assert shown["status"] == "cancelled", shown
    time.sleep(6)  # longer than the command that stops it takes
    assert cluster.started_at() != before
    assert ledger.ids() == set(commits)


@pytest.mark.long
def test_an_archive_that_gets_the_history_of_a_timeline_late_undoes_nothing(
    config: Path, cluster: Cluster, ledger: Ledger
) -> None:
    late = "case %f in *.history) sleep 5;; esac; pgbackrest --stanza=main archive-push %p"
    with cluster.connect() as session:
        session.execute(f"ALTER SYSTEM SET archive_command = '{late}'".encode())  # which the backup brings back
        session.execute("SELECT pg_reload_conf()")
    try:
        cluster.run("pgbackrest", "--stanza=main", "--type=full", "backup")
        time.sleep(1.2)
        ledger.write(10)
        commits = ledger.commits()
        at = sorted(commits.values())[-4]
        with serving(config) as running, client_of(running) as client:
            shown = ended(client, restore(client, at)["id"])
            assert shown["status"] == "finished", shown
            assert ledger.ids() == until(commits, at)
            last = max(commits.values())
            shown = ended(client, restore(client, last)["id"])
            assert shown["status"] == "finished", shown
            assert ledger.ids() == until(commits, last)
    finally:
        with cluster.connect() as session:
            session.execute("ALTER SYSTEM RESET archive_command")
            session.execute("SELECT pg_reload_conf()")
        cluster.run("pgbackrest", "--stanza=main", "--type=full", "backup")


@pytest.mark.long
def test_what_is_committed_while_the_archive_is_waited_for_can_be_reached(
    config: Path, cluster: Cluster, ledger: Ledger
) -> None:
    ledger.write(3)
    at = sorted(ledger.commits().values())[-1]
    told: list[tuple[int, datetime]] = []

    def write() -> None:
        """Write until the server is stopped, and note what was committed by when."""
        with cluster.connect() as session:
            while True:
                try:
                    (row,) = session.execute("INSERT INTO ledger DEFAULT VALUES RETURNING id").fetchall()
                    (now,) = session.execute("SELECT clock_timestamp()").fetchall()
                except psycopg.Error:
                    return
                told.append((row[0], now[0]))
                time.sleep(0.05)

    before = ledger.ids()
    with cluster.connect() as session:
        session.execute("ALTER SYSTEM SET archive_command = 'sleep 3; pgbackrest --stanza=main archive-push %p'")
        session.execute("SELECT pg_reload_conf()")
    with serving(config) as running, client_of(running) as client:
        writing = Thread(target=write)
        writing.start()
        operation = restore(client, at)
        writing.join()
        shown = ended(client, operation["id"])
        assert shown["status"] == "finished", shown
        assert ledger.ids() == before  # the setting has gone back as well
        last = told[-1][1]
        moment = max(when for _, when in told if when < last - timedelta(seconds=1))
        shown = ended(client, restore(client, moment)["id"])
        assert shown["status"] == "finished", shown
        assert ledger.ids() == before | {id_ for id_, when in told if when <= moment}


@pytest.mark.long
def test_what_was_undone_when_dbvalet_was_asked_to_end_is_not_undone_again(
    config: Path, cluster: Cluster, ledger: Ledger, tmp_path: Path
) -> None:
    ledger.write(5)
    commits = ledger.commits()
    at = sorted(commits.values())[-3]
    changed = json.loads(config.read_text())
    commands = changed["databases"][0]["pitr"]["control"]["commands"]
    place = commands["start"].index(cluster.container) + 1
    slow = "touch /tmp/starting; sleep 1; " + " ".join(commands["start"][place:])
    commands["start"] = [*commands["start"][:place], "sh", "-c", slow]
    other = tmp_path / config.name
    other.write_text(json.dumps(changed))
    with serving(other) as running, client_of(running) as client:
        operation = restore(client, at)
        ends_at = time.monotonic() + LIMIT
        while "starting" not in cluster.run("ls", "/tmp"):
            assert time.monotonic() < ends_at
            time.sleep(0.05)
        running.process.terminate()
        running.process.wait()
    until_it_answers(cluster)  # it was undone, or is about to be there
    while True:
        with cluster.connect() as session:
            if session.execute("SELECT NOT pg_is_in_recovery()").fetchall()[0][0]:
                break
        time.sleep(0.1)
    assert ledger.ids() == set(commits)
    ledger.write(3)
    since = ledger.ids()
    before = cluster.started_at()
    with serving(config) as running, client_of(running) as client:
        shown = ended(client, operation["id"])
    assert shown["status"] == "error"
    assert "The last state was brought back: nothing is lost." in shown["error"]
    assert (ledger.ids(), cluster.started_at()) == (since, before)


@pytest.mark.long
def test_a_server_whose_last_log_is_not_archived_when_it_is_stopped_is_not_replaced(
    config: Path, cluster: Cluster, ledger: Ledger, tmp_path: Path
) -> None:
    with cluster.connect() as session:
        command = "test ! -e /tmp/full && pgbackrest --stanza=main archive-push %p"
        session.execute(f"ALTER SYSTEM SET archive_command = '{command}'".encode())
        session.execute("SELECT pg_reload_conf()")
    try:
        ledger.write(5)
        before = ledger.ids()
        at = sorted(ledger.commits().values())[-3]
        changed = json.loads(config.read_text())
        commands = changed["databases"][0]["pitr"]["control"]["commands"]
        place = commands["stop"].index(cluster.container) + 1
        # The archive is full from the last moment on, and applications still commit.
        late = "touch /tmp/full; psql -h /tmp -qc 'INSERT INTO ledger DEFAULT VALUES'; "
        commands["stop"] = [*commands["stop"][:place], "sh", "-c", late + " ".join(commands["stop"][place:])]
        other = tmp_path / config.name
        other.write_text(json.dumps(changed))
        with serving(other) as running, client_of(running) as client:
            shown = ended(client, restore(client, at)["id"])
        assert shown["status"] == "error", shown
        assert "when the server was stopped. The server was started again as it was." in shown["error"]
        assert len(ledger.ids() - before) == 1
        assert ledger.ids() > before
    finally:
        cluster.run("rm", "-f", "/tmp/full")
        with cluster.connect() as session:
            session.execute("ALTER SYSTEM RESET archive_command")
            session.execute("SELECT pg_reload_conf()")


SERVER_STOPS, FILES_ARE_BROUGHT_BACK, SERVER_RECOVERS, BACKUP_IS_MADE = 10, 15, 50, 80


@pytest.mark.parametrize(
    "percent",
    [
        pytest.param(5, marks=pytest.mark.long),
        pytest.param(SERVER_STOPS, marks=pytest.mark.long),
        FILES_ARE_BROUGHT_BACK,
        pytest.param(SERVER_RECOVERS, marks=pytest.mark.long),
        pytest.param(BACKUP_IS_MADE, marks=pytest.mark.long),
    ],
)
@pytest.mark.long
def test_killed_on_the_way_it_is_brought_to_an_end_by_the_next_one(
    config: Path, cluster: Cluster, ledger: Ledger, percent: int
) -> None:
    ledger.write(10)
    commits = ledger.commits()
    at = sorted(commits.values())[-4]
    with serving(config) as running, client_of(running) as client:
        operation = restore(client, at)
        ends_at = time.monotonic() + LIMIT
        while kept_percent(config, operation["id"]) < percent:
            assert time.monotonic() < ends_at
            time.sleep(0.01)
        running.process.kill()
        running.process.wait()
    with serving(config) as running, client_of(running) as client:
        shown = ended(client, operation["id"])
        there = ledger.ids()
        if shown["status"] == "finished":
            assert there == until(commits, at)
        else:
            assert (shown["status"], there) == ("error", set(commits)), shown
            assert "dbvalet ended" in shown["error"]
        again = ended(client, restore(client, at)["id"])
        assert again["status"] == "finished", again
        assert ledger.ids() == until(commits, at)


def kept_percent(config: Path, operation_id: str) -> int:
    """Tell by the state itself how far an operation is: the moment at which a step is written down."""
    import sqlite3

    steps = {
        "stop": SERVER_STOPS,
        "restore": FILES_ARE_BROUGHT_BACK,
        "start": SERVER_RECOVERS,
        "backup": BACKUP_IS_MADE,
    }
    with sqlite3.connect(f"file:{config.parent}/state.db?mode=ro", uri=True) as state:
        (row,) = state.execute("SELECT params, progress FROM operations WHERE id = ?", (operation_id,)).fetchall()
    plan = json.loads(row[0]).get("plan")
    return steps[plan["step"]] if plan else row[1]


def test_the_schedule_makes_a_physical_one_with_the_first_backup_of_a_day(config: Path, cluster: Cluster) -> None:
    programs = os.pathsep.join([str(wheel_programs()), os.environ["PATH"]])
    hours = {"periodic_backups_enabled": True, "periodic_backups_scheduled_at": list(range(24))}
    days: list[str] = []
    with serving(config) as running, client_of(running) as client:
        assert client.patch(ONE, json={"database": hours}).status_code == 200
    for _ in range(2):
        before = physical(cluster)
        with closing(sqlite3.connect(config.parent / "state.db")) as state, state:
            state.execute("UPDATE database_settings SET scheduled_since = '2020-01-01 00:00:00.000000'")
            state.execute("DELETE FROM schedule_slots")
        with serving(config, more={"PATH": programs}) as running, client_of(running) as client:
            made = begun_by_the_schedule(client, len(days))
            assert ended(client, made["operation_id"])["status"] == "finished"
            days.append(made["created_at"][:10])
        # Only at midnight are there two days.
        assert len(physical(cluster)) == len(before) + (days.count(days[-1]) == 1)
    with serving(config) as running, client_of(running) as client:
        off = {"periodic_backups_enabled": False}
        assert client.patch(ONE, json={"database": off}).status_code == 200


def begun_by_the_schedule(client: httpx.Client, before: int) -> dict[str, Any]:
    ends_at = time.monotonic() + LIMIT
    while True:
        found = client.get(f"{ONE}/backups").json()["database_backups"]
        by_the_schedule = [each for each in found if each["method"] == "periodic"]
        if len(by_the_schedule) > before:
            return by_the_schedule[0]
        assert time.monotonic() < ends_at, found
        time.sleep(0.1)
