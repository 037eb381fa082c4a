"""No name, however it is written, touches anything but the retention policy of exactly that name."""

import influxdb as bare
import pytest
from influxdb.exceptions import InfluxDBClientError

from engines.errors import AlreadyExists, Conflict, InvalidParams, RetentionPolicyNotFound
from engines.influxdb.influxql import identifier
from engines.influxdb.server import InfluxServer
from tests.live.hostile_names import hostile_names
from tests.live.influxdb.conftest import act, catalogue, policies

KNOWN = ("autogen", "victim", "Victim 2", "default", "_internal", "monitor")
BATCH = 100


@pytest.fixture
def _victims(root: bare.InfluxDBClient, database: str) -> None:
    for name in ("victim", "Victim 2"):
        root.query(
            f"CREATE RETENTION POLICY {identifier(name)} ON {identifier(database)} DURATION 2h REPLICATION 1",
            method="POST",
        )
        root.write_points([{"measurement": "m", "fields": {"x": 1}}], database=database, retention_policy=name)


@pytest.mark.usefixtures("_victims")
@pytest.mark.long
async def test_add_makes_that_name_or_nothing(server: InfluxServer, root: bare.InfluxDBClient, database: str) -> None:
    names = hostile_names(KNOWN, 1_000, longest=255)
    before = catalogue(root)
    created = 0
    for number, name in enumerate(names):
        try:
            await act(server, "add-retention-policy", name=name, duration="3h")
        except (AlreadyExists, InvalidParams):
            made = set[str]()
        else:
            made = {name}
            created += 1
        assert {*policies(root, database)} == {"autogen", "victim", "Victim 2"} | made, name
        if made:
            await act(server, "del-retention-policy", name=name)
        if number % BATCH == 0:
            assert catalogue(root) == before, name
    assert catalogue(root) == before
    # A few of the longest ones hold nothing that the server refuses.
    assert 100 < created < len(names)


@pytest.mark.usefixtures("_victims")
async def test_del_touches_nothing_of_another_name(
    server: InfluxServer, root: bare.InfluxDBClient, database: str
) -> None:
    names = hostile_names(KNOWN, 1_000, longest=255)
    before = catalogue(root)
    for number, name in enumerate(names):
        with pytest.raises((RetentionPolicyNotFound, InvalidParams)):
            await act(server, "del-retention-policy", name=name)
        if number % BATCH == 0:
            assert catalogue(root) == before, name
    with pytest.raises(Conflict):
        await act(server, "del-retention-policy", name="autogen")
    assert catalogue(root) == before


async def test_every_name_that_the_server_takes_is_taken(
    server: InfluxServer, root: bare.InfluxDBClient, database: str
) -> None:
    """The rule in the params is the server's own: neither stricter nor looser."""
    for name in hostile_names(KNOWN, 1_000, longest=255)[:300]:
        statement = f"CREATE RETENTION POLICY {identifier(name)} ON {identifier(database)} DURATION 1h REPLICATION 1"
        try:
            root.query(statement, method="POST")
        except InfluxDBClientError:
            with pytest.raises(InvalidParams):
                await act(server, "add-retention-policy", name=name, duration="1h")
        else:
            await act(server, "del-retention-policy", name=name)
            await act(server, "add-retention-policy", name=name, duration="1h")
            await act(server, "del-retention-policy", name=name)
