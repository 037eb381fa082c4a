"""A connection that is cut under a statement: a read is sent again, a write never."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import influxdb as bare
import pytest

from engines.aftermath import Goal, Verdict, judge
from engines.engine import look
from engines.errors import Conflict, ConnectionLost
from engines.influxdb import ENGINE
from engines.influxdb.influxql import identifier
from engines.influxdb.server import InfluxServer
from tests.live.cutting_proxy import CuttingProxy, cutting_proxy
from tests.live.influxdb.conftest import act, connect, policies
from tests.live.influxdb.test_refusals import until
from tests.live.servers import LiveServer


@pytest.fixture
async def proxy(influxdb: LiveServer) -> AsyncIterator[CuttingProxy]:
    async with cutting_proxy(influxdb.host, influxdb.port) as proxy:
        yield proxy


@pytest.fixture
async def server(
    influxdb: LiveServer, account: Callable[[str], str], database: str, proxy: CuttingProxy
) -> AsyncIterator[InfluxServer]:
    connected = connect(account(database).replace(f"{influxdb.host}:{influxdb.port}", f"127.0.0.1:{proxy.port}"))
    await act(connected, "list-retention-policies")
    yield connected
    await connected.close()


LOSE: dict[str, Callable[[CuttingProxy, bytes], Any]] = {
    "request": CuttingProxy.lose_request,
    "answer": CuttingProxy.lose_answer,
}


@pytest.mark.parametrize("lost", LOSE)
async def test_a_read_is_sent_once_more_in_silence(server: InfluxServer, proxy: CuttingProxy, lost: str) -> None:
    LOSE[lost](proxy, b"q=SHOW")
    assert len(await act(server, "list-retention-policies")) == 1
    assert proxy.is_done


async def test_a_read_is_not_sent_a_third_time(server: InfluxServer, proxy: CuttingProxy) -> None:
    for _ in range(2):
        proxy.lose_request(b"q=SHOW")
    with pytest.raises(ConnectionLost):
        await act(server, "list-retention-policies")
    assert len(await act(server, "list-retention-policies")) == 1


async def test_a_write_that_did_not_arrive_is_told_as_lost_and_not_sent_again(
    server: InfluxServer, root: bare.InfluxDBClient, proxy: CuttingProxy, database: str
) -> None:
    proxy.lose_request(b"q=CREATE")
    with pytest.raises(ConnectionLost):
        await act(server, "add-retention-policy", name="p", duration="1h")
    assert {*policies(root, database)} == {"autogen"}
    await act(server, "add-retention-policy", name="p", duration="1h")
    proxy.lose_request(b"q=DROP")
    with pytest.raises(ConnectionLost):
        await act(server, "del-retention-policy", name="p")
    assert {*policies(root, database)} == {"autogen", "p"}
    assert proxy.is_done


async def test_a_write_whose_answer_was_lost_is_found_done(
    server: InfluxServer, root: bare.InfluxDBClient, proxy: CuttingProxy, database: str
) -> None:
    proxy.lose_answer(b"q=CREATE", once=lambda: "p" in policies(root, database))
    await act(server, "add-retention-policy", name="p", duration="1h", default=True)
    assert policies(root, database)["p"]["default"]
    await act(server, "add-retention-policy", name="q", duration="1h")
    proxy.lose_answer(b"q=DROP", once=lambda: "q" not in policies(root, database))
    await act(server, "del-retention-policy", name="q")
    assert {*policies(root, database)} == {"autogen", "p"}
    assert proxy.is_done


@pytest.mark.parametrize(
    ("acknowledged", "told"), [(False, "whether it finished is not known"), (True, "said that it is done")]
)
async def test_when_it_cannot_look_it_tells_what_is_known(
    server: InfluxServer, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch, *, acknowledged: bool, told: str
) -> None:
    if not acknowledged:
        proxy.lose_answer(b"q=CREATE")
    read = server.read
    looks = 0

    async def read_and_cut_later(statement: str) -> Any:
        nonlocal looks
        looks += 1
        if looks == 2:
            for _ in range(2):
                proxy.lose_request(b"q=SHOW")
        return await read(statement)

    monkeypatch.setattr(server, "read", read_and_cut_later)
    with pytest.raises(ConnectionLost, match=told):
        await act(server, "add-retention-policy", name="p", duration="1h")
    assert proxy.is_done


@pytest.mark.parametrize("acknowledged", [False, True])
async def test_what_was_done_is_no_refusal_when_the_account_may_not_look_any_more(
    server: InfluxServer,
    root: bare.InfluxDBClient,
    proxy: CuttingProxy,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    acknowledged: bool,
) -> None:
    write, user = server.write, server.address.user or ""

    async def write_and_revoke(statement: str) -> Any:
        if not acknowledged:
            proxy.lose_answer(b"q=CREATE", once=lambda: "p" in policies(root, database))
        try:
            return await write(statement)
        finally:
            root.query(f"REVOKE ALL PRIVILEGES FROM {identifier(user)}", method="POST")
            root.query(f"REVOKE ALL ON {identifier(database)} FROM {identifier(user)}", method="POST")

    monkeypatch.setattr(server, "write", write_and_revoke)
    try:
        with pytest.raises(Conflict if acknowledged else ConnectionLost) as told:
            await act(server, "add-retention-policy", name="p", duration="1h")
        text = "InfluxDB said that it is done" if acknowledged else "whether it finished is not known"
        assert text in told.value.message
        assert "p" in policies(root, database)
    finally:
        root.query(f"GRANT ALL PRIVILEGES TO {identifier(user)}", method="POST")


def make_policy(root: bare.InfluxDBClient, database: str, *, points: int) -> None:
    root.query(f"CREATE RETENTION POLICY p ON {identifier(database)} DURATION 30d REPLICATION 1", method="POST")
    for number in range(points):
        root.write_points([{"measurement": "m", "fields": {"n": number}}], database=database, retention_policy="p")


async def told(server: InfluxServer, before: Sequence[str] | None) -> Verdict:
    return judge(Goal.GONE, before, await look_at_policy(server))


async def look_at_policy(server: InfluxServer) -> Sequence[str] | None:
    action = ENGINE.actions["del-retention-policy"]
    return await look(server, action, action.validate({"name": "p"}))


@pytest.mark.parametrize("points", [0, 2])
@pytest.mark.parametrize("points_anew", [0, 1])
async def test_a_policy_that_is_made_anew_is_not_taken_for_the_one_that_was_to_be_deleted(
    server: InfluxServer,
    root: bare.InfluxDBClient,
    proxy: CuttingProxy,
    database: str,
    *,
    points: int,
    points_anew: int,
) -> None:
    make_policy(root, database, points=points)
    before = await look_at_policy(server)
    assert await told(server, before) is (Verdict.NOT_DONE if points else Verdict.UNKNOWN)
    proxy.lose_answer(b"q=DROP")
    with pytest.raises(ConnectionLost):
        await server.write(f"DROP RETENTION POLICY p ON {identifier(database)}")
    # The server answers before it is done, and goes on without the client.
    await until(lambda: "p" not in policies(root, database))
    assert await told(server, before) is Verdict.DONE
    make_policy(root, database, points=points_anew)
    assert await told(server, before) is Verdict.UNKNOWN


async def test_who_may_not_list_shards_cannot_tell_a_policy_from_the_next_of_its_name(
    server: InfluxServer, root: bare.InfluxDBClient, database: str
) -> None:
    make_policy(root, database, points=1)
    user = identifier(server.address.user or "")
    root.query(f"GRANT ALL ON {identifier(database)} TO {user}", method="POST")
    root.query(f"REVOKE ALL PRIVILEGES FROM {user}", method="POST")
    try:
        assert await told(server, await look_at_policy(server)) is Verdict.UNKNOWN
    finally:
        root.query(f"GRANT ALL PRIVILEGES TO {user}", method="POST")
