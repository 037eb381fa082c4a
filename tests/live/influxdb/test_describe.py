"""What an InfluxDB server says of itself is true."""

from datetime import UTC, datetime, timedelta

import influxdb as bare

from engines.influxdb.server import InfluxServer
from tests.live.accounts import account_on
from tests.live.influxdb.conftest import connect, create_user, drop_user
from tests.live.servers import LiveServer


async def test_describe_tells_version_and_start(
    server: InfluxServer, influxdb: LiveServer, root: bare.InfluxDBClient
) -> None:
    description = await server.describe()
    assert description.readable_version == root.ping()
    assert description.version[:2] == influxdb.version_tuple
    assert len(description.version) == 3
    (system,) = root.query("SHOW DIAGNOSTICS").get_points("system")
    assert description.started_at == datetime.fromisoformat(system["started"])
    assert timedelta() < datetime.now(UTC) - description.started_at < timedelta(days=1)
    assert description == await server.describe()
    assert description.features == ()


async def test_describe_needs_no_privilege(influxdb: LiveServer, root: bare.InfluxDBClient) -> None:
    create_user(root, "nobody")
    server = connect(influxdb.url("nobody", "p"))
    description = await server.describe()
    assert description.readable_version == root.ping()
    assert timedelta() <= datetime.now(UTC) - description.started_at < timedelta(minutes=1)
    assert description == await server.describe()
    await server.close()
    drop_user(root, "nobody")


async def test_nothing_is_connected_before_the_first_call_and_after_close(influxdb: LiveServer) -> None:
    server = connect(account_on(influxdb))
    assert (server.pool_use().open, server.pool_use().limit) == (0, 4)
    await server.describe()
    assert (server.pool_use().open, server.pool_use().in_use) == (1, 0)
    await server.close()
    assert server.pool_use().open == 0
