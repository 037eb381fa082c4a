"""The images set themselves up from the environment that the official ones take."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import influxdb
import psycopg
import pymongo
import pymysql
import pytest
from testcontainers.core.container import DockerContainer

from tests.live.images import Engine, EngineImage, choose, newest
from tests.live.servers import ADMIN_PASSWORD, PORTS, AnswersItsDriver

SCRIPTS = "/docker-entrypoint-initdb.d"
SECRETS = "/run/secrets"
# What a shell, a string literal and an option file would each take for their own.
ODD = """a'b"c\\d$e`f#g h"""


@contextmanager
def set_up(image: EngineImage, environment: Mapping[str, str], files: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Run a fresh container with files in it that only root can read."""
    container = DockerContainer(image.name).with_envs(**environment).with_exposed_ports(PORTS[image.engine])
    for path, text in files.items():
        container.with_copy_into_container(text.encode(), path, 0o644 if path.startswith(SCRIPTS) else 0o600)
    with container.waiting_for(AnswersItsDriver(image.engine)):
        yield container.get_container_host_ip(), container.get_exposed_port(PORTS[image.engine])


def ends_of(engine: Engine) -> tuple[EngineImage, ...]:
    return choose(engine, every=False, keys=())


@pytest.mark.parametrize("image", ends_of("postgresql"), ids=lambda image: image.id)
def test_postgresql_takes_its_secret_from_a_file_and_runs_scripts_in_the_new_database(image: EngineImage) -> None:
    environment = {
        "POSTGRES_PASSWORD_FILE": f"{SECRETS}/admin",
        "POSTGRES_DB": 'my "app"',
        "POSTGRES_INITDB_ARGS": "--data-checksums",
    }
    files = {
        f"{SECRETS}/admin": ADMIN_PASSWORD + "\n",
        f"{SCRIPTS}/1-first.sql": "CREATE TABLE made (step int); INSERT INTO made VALUES (1);",
        f"{SCRIPTS}/2-second.sh": 'psql -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "INSERT INTO made VALUES (2)"',
    }
    with set_up(image, environment, files) as (host, port):
        account = f"host={host} port={port} user=postgres password={ADMIN_PASSWORD}"
        with psycopg.connect(account, dbname='my "app"') as connection:
            assert connection.execute("SELECT array_agg(step ORDER BY step) FROM made").fetchone() == ([1, 2],)
            assert connection.execute("SHOW data_checksums").fetchone() == ("on",)


@pytest.mark.parametrize("image", ends_of("mysql"), ids=lambda image: image.id)
def test_mysql_makes_an_ordinary_account_that_has_its_own_database_alone(image: EngineImage) -> None:
    environment = {
        "MYSQL_ROOT_PASSWORD_FILE": f"{SECRETS}/root",
        "MYSQL_DATABASE": "my_app",
        "MYSQL_USER": "valet",
        "MYSQL_PASSWORD_FILE": f"{SECRETS}/valet",
    }
    files = {
        f"{SECRETS}/root": ADMIN_PASSWORD,
        f"{SECRETS}/valet": ODD,
        f"{SCRIPTS}/made.sql": "CREATE TABLE made AS SELECT 1 AS step; CREATE DATABASE myxapp;",
    }
    with (
        set_up(image, environment, files) as (host, port),
        pymysql.connect(host=host, port=port, user="valet", password=ODD) as connection,
    ):
        cursor = connection.cursor()
        cursor.execute("SELECT step FROM my_app.made")
        assert cursor.fetchall() == ((1,),)
        cursor.execute("SHOW DATABASES LIKE 'my%app'")
        assert cursor.fetchall() == (("my_app",),), "the underscore of the name was taken for a wildcard"


def test_mongodb_takes_its_secret_from_a_file() -> None:
    environment = {
        "MONGO_INITDB_ROOT_USERNAME": "root",
        "MONGO_INITDB_ROOT_PASSWORD_FILE": f"{SECRETS}/root",
    }
    with (
        set_up(newest("mongodb"), environment, {f"{SECRETS}/root": ADMIN_PASSWORD}) as (host, port),
        pymongo.MongoClient[dict[str, object]](host, port, username="root", password=ADMIN_PASSWORD) as client,
    ):
        (account,) = client.admin.command("connectionStatus")["authInfo"]["authenticatedUserRoles"]
    assert account == {"role": "root", "db": "admin"}


def test_influxdb_makes_an_ordinary_account_and_runs_scripts() -> None:
    environment = {
        "INFLUXDB_HTTP_AUTH_ENABLED": "true",
        "INFLUXDB_ADMIN_USER": "root",
        "INFLUXDB_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "INFLUXDB_DB": "app",
        "INFLUXDB_USER": "valet",
        "INFLUXDB_USER_PASSWORD": ODD,
    }
    files = {f"{SCRIPTS}/made.iql": "# DDL\nCREATE DATABASE made_by_script\n"}
    with set_up(newest("influxdb"), environment, files) as (host, port):
        valet = influxdb.InfluxDBClient(host, port, "valet", ODD, "app")
        assert valet.write_points([{"measurement": "m", "fields": {"value": 1}}])
        assert valet.get_list_database() == [{"name": "app"}]
        admin = influxdb.InfluxDBClient(host, port, "root", ADMIN_PASSWORD)
        assert {"name": "made_by_script"} in admin.get_list_database()


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_a_server_without_an_admin_password_is_not_started(engine: Engine) -> None:
    with DockerContainer(newest(engine).name) as container:
        result = container.get_wrapped_container().wait(timeout=30)
        assert result["StatusCode"] != 0
        output = b"".join(container.get_logs()).decode()
    assert "PASSWORD" in output
