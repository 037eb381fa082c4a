"""Users of an InfluxDB database: a reader is refused every kind of write by the server itself."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import influxdb as bare
import pytest
from influxdb.exceptions import InfluxDBClientError

from engines import deadline
from engines.errors import AlreadyExists, Precondition, PrivilegeMissing, Protected, UserNotFound
from engines.influxdb.server import InfluxServer
from engines.influxdb.users import InfluxUsers
from engines.users import change_password, create_user, delete_user, made_password
from tests.live.accounts import account_on
from tests.live.images import newest
from tests.live.influxdb.conftest import USER, bare_client, connect
from tests.live.servers import LiveServer, spawn
from tests.live.test_users import hostile

DATABASE = "of_users"

STATEMENTS = """
DROP MEASUREMENT things
DROP SERIES FROM things
DELETE FROM things
SELECT n INTO copied FROM things
DROP SHARD 1
CREATE RETENTION POLICY mine ON of_users DURATION 30d REPLICATION 1
ALTER RETENTION POLICY autogen ON of_users DURATION 30d
DROP RETENTION POLICY autogen ON of_users
DROP CONTINUOUS QUERY mine ON of_users
CREATE DATABASE mine
DROP DATABASE of_users
CREATE USER "somebody" WITH PASSWORD 'x'
DROP USER "reader"
SET PASSWORD FOR "root" = 'x'
GRANT ALL ON of_users TO "reader"
GRANT ALL PRIVILEGES TO "reader"
REVOKE READ ON of_users FROM "reader"
CREATE SUBSCRIPTION mine ON of_users.autogen DESTINATIONS ALL 'udp://127.0.0.1:9'
DROP SUBSCRIPTION mine ON of_users.autogen
KILL QUERY 1
""".strip().splitlines()


@pytest.fixture
async def server(root: bare.InfluxDBClient, account: Callable[[str], str]) -> AsyncIterator[InfluxServer]:
    root.create_database(DATABASE)
    root.create_database("another")
    root.write_points([{"measurement": "things", "fields": {"n": 1}}], database=DATABASE)
    server = connect(account(DATABASE))
    with deadline.within(60):
        yield server
    await server.close()
    for name in ("reader", "writer", "ordinary", "of_two", "of_none"):
        if name in {each["user"] for each in root.query("SHOW USERS").get_points()}:
            root.query(f"DROP USER {name}", method="POST")
    for name in (DATABASE, "another"):
        root.drop_database(name)


async def test_a_reader_is_made_only_where_it_cannot_write(server: InfluxServer, root: bare.InfluxDBClient) -> None:
    users = InfluxUsers(server)
    before = await users.all()
    with pytest.raises(Precondition, match="continuous_queries"):
        await create_user(users, "reader", made_password(), read_only=True)
    assert await users.all() == before


@pytest.fixture(scope="module")
def without_continuous_queries() -> Iterator[LiveServer]:
    newest_one = newest("influxdb")
    off = {"INFLUXDB_CONTINUOUS_QUERIES_ENABLED": "false"}
    with spawn(newest_one.flavour, newest_one.version, variables=off) as live:
        yield live


async def test_a_reader_reads_and_is_refused_every_write(without_continuous_queries: LiveServer) -> None:
    live = without_continuous_queries
    root = bare_client(live)
    for name in (DATABASE, "another"):
        root.create_database(name)
    root.write_points([{"measurement": "things", "fields": {"n": 1}}], database=DATABASE)
    server = connect(account_on(live, DATABASE))
    with deadline.within(60):
        await a_reader_is_refused(InfluxUsers(server), root, live)
    await server.close()
    root.close()


async def a_reader_is_refused(users: InfluxUsers, root: bare.InfluxDBClient, influxdb: LiveServer) -> None:
    first, second = made_password(), made_password()
    made = await create_user(users, "reader", first, read_only=True)
    assert (made.name, made.read_only, made.protected) == ("reader", True, False)
    reader = bare_client(influxdb, "reader", first)
    assert list(reader.query("SELECT n FROM things", database=DATABASE).get_points())
    for statement in STATEMENTS:
        with pytest.raises(InfluxDBClientError, match="authoriz") as refused:
            reader.query(statement, database=DATABASE, method="POST")
            pytest.fail(statement)
        assert refused.value.code in (401, 403), statement
    with pytest.raises(InfluxDBClientError, match="not authorized to write"):
        reader.write_points([{"measurement": "things", "fields": {"n": 2}}], database=DATABASE)
    root.write_points([{"measurement": "later", "fields": {"n": 7}}], database=DATABASE)
    assert list(reader.query("SELECT n FROM later", database=DATABASE).get_points())
    with pytest.raises(InfluxDBClientError):
        reader.query("SELECT n FROM things", database="another")
    # It may make one, which is why there must be nobody who runs it.
    query = "BEGIN SELECT mean(n) INTO written FROM things GROUP BY time(1s) END"
    reader.query(f"CREATE CONTINUOUS QUERY mine ON {DATABASE} {query}", database=DATABASE, method="POST")
    for _ in range(3):
        await asyncio.sleep(1)  # as often as the server would run it
        root.write_points([{"measurement": "things", "fields": {"n": 1}}], database=DATABASE)
    assert {each["name"] for each in root.query("SHOW MEASUREMENTS", database=DATABASE).get_points()} == {
        "things",
        "later",
    }
    await change_password(users, "reader", second)
    with pytest.raises(InfluxDBClientError):
        reader.query("SELECT n FROM things", database=DATABASE)
    again = bare_client(influxdb, "reader", second)
    assert list(again.query("SELECT n FROM things", database=DATABASE).get_points())
    await delete_user(users, "reader")
    with pytest.raises(InfluxDBClientError):
        again.query("SELECT n FROM things", database=DATABASE)
    with pytest.raises(UserNotFound):
        await delete_user(users, "reader")


async def test_a_writer_writes_here_and_nowhere_else(server: InfluxServer, influxdb: LiveServer) -> None:
    users, password = InfluxUsers(server), made_password()
    made = await create_user(users, "writer", password, read_only=False)
    assert (made.read_only, made.protected) == (False, False)
    writer = bare_client(influxdb, "writer", password)
    assert writer.write_points([{"measurement": "things", "fields": {"n": 2}}], database=DATABASE)
    with pytest.raises(InfluxDBClientError):
        writer.write_points([{"measurement": "things", "fields": {"n": 2}}], database="another")


async def test_who_is_made_or_taken_away_by_somebody_else_meanwhile_is_told_so(server: InfluxServer) -> None:
    users = InfluxUsers(server)
    await users.create("writer", made_password(), read_only=False)
    with pytest.raises(AlreadyExists):
        await users.create("writer", made_password(), read_only=False)
    await users.delete("writer")
    with pytest.raises(UserNotFound):
        await users.delete("writer")


async def test_users_with_more_rights_are_left_alone(
    server: InfluxServer, root: bare.InfluxDBClient, influxdb: LiveServer
) -> None:
    users = InfluxUsers(server)
    for name in ("of_two", "of_none"):
        root.query(f"CREATE USER {name} WITH PASSWORD 'x'", method="POST")
    for database in (DATABASE, "another"):
        root.query(f"GRANT READ ON {database} TO of_two", method="POST")
    listed = {each.name: each for each in await users.all()}
    for name in (USER, influxdb.admin, "of_two", "of_none"):
        assert listed[name].protected, name
        with pytest.raises(Protected):
            await change_password(users, name, made_password())
        with pytest.raises(Protected):
            await delete_user(users, name)
    await hostile(users, ["of_two", USER, influxdb.admin])


async def test_who_is_no_administrator_is_told_so(
    server: InfluxServer, root: bare.InfluxDBClient, influxdb: LiveServer
) -> None:
    root.query("CREATE USER ordinary WITH PASSWORD 'pass-of-an-ordinary-user'", method="POST")
    root.query(f"GRANT ALL ON {DATABASE} TO ordinary", method="POST")
    ordinary = connect(influxdb.url("ordinary", "pass-of-an-ordinary-user", DATABASE))
    with pytest.raises(PrivilegeMissing, match="GRANT ALL PRIVILEGES TO"):
        await InfluxUsers(ordinary).all()
    await ordinary.close()


async def test_without_accounts_nobody_can_be_kept_from_writing(influxdb: LiveServer) -> None:
    nobody = connect(f"influxdb://{influxdb.host}:{influxdb.port}/{DATABASE}")
    with pytest.raises(Precondition, match="auth-enabled"):
        await InfluxUsers(nobody).all()
