"""A dry run changes nothing, names what the action then changes, and refuses in the words of the action."""

from typing import Any

import influxdb as bare
import pytest

from engines.engine import perform, preview
from engines.errors import EngineError
from engines.influxdb import ENGINE
from engines.influxdb.influxql import identifier
from engines.influxdb.server import InfluxServer
from engines.preview import Preview
from tests.live.influxdb.conftest import act, catalogue, connect, create_user, drop_user, policies
from tests.live.servers import LiveServer

pytestmark = pytest.mark.newest_version


def state(root: bare.InfluxDBClient, database: str) -> Any:
    """Everything there is, and the points of one database."""
    found = {
        name: [*root.query(f"SELECT * FROM {identifier(name)}./.*/", database=database).get_points()]
        for name in policies(root, database)
    }
    return catalogue(root), found


async def attempt(server: InfluxServer, root: bare.InfluxDBClient, action_name: str, /, **params: object) -> Preview:
    action = ENGINE.actions[action_name]
    before = state(root, server.address.database)
    try:
        return await preview(server, action, action.validate(params))
    finally:
        assert state(root, server.address.database) == before


async def refused_alike(
    server: InfluxServer, root: bare.InfluxDBClient, action_name: str, /, **params: object
) -> EngineError:
    action = ENGINE.actions[action_name]
    with pytest.raises(EngineError) as dry:
        await attempt(server, root, action_name, **params)
    before = state(root, server.address.database)
    with pytest.raises(EngineError) as real:
        await perform(server, action, action.validate(params))
    assert state(root, server.address.database) == before
    assert (type(dry.value), dry.value.message) == (type(real.value), real.value.message)
    return dry.value


async def test_add(server: InfluxServer, root: bare.InfluxDBClient, database: str) -> None:
    told = await attempt(server, root, "add-retention-policy", name="month", duration="30d")
    before = policies(root, database)
    await act(server, "add-retention-policy", name="month", duration="30d")
    assert [(each.change, each.name) for each in told.objects] == [("create", "month")]
    assert policies(root, database).keys() - before.keys() == {"month"}
    for duration in ("30d", "60d"):
        told = await refused_alike(server, root, "add-retention-policy", name="month", duration=duration)
        assert told.code == "already_exists"


async def test_add_of_a_default(server: InfluxServer, root: bare.InfluxDBClient, database: str) -> None:
    told = await attempt(server, root, "add-retention-policy", name="month", duration="INF", default=True)
    assert (told.before, told.after, told.total) == ("autogen", "month", 2)
    assert "for ever" in told.would
    await act(server, "add-retention-policy", name="month", duration="INF", default=True)
    assert [name for name, each in policies(root, database).items() if each["default"]] == [told.after]


async def test_del(server: InfluxServer, root: bare.InfluxDBClient, database: str) -> None:
    root.query(f"CREATE RETENTION POLICY month ON {identifier(database)} DURATION 30d REPLICATION 1", method="POST")
    root.write_points([{"measurement": "m", "fields": {"value": 1}}], database=database, retention_policy="month")
    told = await attempt(server, root, "del-retention-policy", name="month")
    assert [(each.kind, each.name) for each in told.objects if each.kind != "shard"] == [("retention policy", "month")]
    shards = {str(row["id"]) for row in shards_of(root, database)}
    assert {each.name for each in told.objects if each.kind == "shard"} == shards
    assert len(shards) == 1
    before = policies(root, database)
    await act(server, "del-retention-policy", name="month")
    assert before.keys() - policies(root, database).keys() == {"month"}
    assert shards_of(root, database) == []
    assert (await refused_alike(server, root, "del-retention-policy", name="month")).code == "not_found"
    assert (await refused_alike(server, root, "del-retention-policy", name="autogen")).code == "conflict"


def shards_of(root: bare.InfluxDBClient, database: str) -> list[Any]:
    return [row for row in root.query("SHOW SHARDS").get_points() if row["database"] == database]


@pytest.mark.parametrize(
    ("grant", "action", "missing"),
    [
        (None, "add-retention-policy", "READ"),
        (None, "del-retention-policy", "READ"),
        ("READ", "del-retention-policy", "WRITE"),
        ("ALL", "add-retention-policy", "ALL PRIVILEGES"),
    ],
)
async def test_what_is_missing_is_told_alike(
    influxdb: LiveServer, root: bare.InfluxDBClient, *, grant: str | None, action: str, missing: str
) -> None:
    root.query("CREATE RETENTION POLICY victim ON app DURATION 1h REPLICATION 1", method="POST")
    create_user(root, "dry", grant)
    server = connect(influxdb.url("dry", "p"))
    try:
        params = {"name": "victim"} if action.startswith("del") else {"name": "new", "duration": "1h"}
        told = await refused_alike(server, root, action, **params)
        assert f"Missing: {missing}." in told.message
    finally:
        await server.close()
        drop_user(root, "dry")
        root.query("DROP RETENTION POLICY victim ON app", method="POST")


async def test_who_may_not_list_shards_is_told_what_is_not_known(
    influxdb: LiveServer, root: bare.InfluxDBClient
) -> None:
    root.query("CREATE RETENTION POLICY victim ON app DURATION 1h REPLICATION 1", method="POST")
    create_user(root, "dry", "ALL")
    server = connect(influxdb.url("dry", "p"))
    try:
        told = await attempt(server, root, "del-retention-policy", name="victim")
        assert [each.name for each in told.objects] == ["victim"]
        assert told.warnings
        await act(server, "del-retention-policy", name="victim")
        assert "victim" not in policies(root, "app")
    finally:
        await server.close()
        drop_user(root, "dry")
