"""A served dbvalet makes, hands out and restores backups of live servers; content is compared through the drivers."""

import gzip
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import influxdb as influxdb_driver
import psycopg
import pymongo
import pymysql
import pytest

from agent.demo.postgresql import wheel_programs
from tests.live.accounts import Part, account_on, run_as_admin
from tests.live.mysql.backup.programs import take_programs
from tests.live.servers import LiveServer
from tests.unit.running import TOKEN, Running, configuration, serving

# What dbvalet does around the engine's own tools does not differ between versions.
pytestmark = pytest.mark.newest_version

LIMIT = 60
ROWS = 2000
EVERY_POINT = "SELECT * FROM kept"
ONE = "/api/databases/ad-x"


class Content(Protocol):
    """What a logical database holds, as its application sees it."""

    def fill(self) -> None: ...

    def spoil(self) -> None:
        """Change, remove and add."""
        ...

    def look(self) -> Any: ...


class Postgres:
    def __init__(self, url: str) -> None:
        self.url = url
        """Of the ordinary role that owns the database."""

    def _say(self, *statements: str) -> list[Any]:
        with psycopg.connect(self.url, autocommit=True) as session:
            cursors = [session.execute(each.encode()) for each in statements]
            return cursors[-1].fetchall() if cursors[-1].description else []

    def fill(self) -> None:
        self._say(
            f"CREATE TABLE kept AS SELECT n, md5(n::text) AS text FROM generate_series(1, {ROWS}) AS n",
            "CREATE VIEW seen AS SELECT count(*) FROM kept",
        )

    def spoil(self) -> None:
        self._say("DROP VIEW seen", "UPDATE kept SET text = 'spoilt'", "CREATE TABLE since (a integer)")

    def look(self) -> Any:
        tables = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
        return self._say(tables), self._say("SELECT count(*), md5(string_agg(text, ',' ORDER BY n)) FROM kept")


class Mysql:
    def __init__(self, live: LiveServer, database: str) -> None:
        self._live, self._database = live, database

    def _say(self, *statements: str) -> Any:
        live = self._live
        with (
            pymysql.connect(
                host=live.host,
                port=live.port,
                user=live.admin,
                password=live.password,
                database=self._database,
                autocommit=True,
            ) as connection,
            connection.cursor() as cursor,
        ):
            for each in statements:
                cursor.execute(each)
            return cursor.fetchall()

    def fill(self) -> None:
        self._say(
            "CREATE TABLE kept (n INT PRIMARY KEY, text VARCHAR(40))",
            "INSERT INTO kept VALUES " + ", ".join(f"({n}, 'text {n}')" for n in range(ROWS)),
            "CREATE VIEW seen AS SELECT COUNT(*) FROM kept",
        )

    def spoil(self) -> None:
        self._say("DROP VIEW seen", "UPDATE kept SET text = 'spoilt'", "CREATE TABLE since (a INT)")

    def look(self) -> Any:
        return self._say("SHOW TABLES"), self._say("SELECT COUNT(*), SUM(CRC32(CONCAT(n, text))) FROM kept")


class Mongo:
    def __init__(self, url: str) -> None:
        self._url = url

    @contextmanager
    def _database(self) -> Iterator[Any]:
        with pymongo.MongoClient[dict[str, Any]](self._url) as client:
            yield client.get_default_database()

    def fill(self) -> None:
        with self._database() as database:
            database.kept.insert_many({"_id": n, "text": f"text {n}"} for n in range(ROWS))
            database.kept.create_index("text")

    def spoil(self) -> None:
        with self._database() as database:
            database.kept.update_many({}, {"$set": {"text": "spoilt"}})
            database.kept.drop_indexes()
            database.since.insert_one({})

    def look(self) -> Any:
        with self._database() as database:
            names = sorted(database.list_collection_names())
            return names, sorted(database.kept.index_information()), list(database.kept.find(sort=[("_id", 1)]))


class Influx:
    def __init__(self, live: LiveServer, database: str) -> None:
        self._database = database
        self._client = influxdb_driver.InfluxDBClient(live.host, live.port, live.admin, live.password, database)

    def _write(self, *lines: str) -> None:
        self._client.request("write", "POST", {"db": self._database}, "\n".join(lines), expected_response_code=204)

    def fill(self) -> None:
        self._write(*(f"kept,tag=t{n % 7} value={n}i {n}000000" for n in range(ROWS)))
        self._client.query(
            f'CREATE RETENTION POLICY month ON "{self._database}" DURATION 30d REPLICATION 1', method="POST"
        )

    def spoil(self) -> None:
        self._client.query("DROP MEASUREMENT kept", method="POST")
        self._client.query(f'DROP RETENTION POLICY month ON "{self._database}"', method="POST")
        self._write("since value=1i 1")

    def look(self) -> Any:
        statements = (f'SHOW RETENTION POLICIES ON "{self._database}"', "SHOW MEASUREMENTS", EVERY_POINT)
        return [list(self._client.query(each).get_points()) for each in statements]


OWNER_PASSWORD = "of-the-owner"


@contextmanager
def of_postgresql(live: LiveServer, name: str) -> Iterator[tuple[str, Postgres]]:
    owner = f"owner_of_{name}"
    with psycopg.connect(live.url(), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {owner} LOGIN PASSWORD '{OWNER_PASSWORD}'".encode())
        admin.execute(f"CREATE DATABASE {name} OWNER {owner}".encode())
        run_as_admin(live, f"GRANT ALL ON SCHEMA public TO {owner}", name)
        yield account_on(live, name), Postgres(live.url(owner, OWNER_PASSWORD, name))
        if live.version_tuple >= (13,):
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            admin.execute(f"DROP ROLE {owner}".encode())


@contextmanager
def of_mysql(live: LiveServer, name: str) -> Iterator[tuple[str, Mysql]]:
    with (
        pymysql.connect(host=live.host, port=live.port, user=live.admin, password=live.password) as admin,
        admin.cursor() as cursor,
    ):
        cursor.execute(f"CREATE DATABASE {name}")
        yield account_on(live, name), Mysql(live, name)
        cursor.execute(f"DROP DATABASE {name}")


@contextmanager
def of_mongodb(live: LiveServer, name: str) -> Iterator[tuple[str, Mongo]]:
    yield account_on(live, name), Mongo(live.url(database=name))
    with pymongo.MongoClient[dict[str, Any]](live.url()) as client:
        client.drop_database(name)


@contextmanager
def of_influxdb(live: LiveServer, name: str) -> Iterator[tuple[str, Influx]]:
    client = influxdb_driver.InfluxDBClient(live.host, live.port, live.admin, live.password)
    client.create_database(name)
    yield account_on(live, name), Influx(live, name)
    client.drop_database(name)


MADE: dict[str, Callable[[LiveServer, str], Any]] = {
    "postgresql": of_postgresql,
    "mysql": of_mysql,
    "mongodb": of_mongodb,
    "influxdb": of_influxdb,
}


class Valet:
    """A dbvalet process that can be killed and started again, and a client of it."""

    def __init__(self, folder: Path, url: str, programs: Iterable[Path], **more: Any) -> None:
        self.url = url
        self._config = configuration(folder, {"id": "ad-x", "url": url})
        settings = json.loads(self._config.read_text())
        self._config.write_text(json.dumps({**settings, **more}))
        self.variables = {"PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]])}

    @contextmanager
    def serving(self) -> Iterator[Running]:
        with serving(self._config, more=self.variables) as running:
            self.client = httpx.Client(
                base_url=running.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30, trust_env=False
            )
            with self.client:
                yield running

    def post(self, path: str, status: int = 201) -> dict[str, Any]:
        answer = self.client.post(path, json={})
        assert answer.status_code == status, answer.text
        return answer.json()

    def get(self, path: str, root: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()[root]

    def operation(self, operation_id: str) -> dict[str, Any]:
        return self.get(f"{ONE}/operations/{operation_id}", "operation")

    def ended(self, operation_id: str) -> dict[str, Any]:
        ends_at = time.monotonic() + LIMIT
        while (found := self.operation(operation_id))["finished_at"] is None:
            assert time.monotonic() < ends_at, found
            time.sleep(0.05)
        return found

    def back_up(self) -> dict[str, Any]:
        begun = self.post(f"{ONE}/backups")["database_backup"]
        ended = self.ended(begun["operation_id"])
        assert ended["status"] == "finished", ended
        return self.get(f"/api/backups/{begun['id']}", "database_backup")

    def until_under_way(self, operation_id: str, share: float) -> None:
        ends_at = time.monotonic() + LIMIT
        while (found := self.operation(operation_id))["finished_at"] is None and found["progress"] < share:
            assert time.monotonic() < ends_at, found
            time.sleep(0.002)


@contextmanager
def prepared(
    live: LiveServer, folder: Path, *, parts: Collection[Part] = ("backups", "restores"), **more: Any
) -> Iterator[tuple[Valet, Content]]:
    name = f"routes_{time.time_ns()}"
    with MADE[live.engine](live, name) as (url, content):
        content.fill()
        # Whose objects there are is known only now.
        account_on(live, name, parts=parts)
        yield Valet(folder, url, programs_of(live, folder / "programs"), **more), content


def programs_of(live: LiveServer, folder: Path) -> list[Path]:
    """Give the folders of the programs that dump this server."""
    if live.engine == "mysql":
        take_programs(live, folder)
    return [folder, wheel_programs()]


def a_round_trip(live: LiveServer, folder: Path) -> None:
    with prepared(live, folder) as (valet, content), valet.serving():
        before = content.look()
        backup = valet.back_up()
        assert backup["status"] == "done"
        archive = download(valet, backup)
        with tarfile.open(fileobj=io.BytesIO(archive)) as members:
            assert "manifest.json" in members.getnames()
        content.spoil()
        assert content.look() != before
        begun = valet.post(f"{ONE}/backups/{backup['id']}/restore")
        ended = valet.ended(begun["operation_id"])
        assert (ended["status"], ended["error"]) == ("finished", None), ended
        assert content.look() == before
        shown = valet.get(f"{ONE}/backup_restorations/{begun['id']}", "backup_restoration")
        assert (shown["status"], shown["source_backup_id"]) == ("done", backup["id"])
        assert valet.client.delete(f"{ONE}/backups/{backup['id']}").status_code == 204
        assert valet.get(f"{ONE}/backups", "database_backups") == []
        assert list((folder / "dbvalet-backups").rglob("*.tar.gz")) == []


def download(valet: Valet, backup: dict[str, Any]) -> bytes:
    """Download by the link alone, whole and in two ranges."""
    url = valet.get(f"{ONE}/backups/{backup['id']}/archive", "download_url")
    whole = httpx.get(url, trust_env=False)
    assert (whole.status_code, len(whole.content)) == (200, backup["size"])
    half = backup["size"] // 2
    ranges = (f"bytes=0-{half - 1}", f"bytes={half}-")
    parts = [httpx.get(url, headers={"Range": each}, trust_env=False) for each in ranges]
    assert [each.status_code for each in parts] == [206, 206]
    assert b"".join(each.content for each in parts) == whole.content
    forged = httpx.get(f"{url[:-1]}{'0' if url[-1] != '0' else '1'}", trust_env=False)
    assert forged.status_code == 403
    assert urlsplit(url).path.startswith("/api/")
    gzip.decompress(whole.content)
    return whole.content


def killed_while_backing_up(live: LiveServer, folder: Path) -> None:
    with prepared(live, folder) as (valet, content):
        before = content.look()
        with valet.serving() as running:
            older = valet.back_up()
            begun = valet.post(f"{ONE}/backups")["database_backup"]
            running.process.kill()
            running.process.wait()
        with valet.serving():
            ended = valet.ended(begun["operation_id"])
            assert ended["status"] in ("error", "finished"), ended
            if ended["status"] == "error":
                assert "in the middle of this backup" in ended["error"]
            listed = {each["id"]: each["status"] for each in valet.get(f"{ONE}/backups", "database_backups")}
            done = {id_ for id_, status in listed.items() if status == "done"}
            assert older["id"] in done
            assert len(list((folder / "dbvalet-backups").rglob("*.*"))) == len(done)
            assert valet.back_up()["status"] == "done"
        assert content.look() == before
        assert list((folder / "dbvalet-spool").rglob("*")) == []


def killed_while_restoring(live: LiveServer, folder: Path, shares: tuple[int, ...]) -> None:
    with prepared(live, folder) as (valet, content):
        new = content.look()
        with valet.serving():
            backup = valet.back_up()
        for share in shares:
            content.spoil()
            old = content.look()
            with valet.serving() as running:
                begun = valet.post(f"{ONE}/backups/{backup['id']}/restore")
                valet.until_under_way(begun["operation_id"], share)
                running.process.kill()
                running.process.wait()
            with valet.serving():
                ended = valet.ended(begun["operation_id"])
                assert ended["status"] in ("error", "finished"), ended
                found = content.look()
                assert found in (old, new), (share, ended)
                if ended["status"] == "finished":
                    assert found == new
                again = valet.ended(valet.post(f"{ONE}/backups/{backup['id']}/restore")["operation_id"])
                assert again["status"] == "finished", again
            assert content.look() == new
            assert list((folder / "dbvalet-spool").rglob("*")) == []


SHARES = (36, 60)
"""Percent at which a restore is cut off: when it begins to touch the server, and later."""


def test_a_backup_of_postgresql_is_made_downloaded_restored_and_deleted(postgresql: LiveServer, tmp_path: Path) -> None:
    a_round_trip(postgresql, tmp_path)


def test_a_backup_of_mysql_is_made_downloaded_restored_and_deleted(mysql: LiveServer, tmp_path: Path) -> None:
    a_round_trip(mysql, tmp_path)


def test_a_backup_of_mongodb_is_made_downloaded_restored_and_deleted(mongodb: LiveServer, tmp_path: Path) -> None:
    a_round_trip(mongodb, tmp_path)


def test_a_backup_of_influxdb_is_made_downloaded_restored_and_deleted(influxdb: LiveServer, tmp_path: Path) -> None:
    a_round_trip(influxdb, tmp_path)


@pytest.mark.newest_version
def test_dbvalet_is_killed_while_it_backs_postgresql_up(postgresql: LiveServer, tmp_path: Path) -> None:
    killed_while_backing_up(postgresql, tmp_path)


def test_dbvalet_is_killed_while_it_backs_mysql_up(mysql: LiveServer, tmp_path: Path) -> None:
    killed_while_backing_up(mysql, tmp_path)


@pytest.mark.newest_version
def test_dbvalet_is_killed_while_it_backs_mongodb_up(mongodb: LiveServer, tmp_path: Path) -> None:
    killed_while_backing_up(mongodb, tmp_path)


def test_dbvalet_is_killed_while_it_backs_influxdb_up(influxdb: LiveServer, tmp_path: Path) -> None:
    killed_while_backing_up(influxdb, tmp_path)


@pytest.mark.newest_version
@pytest.mark.long
def test_dbvalet_is_killed_while_it_restores_postgresql(postgresql: LiveServer, tmp_path: Path) -> None:
    killed_while_restoring(postgresql, tmp_path, SHARES)


@pytest.mark.long
def test_dbvalet_is_killed_while_it_restores_mysql(mysql: LiveServer, tmp_path: Path) -> None:
    killed_while_restoring(mysql, tmp_path, SHARES)


@pytest.mark.newest_version
def test_dbvalet_is_killed_while_it_restores_mongodb(mongodb: LiveServer, tmp_path: Path) -> None:
    killed_while_restoring(mongodb, tmp_path, SHARES)


@pytest.mark.long
def test_dbvalet_is_killed_while_it_restores_influxdb(influxdb: LiveServer, tmp_path: Path) -> None:
    killed_while_restoring(influxdb, tmp_path, SHARES)
