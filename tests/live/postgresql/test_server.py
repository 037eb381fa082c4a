"""The server says what it is, keeps few sessions, and answers in time whatever PostgreSQL does."""

import asyncio
import contextlib
import random
import time
from datetime import timedelta

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from engines import deadline
from engines.engine import perform
from engines.errors import ConnectionLost, DeadlineExceeded, EngineUnavailable
from engines.postgresql import ENGINE
from engines.postgresql import server as server_module
from engines.postgresql.driver import sessions
from engines.postgresql.driver.connection import Connection
from engines.postgresql.server import PostgresServer
from tests.live.images import newest
from tests.live.postgresql.deployment import PASSWORD, Deployment, new_deployment, until
from tests.live.servers import free_port, spawn

PARAMS = {"pg-cancel-query": {"pid": 1}, "pg-terminate-query": {"pid": 1}}
ACTIONS = sorted(ENGINE.actions)


async def act(server: PostgresServer, name: str) -> object:
    action = ENGINE.actions[name]
    return await perform(server, action, action.validate(PARAMS.get(name)))


async def test_describe_tells_what_the_server_says_of_itself(deployment: Deployment) -> None:
    described = await deployment.server.describe()
    assert described.version[0] == int(deployment.live.version)
    assert described.version == divmod(
        await deployment.value("SELECT current_setting('server_version_num')::int"), 10000
    )
    version = await deployment.value("SELECT split_part(current_setting('server_version'), ' ', 1)")
    assert described.readable_version == version == ".".join(map(str, described.version))
    assert described.started_at == await deployment.value("SELECT pg_postmaster_start_time()")
    assert described.resource_id == str(await deployment.value("SELECT system_identifier FROM pg_control_system()"))
    assert described.created_at is not None
    assert timedelta(0) <= described.started_at - described.created_at < timedelta(minutes=10)
    assert described.features == ()


async def test_a_restart_is_seen_and_harms_no_read_and_no_write(private_deployment: Deployment) -> None:
    deployment = private_deployment
    before = await deployment.server.describe()
    session = await deployment.session()
    await asyncio.gather(*(deployment.act("pg-list-queries") for _ in range(4)))
    await deployment.act("pg-cancel-query", {"pid": session.info.backend_pid})
    deployment.live.restart()
    after = await deployment.server.describe()
    assert (after.resource_id, after.created_at) == (before.resource_id, before.created_at)
    assert after.started_at > before.started_at
    await deployment.server.restarted(after)
    await asyncio.gather(*(deployment.act("pg-list-queries") for _ in range(4)))
    deployment.live.restart()
    session = await deployment.session()
    await deployment.act("pg-cancel-query", {"pid": session.info.backend_pid})
    deployment.live.restart()
    await deployment.act("pg-stat-statements-reset")


async def test_sessions_that_an_administrator_ended_are_replaced_unnoticed(deployment: Deployment) -> None:
    end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
    session = await deployment.session()
    for _ in range(3):
        await deployment.act("pg-list-queries")
        await deployment.act("pg-cancel-query", {"pid": session.info.backend_pid})
        await deployment.rows(end_all, [deployment.account])
    await deployment.act("pg-list-queries")


async def test_a_read_that_is_cut_while_it_runs_is_done_again(deployment: Deployment) -> None:
    reading = asyncio.create_task(deployment.server.read("SELECT pg_catalog.pg_sleep(0.5)::text AS slept"))
    pid = await own_sleeping_pid(deployment)
    await deployment.rows("SELECT pg_terminate_backend(%s)", [pid])
    assert await reading == [{"slept": ""}]


async def test_a_write_that_is_cut_while_it_runs_is_told_and_not_done_again(deployment: Deployment) -> None:
    await deployment.admin.execute("CREATE SEQUENCE public.writes")
    await deployment.admin.execute("GRANT ALL ON public.writes TO PUBLIC")
    write = "SELECT pg_catalog.nextval('public.writes'), pg_catalog.pg_sleep(1)::text"
    writing = asyncio.create_task(deployment.server.write(write))
    pid = await own_sleeping_pid(deployment)
    await deployment.rows("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(ConnectionLost):
        await writing
    await asyncio.sleep(0.2)
    assert await deployment.value("SELECT last_value FROM public.writes") == 1


async def own_sleeping_pid(deployment: Deployment) -> int:
    found: list[int] = []

    async def is_asleep() -> bool:
        # Not by its state: it is active while the statement is prepared, and idle again before it is executed.
        asleep = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND wait_event = 'PgSleep'"
        found[:] = [pid for (pid,) in await deployment.rows(asleep, [deployment.account])]
        return bool(found)

    await until(is_asleep)
    return found[0]


async def test_a_statement_that_somebody_else_cancels_is_no_deadline(deployment: Deployment) -> None:
    reading = asyncio.create_task(deployment.server.read("SELECT pg_catalog.pg_sleep(5)::text"))
    await deployment.rows("SELECT pg_cancel_backend(%s)", [await own_sleeping_pid(deployment)])
    with pytest.raises(EngineUnavailable, match="cancelled by somebody else"):
        await reading


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_closed_port_is_told_at_once(deployment: Deployment, action: str) -> None:
    server = deployment.connect_valet(f"postgresql://valet:secret-word@{deployment.live.host}:{free_port()}/app")
    started = time.monotonic()
    with pytest.raises(EngineUnavailable, match="Connection refused") as refused:
        await act(server, action)
    assert time.monotonic() - started < 1
    assert "secret-word" not in refused.value.message
    await server.close()


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_wrong_password_is_told_at_once_and_never_quoted(deployment: Deployment, action: str) -> None:
    server = deployment.connect_valet(deployment.live.url(deployment.account, "wrong-secret", deployment.database))
    started = time.monotonic()
    with pytest.raises(EngineUnavailable, match="password authentication failed") as refused:
        await act(server, action)
    assert time.monotonic() - started < 2
    assert "wrong-secret" not in refused.value.message
    await server.close()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://{account}@{address}/nowhere", 'database "nowhere" does not exist'),
        ("postgresql://{account}@{address}/{database}?sslmode=require", "server does not support SSL"),
        ("postgresql://{account}@{address}/{database}?no_such_option=1", "no_such_option"),
        ("postgresql://{account}@no-such-host.invalid/{database}", "no-such-host.invalid"),
    ],
)
async def test_what_is_wrong_with_an_address_is_told(deployment: Deployment, url: str, text: str) -> None:
    account = deployment.url().removeprefix("postgresql://").rpartition("@")[0]
    address = f"{deployment.live.host}:{deployment.live.port}"
    server = deployment.connect_valet(url.format(account=account, address=address, database=deployment.database))
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match=text) as refused:
            await server.describe()
        assert PASSWORD not in refused.value.message
    await server.close()


async def test_a_host_that_swallows_packets_is_given_up_within_seconds(
    private_deployment: Deployment,
) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    server = private_deployment.connect_valet(f"postgresql://valet:pw@127.0.0.1:{port}/app")
    started = time.monotonic()
    with pytest.raises(EngineUnavailable, match="did not accept a connection within"):
        await act(server, "pg-list-queries")
    assert time.monotonic() - started < 4
    await server.close()
    silent.close()


async def test_options_of_the_url_reach_the_session_but_cannot_undo_the_pin(deployment: Deployment) -> None:
    server = deployment.connect_valet(
        deployment.url(options="-c search_path=public -c work_mem=5MB -c statement_timeout=0", application_name="other")
    )
    ask = "SELECT pg_catalog.current_setting('{}') AS value"
    settings = {
        name: (await server.read(ask.format(name)))[0]["value"]
        for name in ("work_mem", "search_path", "statement_timeout", "application_name")
    }
    assert settings == {
        "work_mem": "5MB",
        "search_path": "pg_catalog",
        "statement_timeout": "10s",
        "application_name": "dbvalet",
    }
    await server.close()


async def test_a_server_without_free_connections_is_told() -> None:
    options = ["-c", "max_connections=6", "-c", "superuser_reserved_connections=3"]
    with spawn("postgresql", newest("postgresql").version, options=options) as live:
        async with new_deployment(live) as deployment:
            held = []
            with pytest.raises(psycopg.OperationalError):
                for _ in range(6):
                    held.append(await deployment.session())
            with pytest.raises(EngineUnavailable, match="connection slots"):
                await deployment.act("pg-list-queries")
            for session in held:
                await session.close()

            async def works() -> bool:
                try:
                    return bool(await deployment.act("pg-list-queries"))
                except EngineUnavailable:
                    return False

            await until(works)


async def test_a_stopped_server_is_told_and_found_again_when_it_is_back(private_deployment: Deployment) -> None:
    deployment = private_deployment
    await deployment.act("pg-list-queries")
    deployment.live.kill()
    for action in ("pg-list-queries", "pg-cancel-query", "list-extensions"):
        started = time.monotonic()
        with pytest.raises(EngineUnavailable):
            await deployment.act(action, PARAMS.get(action))
        assert time.monotonic() - started < 4
    deployment.live.start()
    await deployment.act("list-extensions")


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_frozen_server_is_answered_for_in_time(private_deployment: Deployment, action: str) -> None:
    deployment = private_deployment
    session = await deployment.session()
    await deployment.act("pg-list-queries")
    await deployment.act("pg-cancel-query", {"pid": session.info.backend_pid})
    with deployment.live.paused():
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="does not answer"), deadline.within(0.3):
            await deployment.act(action, PARAMS.get(action))
        assert time.monotonic() - started < 0.3 + deadline.GRACE + 0.3
    await deployment.act("pg-list-queries")
    await deployment.act("pg-cancel-query", {"pid": session.info.backend_pid})


async def test_a_caller_that_leaves_does_not_wait_for_a_frozen_server(private_deployment: Deployment) -> None:
    deployment = private_deployment
    await deployment.act("pg-list-queries")
    with deployment.live.paused():
        reading = asyncio.create_task(deployment.act("pg-list-queries"))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        reading.cancel()
        await asyncio.wait({reading})
        assert time.monotonic() - started < 0.5
    assert await deployment.act("pg-list-queries")
    assert deployment.server.pool_use().in_use == 0


async def test_describe_takes_two_seconds_at_most(private_deployment: Deployment) -> None:
    deployment = private_deployment
    await deployment.server.describe()
    with deployment.live.paused():
        for kept in (True, False):
            started = time.monotonic()
            with pytest.raises((DeadlineExceeded, EngineUnavailable)):
                await deployment.server.describe()
            assert time.monotonic() - started < 2 + deadline.GRACE + 0.3, kept


async def test_a_session_gets_back_its_usual_limit_after_a_shorter_one(deployment: Deployment) -> None:
    ask = "SELECT pg_catalog.current_setting('statement_timeout') AS value"
    await deployment.server.read(ask)
    with deadline.within(3):
        ((short,),) = [row.values() for row in await deployment.server.read(ask)]
    assert 1000 <= int(short.removesuffix("ms").replace("3s", "3000")) <= 3000
    assert await deployment.server.read(ask) == [{"value": "10s"}]
    assert deployment.server.pool_use().open == 1


async def test_the_usual_read_is_one_prepared_statement_on_a_kept_session(deployment: Deployment) -> None:
    for _ in range(5):
        await deployment.act("pg-list-queries")
    own = "SELECT pid FROM pg_stat_activity WHERE usename = %s"
    assert len(await deployment.rows(own, [deployment.account])) == 1
    (row,) = await deployment.server.read(
        "SELECT pg_catalog.count(*) AS prepared FROM pg_catalog.pg_prepared_statements"
        " WHERE statement LIKE '%query' || '_duration%'"
    )
    assert row == {"prepared": 1}


async def test_at_most_four_readers_are_opened_and_all_of_them_serve(deployment: Deployment) -> None:
    reads = [deployment.server.read("SELECT pg_catalog.pg_sleep(0.1)::text") for _ in range(12)]
    started = time.monotonic()
    await asyncio.gather(*reads)
    assert time.monotonic() - started < 1.2
    use = deployment.server.pool_use()
    assert (use.open, use.in_use, use.limit) == (4, 0, 5)


async def test_unused_sessions_are_let_go(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_IDLE", 0.2)
    server = deployment.connect_valet()
    await asyncio.gather(*(server.read("SELECT pg_catalog.pg_sleep(0.1)::text") for _ in range(3)))
    assert server.pool_use().open >= 2

    async def none_left() -> bool:
        return server.pool_use().open == 0

    await until(none_left)
    await server.close()


async def test_callers_that_leave_at_any_moment_take_no_session_with_them(deployment: Deployment) -> None:
    dice = random.Random(7)

    async def leave() -> None:
        reading = asyncio.create_task(deployment.server.read("SELECT pg_catalog.pg_sleep(0.005)::text"))
        await asyncio.sleep(dice.random() * 0.03)
        reading.cancel()
        await asyncio.wait({reading})

    await asyncio.gather(*(leave() for _ in range(150)))

    async def all_are_back() -> bool:
        return deployment.server.pool_use().in_use == 0

    await until(all_are_back)
    started = time.monotonic()
    await asyncio.gather(*(deployment.server.read("SELECT pg_catalog.pg_sleep(0.2)::text") for _ in range(4)))
    assert time.monotonic() - started < 1
    assert deployment.server.pool_use().open <= 4


async def test_a_caller_that_leaves_while_its_session_goes_back_does_not_take_it_along(deployment: Deployment) -> None:
    server = deployment.connect_valet()
    assert await server.read("SELECT '1'")
    kept = server._reading
    assert kept is not None
    assert kept._pool is not None
    reading = asyncio.create_task(server.read("SELECT pg_catalog.pg_sleep(0.2)::text"))

    async def at_work() -> bool:
        return server.pool_use().in_use == 1

    await until(at_work)
    async with kept._pool._lock:
        await asyncio.sleep(0.5)
        assert not reading.done()
        reading.cancel()
        await asyncio.wait({reading})

    async def back() -> bool:
        return server.pool_use().in_use == 0

    await until(back)
    await server.close()


async def test_a_session_that_comes_just_when_its_caller_leaves_goes_back(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    getconn = AsyncConnectionPool[Connection].getconn

    async def come_all_the_same(pool: AsyncConnectionPool[Connection], patience: float) -> Connection:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(5)
        return await getconn(pool, patience)

    server = deployment.connect_valet()
    monkeypatch.setattr(AsyncConnectionPool, "getconn", come_all_the_same)
    reading = asyncio.create_task(server.read("SELECT 1"))
    await asyncio.sleep(0.05)
    reading.cancel()
    await asyncio.wait({reading})

    async def is_back() -> bool:
        return (server.pool_use().open, server.pool_use().in_use) == (1, 0)

    await until(is_back)
    await server.close()


async def test_the_databases_of_a_process_share_a_bound(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "READERS_OF_ALL", 6)
    servers = [deployment.connect_valet() for _ in range(3)]
    for server in servers:
        await server.read("SELECT 1")
    assert [server.pool_use().limit for server in servers] == [3, 3, 3]
    for server in servers[1:]:
        await server.close()
    await asyncio.gather(*(servers[0].read("SELECT pg_catalog.pg_sleep(0.05)::text") for _ in range(8)))
    assert servers[0].pool_use().open == 2
    await servers[0].close()


async def test_a_closed_server_holds_no_session(deployment: Deployment) -> None:
    await deployment.act("pg-list-queries")
    session = await deployment.session()
    await deployment.act("pg-cancel-query", {"pid": session.info.backend_pid})
    await deployment.server.close()

    async def none_left() -> bool:
        own = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
        return await deployment.value(own, [deployment.account]) == 0

    await until(none_left)


async def test_a_time_that_is_up_already_is_told_as_such(deployment: Deployment) -> None:
    await deployment.act("pg-list-queries")
    for _ in range(20):
        with pytest.raises((DeadlineExceeded, EngineUnavailable)), deadline.within(-1):
            await deployment.server.read("SELECT pg_catalog.pg_sleep(1)::text")
    assert await deployment.act("pg-list-queries")
