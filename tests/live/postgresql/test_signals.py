"""pg-cancel-query and pg-terminate-query stop the one query that was meant, once, and say so only when it stopped."""

import asyncio
import time
from datetime import timedelta, timezone
from typing import Any

import psycopg
import pytest

from engines import deadline
from engines.engine import look, perform
from engines.errors import (
    BackendNotFound,
    BackendReplaced,
    ConnectionLost,
    EngineUnavailable,
    PrivilegeMissing,
    StillRunning,
)
from engines.postgresql import ENGINE
from tests.live.postgresql.cutting import cutting_wire
from tests.live.postgresql.deployment import Deployment, until

SIGNALS = ("pg-cancel-query", "pg-terminate-query")

CATCHES_ITS_CANCEL = """
CREATE SEQUENCE public.cancels;
GRANT ALL ON public.cancels TO PUBLIC;
CREATE PROCEDURE public.catch_cancels() LANGUAGE plpgsql AS $body$
BEGIN
    LOOP
        BEGIN
            PERFORM pg_catalog.pg_sleep(60);
        EXCEPTION WHEN query_canceled THEN
            PERFORM pg_catalog.nextval('public.cancels');
        END;
    END LOOP;
END
$body$;
"""


async def cancels(deployment: Deployment) -> int:
    """Count the cancels that the procedure caught: a sequence counts whatever becomes of the transaction."""
    return await deployment.value("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM public.cancels")


async def test_cancel_stops_the_query_and_keeps_the_backend(deployment: Deployment) -> None:
    async with deployment.running() as running:
        assert await deployment.act("pg-cancel-query", {"pid": running.pid}) is None
        assert await running.state() == "idle"
        assert isinstance(await running.error(), psycopg.errors.QueryCanceled)
        assert await (await running.session.execute("SELECT 1")).fetchone() == (1,)


async def test_terminate_stops_the_query_and_ends_its_session(deployment: Deployment) -> None:
    async with deployment.running() as running:
        assert await deployment.act("pg-terminate-query", {"pid": running.pid}) is None
        assert await running.state() is None
        assert isinstance(await running.error(), psycopg.errors.AdminShutdown)


async def test_terminate_ends_an_idle_session_and_its_transaction(deployment: Deployment) -> None:
    session = await deployment.session()
    await deployment.admin.execute("CREATE TABLE public.t (i int)")
    await deployment.admin.execute("GRANT ALL ON public.t TO PUBLIC")
    await session.set_autocommit(False)
    await session.execute("INSERT INTO public.t VALUES (1)")
    await deployment.act("pg-terminate-query", {"pid": session.info.backend_pid})
    assert await deployment.value("SELECT count(*) FROM pg_locks WHERE pid = %s", [session.info.backend_pid]) == 0
    assert await deployment.value("SELECT count(*) FROM public.t") == 0


@pytest.mark.parametrize("transaction", [False, True])
async def test_cancel_leaves_a_session_alone_that_runs_nothing(deployment: Deployment, transaction: bool) -> None:
    session = await deployment.session()
    await session.set_autocommit(not transaction)
    await session.execute("SELECT 1")
    assert await deployment.act("pg-cancel-query", {"pid": session.info.backend_pid}) is None
    await session.execute("SELECT 1")
    assert session.info.transaction_status.name == ("INTRANS" if transaction else "IDLE")


async def test_cancel_tells_running_from_idle_where_activities_are_not_tracked(deployment: Deployment) -> None:
    await deployment.admin.execute(f'ALTER ROLE "{deployment.user}" SET track_activities = off'.encode())
    session = await deployment.session()
    pid = session.info.backend_pid
    assert await deployment.value("SELECT state FROM pg_stat_activity WHERE pid = %s", [pid]) == "disabled"
    await deployment.act("pg-cancel-query", {"pid": pid})
    sleeping = asyncio.create_task(session.execute("SELECT pg_sleep(60)"))

    async def sleeps() -> bool:
        return await deployment.value("SELECT backend_xmin IS NOT NULL FROM pg_stat_activity WHERE pid = %s", [pid])

    await until(sleeps)
    await deployment.act("pg-cancel-query", {"pid": pid})
    with pytest.raises(psycopg.errors.QueryCanceled):
        await asyncio.wait_for(sleeping, 5)


@pytest.mark.parametrize("action", SIGNALS)
async def test_a_backend_start_that_fits_is_accepted_in_any_offset(deployment: Deployment, action: str) -> None:
    async with deployment.running() as running:
        start = (await running.backend_start()).astimezone(timezone(timedelta(hours=-3, minutes=-30)))
        await deployment.act(action, {"pid": running.pid, "backend_start": start.isoformat()})
        assert not await running.is_active()


@pytest.mark.parametrize("action", SIGNALS)
async def test_another_backend_start_is_a_conflict_and_nothing_is_signalled(
    deployment: Deployment, action: str
) -> None:
    async with deployment.running() as running:
        for off_by in (timedelta(microseconds=1), timedelta(microseconds=-1), timedelta(days=1)):
            start = await running.backend_start() + off_by
            with pytest.raises(BackendReplaced, match=str(running.pid)):
                await deployment.act(action, {"pid": running.pid, "backend_start": start.isoformat()})
        await asyncio.sleep(0.1)
        assert await running.is_active()


@pytest.mark.parametrize("action", SIGNALS)
async def test_a_pid_that_nobody_has_is_not_found(deployment: Deployment, action: str) -> None:
    session = await deployment.session()
    pid = session.info.backend_pid
    await session.close()

    async def gone() -> bool:
        return not await deployment.rows("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid])

    await until(gone)
    for absent in (pid, 2**31 - 1):
        with pytest.raises(BackendNotFound, match=str(absent)):
            await deployment.act(action, {"pid": absent})


@pytest.mark.parametrize("action", SIGNALS)
async def test_a_pid_of_another_logical_database_is_not_found_and_its_query_runs_on(
    deployment: Deployment, action: str
) -> None:
    async with deployment.running(database="postgres") as elsewhere:
        with pytest.raises(BackendNotFound):
            await deployment.act(action, {"pid": elsewhere.pid})
        await asyncio.sleep(0.1)
        assert await elsewhere.is_active()


@pytest.mark.parametrize("action", SIGNALS)
async def test_a_pid_of_no_client_backend_is_not_found_and_left_alone(deployment: Deployment, action: str) -> None:
    others = "SELECT pid FROM pg_stat_activity WHERE backend_type <> 'client backend' ORDER BY pid"
    walsender = await deployment.walsender()
    async with deployment.parallel_query() as (_, workers):
        before = [pid for (pid,) in await deployment.rows(others)]
        assert {*workers, walsender} < set(before)
        for pid in before:
            with pytest.raises(BackendNotFound):
                await deployment.act(action, {"pid": pid})
        alive = {pid for (pid,) in await deployment.rows(others)}
    assert {*workers, walsender} <= alive


@pytest.mark.parametrize("action", SIGNALS)
async def test_dbvalets_own_sessions_are_not_found(deployment: Deployment, action: str) -> None:
    await deployment.act("pg-list-queries")
    with pytest.raises(BackendNotFound):
        await deployment.act("pg-cancel-query", {"pid": 1})
    own = "SELECT pid FROM pg_stat_activity WHERE application_name = 'dbvalet' AND usename = %s ORDER BY pid"
    before = await deployment.rows(own, [deployment.account])
    assert len(before) == 2
    for (pid,) in before:
        with pytest.raises(BackendNotFound):
            await deployment.act(action, {"pid": pid})
    assert await deployment.rows(own, [deployment.account]) == before


@pytest.mark.parametrize("action", SIGNALS)
async def test_another_roles_session_of_the_same_name_is_not_taken_for_dbvalets(
    deployment: Deployment, action: str
) -> None:
    async with deployment.running(application_name="dbvalet") as running:
        await deployment.act(action, {"pid": running.pid})
        assert not await running.is_active()


@pytest.mark.parametrize("action", SIGNALS)
async def test_a_superusers_backend_is_refused_and_runs_on(deployment: Deployment, action: str) -> None:
    async with deployment.running(user=deployment.live.admin) as running:
        with pytest.raises(PrivilegeMissing, match="superuser") as refused:
            await deployment.act(action, {"pid": running.pid})
        assert refused.value.privilege == "SUPERUSER"
        await asyncio.sleep(0.1)
        assert await running.is_active()


@pytest.mark.parametrize("action", SIGNALS)
@pytest.mark.parametrize("privilege", ["pg_signal_backend", "pg_read_all_stats"])
async def test_a_missing_privilege_is_named_with_the_grant_that_helps(
    deployment: Deployment, action: str, privilege: str
) -> None:
    await deployment.admin.execute(f'REVOKE {privilege} FROM "{deployment.account}"'.encode())
    async with deployment.running() as running:
        with pytest.raises(PrivilegeMissing) as refused:
            await deployment.act(action, {"pid": running.pid})
        grant = f'GRANT {privilege} TO "{deployment.account}";'
        assert f"Missing: {privilege}. Remedy: {grant}" in refused.value.message
        assert await running.is_active()
        await deployment.admin.execute(grant.encode())
        await deployment.act(action, {"pid": running.pid})
        assert not await running.is_active()


async def test_a_query_that_catches_its_cancel_is_signalled_once_and_reported(deployment: Deployment) -> None:
    await deployment.admin.execute(CATCHES_ITS_CANCEL.encode())
    async with deployment.running("CALL public.catch_cancels()", user=deployment.account) as running:
        started = time.monotonic()
        with pytest.raises(StillRunning, match="once"), deadline.within(1):
            await deployment.act("pg-cancel-query", {"pid": running.pid})
        assert 0.5 < time.monotonic() - started < 1.5
        await asyncio.sleep(0.1)
        assert await cancels(deployment) == 1
        assert await running.is_active()
        await deployment.act("pg-terminate-query", {"pid": running.pid})
        assert await running.state() is None


async def test_a_later_query_of_the_session_is_not_taken_for_the_one_that_was_cancelled(
    deployment: Deployment,
) -> None:
    session = await deployment.session()
    pid = session.info.backend_pid
    started: list[str] = []

    async def run_one_after_another() -> None:
        for number in ("1", "2"):
            started.append(number)
            try:
                await session.execute(f"SELECT pg_sleep(60), {number}".encode())
            except psycopg.errors.QueryCanceled:
                continue

    task = asyncio.create_task(run_one_after_another())

    async def runs(number: str) -> bool:
        rows = await deployment.rows("SELECT query FROM pg_stat_activity WHERE pid = %s AND state = 'active'", [pid])
        return rows == [(f"SELECT pg_sleep(60), {number}",)]

    await until(lambda: runs("1"))
    began = time.monotonic()
    await deployment.act("pg-cancel-query", {"pid": pid})
    assert time.monotonic() - began < 2
    await until(lambda: runs("2"))
    await asyncio.sleep(0.1)
    assert await runs("2")
    await deployment.act("pg-cancel-query", {"pid": pid})
    await asyncio.wait_for(task, 5)
    assert started == ["1", "2"]


async def test_cancel_and_terminate_work_while_every_read_connection_is_busy(deployment: Deployment) -> None:
    busy = [asyncio.create_task(deployment.server.read("SELECT pg_catalog.pg_sleep(2)::text")) for _ in range(4)]

    async def all_busy() -> bool:
        return deployment.server.pool_use().in_use == 4

    await until(all_busy)
    async with deployment.running() as first, deployment.running() as second:
        began = time.monotonic()
        await deployment.act("pg-cancel-query", {"pid": first.pid})
        await deployment.act("pg-terminate-query", {"pid": second.pid})
        assert time.monotonic() - began < 2
        assert (await first.state(), await second.state()) == ("idle", None)
    with pytest.raises(EngineUnavailable, match=r"All 4 connections .* are in use"), deadline.within(0.2):
        await deployment.act("pg-list-queries")
    await asyncio.gather(*busy)
    assert await deployment.act("pg-list-queries")


async def test_many_cancels_at_once_each_stop_their_own_query(deployment: Deployment) -> None:
    sessions = [await deployment.session() for _ in range(8)]
    queries: list[asyncio.Task[Any]] = [
        asyncio.create_task(session.execute("SELECT pg_sleep(60)")) for session in sessions
    ]
    active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = %s"

    async def all_active() -> bool:
        return await deployment.value(active, [deployment.user]) == 8

    await until(all_active)
    await asyncio.gather(
        *(deployment.act("pg-cancel-query", {"pid": session.info.backend_pid}) for session in sessions[:7])
    )
    assert await deployment.value(active, [deployment.user]) == 1
    outcomes = await asyncio.gather(*queries[:7], return_exceptions=True)
    assert all(isinstance(outcome, psycopg.errors.QueryCanceled) for outcome in outcomes)
    await deployment.act("pg-cancel-query", {"pid": sessions[7].info.backend_pid})
    with pytest.raises(psycopg.errors.QueryCanceled):
        await queries[7]


@pytest.mark.parametrize(
    ("action", "marker"), [("pg-cancel-query", b"pg_cancel_backend"), ("pg-terminate-query", b"pg_terminate_backend")]
)
async def test_a_signal_whose_answer_was_lost_is_looked_up_and_found_done(
    deployment: Deployment, action: str, marker: bytes
) -> None:
    async with cutting_wire(deployment.live, marker) as wire, deployment.running() as running:
        server = deployment.connect_valet(deployment.url(host="127.0.0.1", port=str(wire.port)))
        signal = ENGINE.actions[action]
        assert await perform(server, signal, signal.validate({"pid": running.pid})) is None
        assert wire.cuts == 1
        assert isinstance(await running.error(), (psycopg.errors.QueryCanceled, psycopg.errors.AdminShutdown))
        await server.close()


@pytest.mark.parametrize(
    ("action", "marker"), [("pg-cancel-query", b"pg_cancel_backend"), ("pg-terminate-query", b"pg_terminate_backend")]
)
async def test_a_backend_of_elsewhere_is_not_taken_for_one_that_stopped_though_the_answer_was_lost(
    deployment: Deployment, action: str, marker: bytes
) -> None:
    elsewhere = await deployment.session(deployment.live.admin, database="postgres")
    pid = elsewhere.info.backend_pid
    async with cutting_wire(deployment.live, marker) as wire:
        server = deployment.connect_valet(deployment.url(host="127.0.0.1", port=str(wire.port)))
        signal = ENGINE.actions[action]
        with pytest.raises(BackendNotFound, match=str(pid)):
            await perform(server, signal, signal.validate({"pid": pid}))
        assert wire.cuts == 1
        await server.close()
    await elsewhere.execute("SELECT 1")


@pytest.mark.parametrize(
    ("action", "marker"), [("pg-cancel-query", b"pg_cancel_backend"), ("pg-terminate-query", b"pg_terminate_backend")]
)
async def test_a_backend_that_was_replaced_before_is_not_taken_for_one_that_stopped_though_the_answer_was_lost(
    deployment: Deployment, action: str, marker: bytes
) -> None:
    async with cutting_wire(deployment.live, marker) as wire, deployment.running() as running:
        server = deployment.connect_valet(deployment.url(host="127.0.0.1", port=str(wire.port)))
        signal = ENGINE.actions[action]
        start = await running.backend_start() - timedelta(days=1)
        with pytest.raises(BackendReplaced, match=str(running.pid)):
            await perform(server, signal, signal.validate({"pid": running.pid, "backend_start": start.isoformat()}))
        assert wire.cuts == 1
        assert await running.is_active()
        await server.close()


async def test_a_signal_whose_answer_was_lost_is_not_sent_again_to_a_query_that_runs_on(
    deployment: Deployment,
) -> None:
    await deployment.admin.execute(CATCHES_ITS_CANCEL.encode())
    async with (
        cutting_wire(deployment.live, b"pg_cancel_backend") as wire,
        deployment.running("CALL public.catch_cancels()", user=deployment.account) as running,
    ):
        server = deployment.connect_valet(deployment.url(host="127.0.0.1", port=str(wire.port)))
        cancel = ENGINE.actions["pg-cancel-query"]
        with pytest.raises(ConnectionLost):
            await perform(server, cancel, cancel.validate({"pid": running.pid}))
        assert wire.cuts == 1
        await asyncio.sleep(0.2)
        assert await cancels(deployment) == 1
        assert await running.is_active()
        await server.close()


@pytest.mark.parametrize("action", SIGNALS)
async def test_a_backend_that_is_hidden_meanwhile_is_not_taken_for_one_that_is_gone(
    deployment: Deployment, action: str
) -> None:
    signal, hide = ENGINE.actions[action], f'REVOKE pg_read_all_stats FROM "{deployment.account}"'
    async with deployment.running() as running:
        params = signal.validate({"pid": running.pid, "backend_start": await running.backend_start()})
        assert await look(deployment.server, signal, params)
        await deployment.admin.execute(hide.encode())
        assert await look(deployment.server, signal, params) is None
        assert await running.is_active()


async def test_a_query_that_goes_on_and_is_hidden_meanwhile_is_not_said_to_have_stopped(
    deployment: Deployment,
) -> None:
    await deployment.admin.execute(CATCHES_ITS_CANCEL.encode())
    async with deployment.running("CALL public.catch_cancels()") as running:
        task = asyncio.create_task(deployment.act("pg-cancel-query", {"pid": running.pid}))

        async def was_signalled() -> bool:
            return await cancels(deployment) == 1

        await until(was_signalled)
        await deployment.admin.execute(f'REVOKE pg_read_all_stats FROM "{deployment.account}"'.encode())
        with pytest.raises(StillRunning, match=r"once, and whether it goes on .* Missing: pg_read_all_stats\."):
            await task
        assert await running.is_active()
