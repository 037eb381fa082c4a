"""Counters move when work is done, a line of the engine's log is seen, and TLS is really switched."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import influxdb as influxdb_driver
import psycopg
import pymongo
import pymysql
import pytest

from engines import deadline
from engines.address import parse_address
from engines.engine import GrantsFor, Server, installed_engines
from engines.errors import Precondition, PrivilegeMissing
from engines.health import Health, Measures, explained
from engines.mongodb.grants import FIGURE_ROLE
from tests.live.accounts import account_on
from tests.live.mongodb.shell import run_script
from tests.live.servers import LiveServer, spawn

LIMIT = 60


@asynccontextmanager
async def health_of(live: LiveServer, url: str | None = None) -> AsyncIterator[Health]:
    engine = installed_engines()[live.engine]
    server: Server = engine.connect(
        parse_address(url or account_on(live, parts=["figures", "logs"]), engine.default_port)
    )
    try:
        health = engine.health_of(server)
        assert health is not None
        with deadline.within(LIMIT):
            yield health
    finally:
        await server.close()


async def moved(health: Health, counter: str, work: Callable[[], Any]) -> Measures:
    """Do work until a counter has grown by as much as was done at once: statistics may come late."""
    before = (await health.measures()).counters[counter]
    until = time.monotonic() + LIMIT
    while True:
        await asyncio.to_thread(work)
        after = await health.measures()
        if after.counters[counter] > before:
            return after
        assert time.monotonic() < until, f"{counter} stays at {before}"
        await asyncio.sleep(0.2)


async def refused(switch: Awaitable[object]) -> str:
    with pytest.raises(Precondition) as problem:
        await switch
    return problem.value.message


async def test_postgresql_counts_rows_that_are_inserted(postgresql: LiveServer) -> None:
    def work() -> None:
        with psycopg.connect(postgresql.url(), autocommit=True) as session:
            session.execute("CREATE TABLE IF NOT EXISTS measured (n int)")
            session.execute("INSERT INTO measured SELECT generate_series(1, 500)")

    async with health_of(postgresql) as health:
        after = await moved(health, "tup_inserted", work)
        assert (after.role, after.lag_seconds) == ("leader", None)
        assert after.data_size
        assert after.data_size > 1_000_000
        assert "pg_hba.conf" in await refused(health.force_ssl(on=True))
        assert "logging_collector" in await refused(health.log(10))


async def test_mysql_counts_inserts_and_switches_tls(mysql: LiveServer) -> None:
    def say(*statements: str) -> Any:
        with (
            pymysql.connect(
                host=mysql.host, port=mysql.port, user=mysql.admin, password=mysql.password, autocommit=True
            ) as connection,
            connection.cursor() as cursor,
        ):
            for each in statements:
                cursor.execute(each)
            return cursor.fetchall()

    def work() -> None:
        say("CREATE TABLE IF NOT EXISTS app.measured (n INT)", "INSERT INTO app.measured VALUES (1), (2)")

    async with health_of(mysql) as health:
        after = await moved(health, "Com_insert", work)
        assert after.role == "leader"
        assert after.data_size
        if mysql.flavour == "mysql" and mysql.version_tuple >= (8, 0, 22):
            assert all(line.text and line.at.tzinfo for line in await health.log(5))
            assert len(await health.log(5)) == 5
        else:
            assert "does not give its log" in await refused(health.log(5))
        try:
            switched = await health.force_ssl(on=True)
        except Precondition as problem:
            assert "TLS" in problem.message or "10.5.2" in problem.message
            assert say("SHOW GLOBAL VARIABLES LIKE 'have_ssl'") in ((), (("have_ssl", "DISABLED"),))
        else:
            try:
                assert switched.status == "ACTIVATED"
                assert switched.message.startswith("require_secure_transport is ON")
                ((_, value),) = say("SHOW GLOBAL VARIABLES LIKE 'require_secure_transport'")
                assert value == "ON"
            finally:
                assert (await health.force_ssl(on=False)).status == "REMOVED"
            ((_, value),) = say("SHOW GLOBAL VARIABLES LIKE 'require_secure_transport'")
            assert value == "OFF"


async def test_mongodb_counts_inserts_and_shows_a_line_of_its_log(mongodb: LiveServer) -> None:
    def work() -> None:
        with pymongo.MongoClient[dict[str, Any]](mongodb.url(), appname="seen-in-the-log") as client:
            client.get_default_database().measured.insert_one({})

    async with health_of(mongodb) as health:
        after = await moved(health, "op_insert", work)
        assert after.role == "leader"
        assert after.memory
        assert after.cpu_seconds
        assert after.disk_size
        assert any("seen-in-the-log" in line.text for line in await health.log(1000))
        assert "net.tls.mode" in await refused(health.force_ssl(on=True))


async def test_influxdb_counts_points_that_are_written(influxdb: LiveServer) -> None:
    def work() -> None:
        client = influxdb_driver.InfluxDBClient(
            influxdb.host, influxdb.port, influxdb.admin, influxdb.password, influxdb.database
        )
        try:
            client.write_points([{"measurement": "measured", "fields": {"n": 1}}])
        finally:
            client.close()

    async with health_of(influxdb) as health:
        after = await moved(health, "httpd_pointsWrittenOK", work)
        assert after.memory
        assert "does not give its log" in await refused(health.log(5))
        assert "https-enabled" in await refused(health.force_ssl(on=True))


async def test_a_refusal_of_mongodb_names_the_right_and_the_role_that_has_it_suffices(mongodb: LiveServer) -> None:
    engine = installed_engines()["mongodb"]
    with pymongo.MongoClient[dict[str, Any]](mongodb.url()) as client:
        script = engine.grants(GrantsFor(user="figures", password="of-the-figures", database="app"))
        run_script(client, script)
        server: Server = engine.connect(parse_address(mongodb.url("figures", "of-the-figures"), engine.default_port))
        health = engine.health_of(server)
        assert health is not None
        try:
            with deadline.within(LIMIT):
                with pytest.raises(PrivilegeMissing, match="clusterMonitor") as refused:
                    await explained(health, "metrics", health.measures())
                assert refused.value.privilege == "serverStatus, hostInfo, dbStats"
                with pytest.raises(PrivilegeMissing, match=FIGURE_ROLE) as refused:
                    await explained(health, "logs", health.log(5))
                assert refused.value.privilege == "getLog"
                run_script(client, script.replace("const figures = false", "const figures = true"))
                assert (await health.measures()).memory
                assert await health.log(5)
        finally:
            await server.close()
            client.admin.command("dropUser", "figures")


@pytest.mark.newest_version
async def test_a_standby_of_postgresql_is_a_follower(postgresql: LiveServer) -> None:
    async with health_of(postgresql) as health:
        assert await health.role() == "leader"
    with spawn("postgresql", postgresql.version) as standby:
        url = account_on(standby)
        place = standby.container.get_wrapped_container().exec_run(["sh", "-c", "touch $PGDATA/standby.signal"])
        assert place.exit_code == 0, place.output
        standby.restart()
        async with health_of(standby, url) as health:
            assert await health.role() == "follower"
            assert (await health.measures()).role == "follower"


async def test_a_replica_of_mysql_is_a_follower_and_one_that_takes_no_writes_does_not_say(mysql: LiveServer) -> None:
    def say(*statements: str) -> None:
        with (
            pymysql.connect(
                host=mysql.host, port=mysql.port, user=mysql.admin, password=mysql.password, autocommit=True
            ) as connection,
            connection.cursor() as cursor,
        ):
            for each in statements:
                cursor.execute(each)

    new_words = mysql.flavour == "mysql"
    async with health_of(mysql) as health:
        assert await health.role() == "leader"
        try:
            say("SET GLOBAL read_only = ON")
            assert await health.role() is None
            say(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'nowhere.invalid'"
                if new_words
                else "CHANGE MASTER TO MASTER_HOST = 'nowhere.invalid'"
            )
            assert await health.role() == "follower"
        finally:
            say("RESET REPLICA ALL" if new_words else "RESET SLAVE ALL", "SET GLOBAL read_only = OFF")
        assert await health.role() == "leader"


async def test_mongodb_and_influxdb_tell_that_they_lead(mongodb: LiveServer, influxdb: LiveServer) -> None:
    for live in (mongodb, influxdb):
        async with health_of(live) as health:
            assert await health.role() == "leader"
