"""deploy/compose.yaml as a newcomer brings it up: four engines, accounts of their own, every secret a file."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import influxdb
import psycopg
import pymongo
import pymongo.errors
import pymysql
import pytest

from engines.address import Address, parse_address
from tests.live.images import find_image
from tests.live.own_image import CHECKOUT, own_image
from tests.live.servers import OWNER, PORTS, free_port, owner_label, remove_abandoned

IMAGES = {
    "postgresql": "postgresql:18",
    "mysql": "mysql:9.7",
    "mongodb": "mongodb:6.0",
    "influxdb": "influxdb:1.6",
}

# Where the image is not there yet, it is built first.
pytestmark = [pytest.mark.engine_images(*IMAGES.values()), pytest.mark.timeout(600)]

COMPOSE_FILE = CHECKOUT / "deploy" / "compose.yaml"
MAKE_SECRETS = CHECKOUT / "deploy" / "compose" / "make-secrets"
SERVICES = ("dbvalet", "accounts", *IMAGES)


class NoCompose(Exception):
    """There is no Docker Compose, and it cannot be installed; the text says why."""


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=os.environ | (env or {})
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}"
    return done.stdout


def compose_command() -> Sequence[str]:
    """Find the plugin, else docker-compose, else install Debian's.

    Raises: NoCompose
    """
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ("docker", "compose")
    if shutil.which("docker-compose") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise NoCompose("there is no `docker compose` and no docker-compose; apt-get install docker-compose")
        run("apt-get", "update")
        run("apt-get", "install", "--yes", "--no-install-recommends", "docker-compose")
    return ("docker-compose",)


@dataclass
class Project:
    """The whole of compose.yaml, running."""

    command: Sequence[str]
    name: str
    environment: dict[str, str]
    secrets: Path
    override: Path

    def compose(self, *arguments: str) -> str:
        files = ("--file", str(COMPOSE_FILE), "--file", str(self.override))
        return run(*self.command, "--project-name", self.name, *files, *arguments, env=self.environment)

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def inspect(self, service: str) -> dict[str, Any]:
        ids = run(
            "docker", "ps", "--all", "--quiet",
            "--filter", f"label=com.docker.compose.project={self.name}",
            "--filter", f"label=com.docker.compose.service={service}",
        ).split()  # fmt: skip
        assert len(ids) == 1, (service, ids)
        return json.loads(run("docker", "inspect", ids[0]))[0]

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + 60
        while (status := self.inspect("dbvalet")["State"]["Health"]["Status"]) != "healthy":
            assert time.monotonic() < deadline, (status, self.compose("logs", "dbvalet", "accounts"))
            time.sleep(0.1)

    def address(self, engine: str) -> tuple[str, int]:
        """Tell where this machine reaches an engine, which publishes no port."""
        (network,) = self.inspect(engine)["NetworkSettings"]["Networks"].values()
        return network["IPAddress"], PORTS[engine]  # pyright: ignore[reportArgumentType]

    def account(self, engine: str) -> Address:
        return parse_address(self.secret(f"{engine}_url"), 0)

    def http(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.secret('token')}"}
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.environment['DBVALET_PORT']}", headers=headers, timeout=30
        )

    def act(self, database: str, name: str, params: object = None) -> Any:
        with self.http() as http:
            answer = http.post(f"/api/databases/{database}/action", json={"action_name": name, "params": params})
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    def postgresql(self, user: str = "postgres", password: str | None = None) -> psycopg.Connection[tuple[Any, ...]]:
        host, port = self.address("postgresql")
        password = password or self.secret("postgresql_admin_password")
        return psycopg.connect(host=host, port=port, user=user, password=password, dbname="app", autocommit=True)

    def mysql(self, user: str = "root", password: str | None = None) -> "pymysql.Connection[Any]":
        host, port = self.address("mysql")
        password = password or self.secret("mysql_admin_password")
        return pymysql.connect(host=host, port=port, user=user, password=password)

    def mongodb(self, user: str = "root", password: str | None = None) -> pymongo.MongoClient[dict[str, Any]]:
        host, port = self.address("mongodb")
        password = password or self.secret("mongodb_admin_password")
        return pymongo.MongoClient(host, port, username=user, password=password, serverSelectionTimeoutMS=3000)

    def influxdb(self) -> influxdb.InfluxDBClient:
        host, port = self.address("influxdb")
        return influxdb.InfluxDBClient(host, port, "root", self.secret("influxdb_admin_password"), timeout=3, retries=1)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    image = own_image()
    remove_abandoned()
    folder = tmp_path_factory.mktemp("compose")
    run(MAKE_SECRETS, folder / "secrets")
    # The label is what a later run finds the containers of a killed one by.
    services: dict[str, dict[str, object]] = {
        service: {"labels": {OWNER: owner_label(os.getpid())}} for service in SERVICES
    }
    services["dbvalet"]["healthcheck"] = {"interval": "1s"}
    override = folder / "override.yaml"
    override.write_text(json.dumps({"services": services}))
    images = {f"{engine.upper()}_IMAGE": find_image(*key.split(":")).name for engine, key in IMAGES.items()}
    environment = {
        "DBVALET_IMAGE": image,
        "DBVALET_PORT": str(free_port()),
        "DBVALET_SECRETS": str(folder / "secrets"),
        **images,
    }
    project = Project(compose_command(), f"dbvalet-test-{os.getpid()}", environment, folder / "secrets", override)
    try:
        project.compose("up", "--detach", "--no-build")
        project.wait_until_healthy()
        yield project
    finally:
        project.compose("down", "--volumes")


def test_postgresql_is_read_and_written(project: Project) -> None:
    with project.postgresql() as admin:
        admin.execute("SELECT 1 AS marker_of_the_compose_test, current_user, version(), now()")
        count = "SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%marker_of_the_compose_test, %'"
        assert admin.execute(count).fetchone() == (1,)
        listed = project.act("ad-postgresql", "pg-stat-statements-list")
        assert any("marker_of_the_compose_test, " in each["query"] for each in listed)
        project.act("ad-postgresql", "pg-stat-statements-reset")
        assert admin.execute(count).fetchone() == (0,)


def test_mysql_is_read_and_written(project: Project) -> None:
    project.act("ad-mysql", "create-database", {"database_name": "made_here"})
    with project.mysql() as admin, admin.cursor() as cursor:
        cursor.execute("SHOW DATABASES LIKE 'made\\_here'")
        assert cursor.fetchall() == (("made_here",),)
    names = [each["name"] for each in project.act("ad-mysql", "list-databases")]
    assert names == ["app", "made_here"]


def test_mongodb_is_read_and_written(project: Project) -> None:
    project.act("ad-mongodb", "create-database", {"database_name": "made_here"})
    with project.mongodb() as admin:
        assert "made_here" in admin.list_database_names()
    names = [each["name"] for each in project.act("ad-mongodb", "list-databases")]
    assert names == ["app", "made_here"]


def test_influxdb_is_read_and_written(project: Project) -> None:
    project.act("ad-influxdb", "add-retention-policy", {"name": "made_here", "duration": "30d"})
    with closing(project.influxdb()) as admin:
        kept = {policy["name"]: policy["duration"] for policy in admin.get_list_retention_policies("app")}
    assert kept["made_here"] == "720h0m0s"
    durations = {each["name"]: each["duration"] for each in project.act("ad-influxdb", "list-retention-policies")}
    assert durations == {"autogen": "0", "made_here": "30d"}


def test_the_account_on_postgresql_is_no_superuser(project: Project) -> None:
    with project.postgresql() as admin:
        role = admin.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls"
            " FROM pg_roles WHERE rolname = %s",
            [project.account("postgresql").user],
        ).fetchone()
        assert role == (False,) * 5
        admin.execute("CREATE TABLE of_the_application ()")
    account = project.account("postgresql")
    with (
        project.postgresql(account.user or "", account.password) as valet,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        valet.execute("SELECT FROM of_the_application")


def test_the_account_on_mysql_is_not_root(project: Project) -> None:
    account = project.account("mysql")
    with project.mysql(account.user or "", account.password) as valet, valet.cursor() as cursor:
        cursor.execute("SHOW GRANTS")
        grants = " ".join(grant for (grant,) in cursor.fetchall())
        assert not any(word in grants for word in ("ALL PRIVILEGES", "GRANT OPTION", "SELECT", "SUPER", "FILE"))
        with pytest.raises(pymysql.err.OperationalError) as refused:
            cursor.execute("SELECT user FROM mysql.user")
        assert refused.value.args[0] == 1142


def test_the_account_on_mongodb_is_not_root(project: Project) -> None:
    account = project.account("mongodb")
    with project.mongodb() as admin:
        (user,) = admin.admin.command("usersInfo", account.user)["users"]
        assert user["roles"] == [{"role": "dbvalet", "db": "admin"}]
        admin["app"]["of_the_application"].insert_one({})
    with (
        project.mongodb(account.user or "", account.password) as valet,
        pytest.raises(pymongo.errors.OperationFailure) as refused,
    ):
        valet["app"]["of_the_application"].find_one()
    assert refused.value.code == 13


def test_influxdb_has_dbvalets_account_beside_the_first_administrator(project: Project) -> None:
    # InfluxDB 1.x lets administrators alone create a retention policy, so dbvalet's is one too.
    with closing(project.influxdb()) as admin:
        users = list(admin.query("SHOW USERS").get_points())
    assert users == [{"user": "root", "admin": True}, {"user": "valet", "admin": True}]


def test_only_dbvalet_is_published_and_only_to_this_machine(project: Project) -> None:
    published = {
        service: [(each["HostIp"], port) for port, bound in ports.items() for each in bound or []]
        for service in ("dbvalet", *IMAGES)
        for ports in [project.inspect(service)["NetworkSettings"]["Ports"]]
    }
    assert published == {"dbvalet": [("127.0.0.1", "8000/tcp")], **{engine: [] for engine in IMAGES}}
    with project.http() as http:
        assert http.get("/api/databases", headers={"Authorization": "Bearer of-somebody-else"}).status_code == 401


def test_dbvalet_is_confined(project: Project) -> None:
    for service in ("dbvalet", "accounts"):
        container = project.inspect(service)
        assert container["Config"]["User"] == "10001:10001"
        assert container["HostConfig"]["ReadonlyRootfs"] is True
        assert container["HostConfig"]["CapDrop"] == ["ALL"]
        assert container["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]


def test_secrets_are_files_for_whom_they_are_meant(project: Project) -> None:
    values = [file.read_text().strip() for file in project.secrets.iterdir()]
    mounted: dict[str, set[str]] = {}
    for service in SERVICES:
        container = project.inspect(service)
        places = [mount["Destination"] for mount in container["Mounts"]]
        mounted[service] = {Path(place).name for place in places if place.startswith("/run/secrets/")}
        assert not any(value in json.dumps([container["Config"], container["Args"]]) for value in values)
    urls = {f"{engine}_url" for engine in IMAGES}
    admins = {f"{engine}_admin_password" for engine in IMAGES}
    assert mounted == {
        "dbvalet": {"token", *urls},
        "accounts": admins | urls,
        "postgresql": {"postgresql_admin_password"},
        "mysql": {"mysql_admin_password"},
        "mongodb": {"mongodb_admin_password"},
        "influxdb": set(),
    }


def test_secrets_are_random_made_once_and_behind_a_closed_folder(tmp_path: Path) -> None:
    def made(folder: Path) -> dict[str, str]:
        run(MAKE_SECRETS, folder)
        assert folder.stat().st_mode & 0o777 == 0o700
        return {file.name: file.read_text() for file in folder.iterdir()}

    first, other = made(tmp_path / "first"), made(tmp_path / "other")
    assert made(tmp_path / "first") == first
    assert len(first) == 9
    assert set(first) == set(other)
    assert {*first.values()}.isdisjoint(other.values())


@pytest.mark.long
def test_new_passwords_are_taken_over_by_the_next_up(project: Project) -> None:
    before = {engine: project.account(engine).password for engine in IMAGES}
    for engine in IMAGES:
        (project.secrets / f"{engine}_url").unlink()
    run(MAKE_SECRETS, project.secrets)
    assert all(project.account(engine).password != before[engine] for engine in IMAGES)
    project.compose("up", "--detach", "--no-build")
    project.compose("restart", "dbvalet")
    project.wait_until_healthy()
    project.act("ad-postgresql", "list-extensions")
    project.act("ad-influxdb", "list-retention-policies")
    for database in ("ad-mysql", "ad-mongodb"):
        assert "made_here" in [each["name"] for each in project.act(database, "list-databases")]
    with pytest.raises(psycopg.OperationalError):
        project.postgresql("valet", before["postgresql"])
