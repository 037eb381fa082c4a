"""Start real database servers in containers, each at an address that outlives its restarts."""

import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import influxdb
import influxdb.exceptions
import psycopg
import pymongo
import pymongo.errors
import pymysql
import requests
from docker.errors import APIError, ImageNotFound
from testcontainers.community.mongodb import MongoDbContainer
from testcontainers.community.mysql import MySqlContainer
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import ConnectionMode, testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.utils import inside_container
from testcontainers.core.waiting_utils import WaitStrategy, WaitStrategyTarget

from tests.live.admins import ADMIN_PASSWORD, ADMINS
from tests.live.images import Engine, EngineImage, find_image

# Ryuk is an image of its own, which cannot be pulled where no registry is reachable. Containers carry the
# label below instead, and `remove_abandoned` takes away those of runs that were killed.
testcontainers_config.ryuk_disabled = True
OWNER = "dbvalet.test.owner"
# In a container beside the servers' own, testcontainers would take their bridge addresses, which change when they
# are started again; the gateway with the published port does not.
if testcontainers_config.connection_mode_override is None and inside_container():
    testcontainers_config.connection_mode_override = ConnectionMode.gateway_ip

READY_SECONDS = 90
DATABASE = "app"

PORTS: dict[Engine, int] = {"postgresql": 5432, "mysql": 3306, "mongodb": 27017, "influxdb": 8086}

DATA: dict[Engine, str] = {
    "postgresql": "/var/lib/postgresql/data",
    "mysql": "/var/lib/mysql",
    "mongodb": "/data/db",
    "influxdb": "/var/lib/influxdb",
}

# Nothing here outlives its container, so no engine needs to wait for a disk. What a killed server had
# committed is still there when it is started again: it is in the kernel's cache.
OPTIONS: dict[str, tuple[str, ...]] = {
    "postgresql": ("-c", "fsync=off", "-c", "full_page_writes=off"),
    "mysql": ("--skip-log-bin", "--innodb-flush-log-at-trx-commit=2", "--innodb-doublewrite=OFF", "--mysqlx=OFF"),
    "mariadb": ("--innodb-flush-log-at-trx-commit=2", "--innodb-doublewrite=OFF"),
    "mongodb": (),
    "influxdb": (),
}
PRELOAD = ("-c", "shared_preload_libraries=pg_stat_statements")


class ServerNotReady(Exception):
    """A server did not answer its driver in time; the text holds the end of its log."""


@dataclass(frozen=True)
class LiveServer:
    """A running server of one engine and version, with an account that may do everything on it."""

    engine: Engine
    flavour: str
    version: str
    host: str
    port: int
    admin: str
    password: str
    database: str
    container: DockerContainer

    def url(
        self, user: str | None = None, password: str | None = None, database: str | None = None, **options: str
    ) -> str:
        """Return the URL of a logical database as dbvalet's configuration takes it; without arguments, the admin's.

        MongoDB's authSource is `admin` unless `options` names another.
        """
        if self.engine == "mongodb":
            options = {"authSource": "admin", **options}
        account = f"{quote(user or self.admin, safe='')}:{quote(self._password(user, password), safe='')}"
        path = quote(self.database if database is None else database, safe="")
        query = f"?{urlencode(options)}" if options else ""
        return f"{self.engine}://{account}@{self.host}:{self.port}/{path}{query}"

    def _password(self, user: str | None, password: str | None) -> str:
        if password is not None:
            return password
        if user not in (None, self.admin):
            raise ValueError(f"the password of {user} is not known here")
        return self.password

    @property
    def version_tuple(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split("."))

    def pause(self) -> None:
        """Freeze every process of the server: connections stay open and nothing answers."""
        self.container.get_wrapped_container().pause()

    def unpause(self) -> None:
        self.container.get_wrapped_container().unpause()

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.pause()
        try:
            yield
        finally:
            self.unpause()

    def kill(self) -> None:
        """End the server with SIGKILL, as the kernel does when memory runs out."""
        container = self.container.get_wrapped_container()
        container.kill()
        container.wait()

    def stop(self) -> None:
        """Shut the server down in order."""
        self.container.get_wrapped_container().stop(timeout=30)

    def start(self) -> None:
        """Start a server that was stopped or killed, at the same address, and wait until it answers.

        Raises: ServerNotReady
        """
        self.container.get_wrapped_container().start()
        self.wait_until_it_answers()

    def restart(self) -> None:
        self.stop()
        self.start()

    def wait_until_it_answers(self) -> None:
        """Raises: ServerNotReady."""
        wait_until_it_answers(self.container, self.engine, self.host, self.port)

    def log(self) -> str:
        return end_of_log(self.container, lines=1000)


def end_of_log(container: DockerContainer, lines: int = 40) -> str:
    return container.get_wrapped_container().logs(tail=lines).decode(errors="replace")


def ask_postgresql(host: str, port: int) -> None:
    # The maintenance database: the test's own may be locked or gone.
    with psycopg.connect(
        host=host, port=port, user="postgres", password=ADMIN_PASSWORD, dbname="postgres", connect_timeout=2
    ) as connection:
        connection.execute("SELECT 1")


def ask_mysql(host: str, port: int) -> None:
    connection = pymysql.connect(
        host=host, port=port, user="root", password=ADMIN_PASSWORD, connect_timeout=2, read_timeout=2
    )
    connection.close()


def ask_mongodb(host: str, port: int) -> None:
    with pymongo.MongoClient[dict[str, object]](
        host, port, username="root", password=ADMIN_PASSWORD, serverSelectionTimeoutMS=1000, socketTimeoutMS=2000
    ) as client:
        client.admin.command("connectionStatus")


def ask_influxdb(host: str, port: int) -> None:
    client = influxdb.InfluxDBClient(host, port, "root", ADMIN_PASSWORD, timeout=2, retries=1)
    try:
        client.get_list_database()
    finally:
        client.close()


ASK: dict[Engine, Callable[[str, int], None]] = {
    "postgresql": ask_postgresql,
    "mysql": ask_mysql,
    "mongodb": ask_mongodb,
    "influxdb": ask_influxdb,
}
NOT_YET = (
    psycopg.OperationalError,
    pymysql.err.OperationalError,
    pymongo.errors.PyMongoError,
    influxdb.exceptions.InfluxDBClientError,
    influxdb.exceptions.InfluxDBServerError,
    requests.RequestException,
)


def wait_until_it_answers(
    container: WaitStrategyTarget | DockerContainer, engine: Engine, host: str, port: int
) -> None:
    """Log in through the engine's driver until that works.

    Raises: ServerNotReady, at once when the container has ended.
    """
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            ASK[engine](host, port)
        except NOT_YET as error:
            container.reload()
            running = container.status == "running"
            if not running or time.monotonic() > deadline:
                state = f"not after {READY_SECONDS} s ({error})" if running else f"container {container.status}"
                log = end_of_log(container) if isinstance(container, DockerContainer) else ""
                raise ServerNotReady(f"{engine} does not answer: {state}\n{log}") from error
            time.sleep(0.05)
        else:
            return


class AnswersItsDriver(WaitStrategy):
    """Wait for a real login from outside.

    The log lines that testcontainers looks for are printed by the temporary servers of some images too.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine: Engine = engine

    def wait_until_ready(self, container: WaitStrategyTarget) -> None:
        host = container.get_container_host_ip()
        wait_until_it_answers(container, self.engine, host, container.get_exposed_port(PORTS[self.engine]))


class Postgres(PostgresContainer):
    def _connect(self) -> None:
        """Leave the waiting to AnswersItsDriver."""


class MySql(MySqlContainer):
    def _connect(self) -> None:
        """Leave the waiting to AnswersItsDriver."""


def new_container(image: EngineImage, *, preload: bool, options: Sequence[str]) -> DockerContainer:
    admin = ADMINS[image.engine]
    if image.engine == "postgresql":
        container = Postgres(image.name, username=admin, password=ADMIN_PASSWORD, dbname=DATABASE, driver=None)
        command = ["postgres", *OPTIONS[image.flavour], *(PRELOAD if preload else ()), *options]
    elif image.engine == "mysql":
        container = MySql(image.name, username=admin, password=ADMIN_PASSWORD, dbname=DATABASE)
        command = [*OPTIONS[image.flavour], *options]
    elif image.engine == "mongodb":
        container = MongoDbContainer(image.name, username=admin, password=ADMIN_PASSWORD)
        command = ["mongod", *OPTIONS[image.flavour], *options]
    else:
        # InfluxDb1Container waits for /health, which 1.6 does not have, and its module wants the client of 2.x.
        container = DockerContainer(image.name).with_envs(
            INFLUXDB_ADMIN_USER=admin,
            INFLUXDB_ADMIN_PASSWORD=ADMIN_PASSWORD,
            INFLUXDB_DB=DATABASE,
            INFLUXDB_HTTP_AUTH_ENABLED="true",
        )
        command = ["influxd", *OPTIONS[image.flavour], *options]
    return (
        container.with_command(command)
        .with_bind_ports(PORTS[image.engine], free_port())
        .with_kwargs(labels={OWNER: owner_label(os.getpid())})
        .waiting_for(AnswersItsDriver(image.engine))
    )


def free_port() -> int:
    """Choose a host port below the range that the kernel and Docker hand out.

    A port of Docker's own choice would change when the container is started again.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def owner_label(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}"


def remove_abandoned() -> None:
    """Remove the containers of test runs on this machine whose process is gone."""
    for container in DockerClient().client.containers.list(all=True, filters={"label": OWNER}, ignore_removed=True):
        machine, _, pid = container.labels[OWNER].rpartition(":")
        if machine == socket.gethostname() and not Path("/proc", pid).exists():
            # Another run on this machine may be removing the same one: gone (404), or under way (409).
            try:
                container.remove(force=True, v=True)
            except APIError as error:
                if error.status_code not in (404, 409):
                    raise


def start_container(
    image: EngineImage,
    *,
    preload: bool,
    options: Sequence[str],
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> DockerContainer:
    if not image.is_official:
        try:
            DockerClient().client.images.get(image.name)
        except ImageNotFound as missing:
            how = f"deploy/engine-images/build {image.key}"
            raise LookupError(f"no image {image.name}: build it with {how}") from missing
    attempts = 5
    while True:
        attempts -= 1
        container = new_container(image, preload=preload, options=options).with_envs(**(variables or {}))
        if folder is not None:
            container.with_volume_mapping(str(folder), DATA[image.engine], "rw")
        try:
            container.start()
        except APIError as error:
            container.stop()
            if attempts == 0 or "port is already allocated" not in str(error):
                raise
        except BaseException:
            container.stop()
            raise
        else:
            return container


def attach(image: EngineImage, host: str, port: int, container_id: str) -> LiveServer:
    """Give a server that somebody else has started."""
    container = DockerContainer(image.name)
    container._container = DockerClient().client.containers.get(container_id)
    return live_server(image, container, host, port)


def live_server(image: EngineImage, container: DockerContainer, host: str, port: int) -> LiveServer:
    return LiveServer(
        engine=image.engine,
        flavour=image.flavour,
        version=image.version,
        host=host,
        port=port,
        admin=ADMINS[image.engine],
        password=ADMIN_PASSWORD,
        database=DATABASE,
        container=container,
    )


@contextmanager
def spawn(
    flavour: str,
    version: str,
    *,
    preload: bool = True,
    options: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[LiveServer]:
    """Run a private server, for a test that harms it.

    `preload` (PostgreSQL only) says whether pg_stat_statements is in shared_preload_libraries; `options` are
    added to the server's command line, `variables` to its environment. `folder` is where its data will be.

    Raises: LookupError, when there is no such image; ServerNotReady
    """
    image = find_image(flavour, version)
    container = start_container(image, preload=preload, options=options, variables=variables, folder=folder)
    try:
        port = container.get_exposed_port(PORTS[image.engine])
        yield live_server(image, container, container.get_container_host_ip(), port)
    finally:
        container.stop()
