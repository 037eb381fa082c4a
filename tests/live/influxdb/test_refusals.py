"""What InfluxDB or the network refuses is told as what it is, in time, and harms nothing."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import influxdb as bare
import pytest

from engines import deadline
from engines.engine import GrantsFor
from engines.errors import DeadlineExceeded, EngineUnavailable, PrivilegeMissing
from engines.influxdb import ENGINE
from engines.influxdb.grants import grants
from engines.influxdb.server import CONNECTIONS, InfluxServer
from tests.live.accounts import account_on
from tests.live.influxdb.conftest import (
    PASSWORD,
    USER,
    act,
    bare_client,
    catalogue,
    connect,
    create_user,
    drop_user,
    policies,
    run_script,
)
from tests.live.servers import LiveServer, spawn

CALLS: dict[str, dict[str, object]] = {
    "list-retention-policies": {},
    "add-retention-policy": {"name": "p", "duration": "1h"},
    "del-retention-policy": {"name": "victim"},
}
MOST = 4.0
"""Seconds after which an unreachable server is given up, with something to spare on a slow machine."""


@pytest.fixture
def victim(root: bare.InfluxDBClient) -> Iterator[None]:
    root.query("CREATE RETENTION POLICY victim ON app DURATION 1h REPLICATION 1", method="POST")
    yield
    root.query("DROP RETENTION POLICY victim ON app", method="POST")


@pytest.mark.usefixtures("victim")
@pytest.mark.parametrize(
    ("grant", "action", "missing"),
    [
        (None, "list-retention-policies", "READ"),
        (None, "add-retention-policy", "READ"),
        (None, "del-retention-policy", "READ"),
        ("WRITE", "del-retention-policy", "READ"),
        ("READ", "del-retention-policy", "WRITE"),
        ("ALL", "add-retention-policy", "ALL PRIVILEGES"),
    ],
)
async def test_a_missing_privilege_is_named_with_a_grant_that_helps(
    influxdb: LiveServer, root: bare.InfluxDBClient, *, grant: str | None, action: str, missing: str
) -> None:
    create_user(root, 'po"or', grant)
    server = connect(influxdb.url('po"or', "p"))
    try:
        before = catalogue(root)
        with pytest.raises(PrivilegeMissing) as refused:
            await act(server, action, **CALLS[action])
        assert catalogue(root) == before
        assert f"Missing: {missing}." in refused.value.message
        remedies = re.findall(r'Remedy: (GRANT .*? TO "po\\"or")', refused.value.message)
        assert len(remedies) == refused.value.message.count("Missing: ")
        for remedy in remedies:
            run_script(root, remedy)
        await act(server, action, **CALLS[action])
    finally:
        await server.close()
        drop_user(root, 'po"or')
        root.query("DROP RETENTION POLICY p ON app", method="POST")


async def test_the_account_of_the_script_meets_every_requirement(server: InfluxServer) -> None:
    assert all([await requirement.met(server) for requirement in ENGINE.requirements.values()])


def test_the_script_can_be_run_again(root: bare.InfluxDBClient, account: object) -> None:
    before = catalogue(root)
    run_script(root, grants(GrantsFor(user=USER, password=PASSWORD)))
    assert catalogue(root) == before


@pytest.mark.parametrize(
    ("grant", "met"), [(None, set[str]()), ("READ", {"READ"}), ("WRITE", {"WRITE"}), ("ALL", {"READ", "WRITE"})]
)
async def test_requirements_are_met_as_the_account_is_granted(
    influxdb: LiveServer, root: bare.InfluxDBClient, grant: str | None, met: set[str]
) -> None:
    create_user(root, "poor", grant)
    server = connect(influxdb.url("poor", "p"))
    found = {name for name, requirement in ENGINE.requirements.items() if await requirement.met(server)}
    await server.close()
    drop_user(root, "poor")
    assert found == met


@pytest.mark.usefixtures("victim")
async def test_all_on_the_database_is_enough_to_list_and_delete(
    influxdb: LiveServer, root: bare.InfluxDBClient
) -> None:
    create_user(root, "poor", "ALL")
    server = connect(influxdb.url("poor", "p"))
    assert len(await act(server, "list-retention-policies")) == 2
    await act(server, "del-retention-policy", name="victim")
    assert "victim" not in policies(root, "app")
    await server.close()
    drop_user(root, "poor")


@pytest.mark.parametrize("action", CALLS)
async def test_a_wrong_password_or_none_is_an_unavailable_engine_at_once(influxdb: LiveServer, action: str) -> None:
    for url in (influxdb.url(password="wr0ng"), f"influxdb://{influxdb.host}:{influxdb.port}/app"):
        server = connect(url)
        started = time.monotonic()
        with pytest.raises(EngineUnavailable, match="refuses the account") as refused:
            await act(server, action, **CALLS[action])
        assert time.monotonic() - started < MOST
        assert "wr0ng" not in refused.value.message
        with pytest.raises(EngineUnavailable, match="refuses the account"):
            await server.describe()
        await server.close()


@pytest.mark.parametrize("action", CALLS)
async def test_a_logical_database_that_is_not_there_is_an_unavailable_engine(influxdb: LiveServer, action: str) -> None:
    server = connect(account_on(influxdb).replace("/app", "/absent"))
    with pytest.raises(EngineUnavailable, match="does not exist"):
        await act(server, action, **CALLS[action])
    await server.close()


@pytest.mark.parametrize(
    ("host", "cause"), [("{host}:1", "connection refused"), ("no.such.host.invalid", "host name cannot be resolved")]
)
async def test_an_unreachable_server_is_told_with_its_cause(influxdb: LiveServer, host: str, cause: str) -> None:
    server = connect(f"influxdb://valet:s3cret@{host.format(host=influxdb.host)}/app")
    started = time.monotonic()
    outcomes = await asyncio.gather(
        *(act(server, action, **params) for action, params in CALLS.items()), server.describe(), return_exceptions=True
    )
    assert time.monotonic() - started < MOST
    for outcome in outcomes:
        assert isinstance(outcome, EngineUnavailable)
        assert cause in outcome.message and "s3cret" not in outcome.message
    await server.close()


async def test_a_server_without_tls_is_told_when_the_url_wants_it(influxdb: LiveServer) -> None:
    server = connect(account_on(influxdb).replace("influxdb://", "https+influxdb://"))
    with pytest.raises(EngineUnavailable, match="TLS"):
        await act(server, "list-retention-policies")
    await server.close()


async def test_proxies_and_netrc_of_the_environment_are_not_asked(
    influxdb: LiveServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = account_on(influxdb)
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {influxdb.host} login {influxdb.admin} password {influxdb.password}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server = connect(url)
    await act(server, "list-retention-policies")
    await server.close()
    server = connect(f"influxdb://{influxdb.host}:{influxdb.port}/app")
    with pytest.raises(EngineUnavailable, match="refuses the account"):
        await act(server, "list-retention-policies")
    await server.close()


@pytest.fixture(scope="module")
def private(influxdb: LiveServer) -> Iterator[LiveServer]:
    """A server to harm, of the same version."""
    with spawn("influxdb", influxdb.version) as server:
        client = bare_client(server)
        client.query("CREATE RETENTION POLICY victim ON app DURATION 1h REPLICATION 1", method="POST")
        client.close()
        yield server


@pytest.mark.parametrize("kept", [True, False], ids=["kept connection", "new connection"])
@pytest.mark.parametrize("action", CALLS)
async def test_a_frozen_server_is_given_up_in_time(private: LiveServer, action: str, kept: bool) -> None:
    server = connect(account_on(private))
    if kept:
        await act(server, "list-retention-policies")
    with private.paused():
        started = time.monotonic()
        with deadline.within(0.7), pytest.raises(DeadlineExceeded, match="does not answer"):
            await act(server, action, **CALLS[action])
        assert time.monotonic() - started < 0.7 + deadline.GRACE
        await until(lambda: server.pool_use().in_use == 0)
    assert len(await act(server, "list-retention-policies")) == 2
    await server.close()


async def test_a_frozen_server_is_described_within_two_seconds(private: LiveServer) -> None:
    server = connect(account_on(private))
    with private.paused():
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await server.describe()
        assert time.monotonic() - started < 2 + deadline.GRACE
    await server.close()


async def test_when_every_connection_is_in_use_the_next_is_told_so_in_time(private: LiveServer) -> None:
    server = connect(account_on(private))
    with private.paused():
        with deadline.within(6):
            waiting = [asyncio.create_task(act(server, "list-retention-policies")) for _ in range(CONNECTIONS)]
        await until(lambda: server.pool_use().in_use == CONNECTIONS)
        started = time.monotonic()
        with pytest.raises(EngineUnavailable, match="connections to InfluxDB are in use"):
            await act(server, "list-retention-policies")
        assert time.monotonic() - started < MOST
        for task in waiting:
            task.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        # A thread cannot be stopped: until its own limit its connection counts as one in use.
        assert server.pool_use().in_use == CONNECTIONS
    await until(lambda: server.pool_use().in_use == 0)
    assert len(await act(server, "list-retention-policies")) == 2
    assert server.pool_use().open <= CONNECTIONS
    await server.close()


async def test_many_at_once_share_a_few_connections(private: LiveServer) -> None:
    server = connect(account_on(private))
    answers = await asyncio.gather(*(act(server, "list-retention-policies") for _ in range(50)))
    assert all(answer == answers[0] for answer in answers)
    assert server.pool_use().open <= CONNECTIONS
    await server.close()
    assert server.pool_use().open == 0


async def until(met: Callable[[], bool], seconds: float = 8) -> None:
    ends_at = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < ends_at
        await asyncio.sleep(0.01)


async def test_a_restart_between_two_calls_is_no_error_for_anybody(private: LiveServer) -> None:
    server = connect(account_on(private))
    before = await server.describe()
    for harm in (private.restart, lambda: (private.kill(), private.start())):
        harm()
        assert len(await act(server, "list-retention-policies")) == 2
        harm()
        await act(server, "add-retention-policy", name="p", duration="1h")
        harm()
        await act(server, "del-retention-policy", name="p")
        harm()
        # A bare write too: the kept connection is looked at before anything is sent on it.
        await server.write('CREATE RETENTION POLICY "q" ON "app" DURATION 1h REPLICATION 1')
        await act(server, "del-retention-policy", name="q")
    after = await server.describe()
    assert after.started_at > before.started_at
    assert after.version == before.version
    await server.close()


async def test_a_stopped_server_is_unavailable_and_comes_back(private: LiveServer) -> None:
    server = connect(account_on(private))
    await act(server, "list-retention-policies")
    private.stop()
    try:
        for action, params in CALLS.items():
            with pytest.raises(EngineUnavailable):
                await act(server, action, **params)
    finally:
        private.start()
    assert len(await act(server, "list-retention-policies")) == 2
    await server.close()
