"""A dry run changes nothing, names what the action then changes, and refuses in the words of the action."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from engines.address import parse_address
from engines.engine import perform, preview
from engines.errors import EngineError
from engines.postgresql import ENGINE
from engines.postgresql.server import PostgresServer
from engines.preview import Preview
from tests.live.images import newest
from tests.live.postgresql.deployment import Deployment, new_deployment
from tests.live.servers import spawn

pytestmark = pytest.mark.newest_version

SIGNALS = ("pg-cancel-query", "pg-terminate-query")

EXTENSIONS = "SELECT oid, extname, extversion FROM pg_extension ORDER BY 1"

SESSIONS = """
SELECT pid, backend_start, state, query_start FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name NOT LIKE 'dbvalet%%'
   AND backend_type = 'client backend' -- and no autovacuum, which comes and goes
 ORDER BY 1
"""

COUNTED = """
SELECT queryid, sum(calls) FROM pg_stat_statements WHERE query LIKE '%%AS counted_here%%' GROUP BY 1 ORDER BY 1
"""


async def catalogue(deployment: Deployment) -> Any:
    """What the actions could change: sessions and their queries, extensions, what was counted."""
    extensions = await deployment.rows(EXTENSIONS)
    has_statistics = any(name == "pg_stat_statements" for _, name, _ in extensions)
    counted = await deployment.rows(COUNTED) if has_statistics else None
    return await deployment.rows(SESSIONS), extensions, counted


async def attempt(
    deployment: Deployment, name: str, params: object = None, server: PostgresServer | None = None
) -> Preview:
    action = ENGINE.actions[name]
    before = await catalogue(deployment)
    try:
        return await preview(server or deployment.server, action, action.validate(params))
    finally:
        assert await catalogue(deployment) == before


async def refused_alike(
    deployment: Deployment, name: str, params: object = None, server: PostgresServer | None = None
) -> EngineError:
    action = ENGINE.actions[name]
    with pytest.raises(EngineError) as dry:
        await attempt(deployment, name, params, server)
    before = await catalogue(deployment)
    with pytest.raises(EngineError) as real:
        await perform(server or deployment.server, action, action.validate(params))
    assert await catalogue(deployment) == before
    assert (type(dry.value), dry.value.message) == (type(real.value), real.value.message)
    return dry.value


async def test_cancel(deployment: Deployment) -> None:
    async with deployment.running() as running:
        told = await attempt(deployment, "pg-cancel-query", {"pid": running.pid})
        assert [(each.kind, each.name) for each in told.objects] == [("query", f"backend {running.pid}")]
        assert told.sessions == 0
        assert await running.is_active()
        await deployment.act("pg-cancel-query", {"pid": running.pid})
        assert isinstance(await running.error(), psycopg.errors.QueryCanceled)
        idle = await attempt(deployment, "pg-cancel-query", {"pid": running.pid})
        assert (idle.objects, idle.total) == ([], 0)
        assert "runs nothing" in idle.would


async def test_terminate(deployment: Deployment) -> None:
    async with deployment.running() as running:
        start = (await running.backend_start()).isoformat()
        told = await attempt(deployment, "pg-terminate-query", {"pid": running.pid, "backend_start": start})
        assert [(each.kind, each.name) for each in told.objects] == [("session", f"backend {running.pid}")]
        assert told.sessions == 1
        assert await running.is_active()
        await deployment.act("pg-terminate-query", {"pid": running.pid})
        assert await running.state() is None


@pytest.mark.parametrize("action", SIGNALS)
async def test_signals_are_refused_alike(deployment: Deployment, action: str) -> None:
    async with deployment.running() as running, deployment.running(user=deployment.live.admin) as of_superuser:
        other = (await running.backend_start() + timedelta(microseconds=1)).isoformat()
        assert (
            await refused_alike(deployment, action, {"pid": running.pid, "backend_start": other})
        ).code == "conflict"
        told = await refused_alike(deployment, action, {"pid": of_superuser.pid})
        assert told.code == "privilege_missing"
        assert (await refused_alike(deployment, action, {"pid": 2**31 - 1})).code == "not_found"
    walsender = await deployment.walsender()
    assert (await refused_alike(deployment, action, {"pid": walsender})).code == "not_found"
    elsewhere = await deployment.session(deployment.live.admin, "postgres")
    assert (await refused_alike(deployment, action, {"pid": elsewhere.info.backend_pid})).code == "not_found"


@pytest.mark.parametrize("action", SIGNALS)
@pytest.mark.parametrize("revoked", ["pg_signal_backend", "pg_read_all_stats"])
async def test_what_is_missing_to_signal_is_told_alike(deployment: Deployment, action: str, revoked: str) -> None:
    await deployment.admin.execute(f'REVOKE {revoked} FROM "{deployment.account}"'.encode())
    async with deployment.running() as running:
        told = await refused_alike(deployment, action, {"pid": running.pid})
        assert told.code == "privilege_missing"
        assert f"GRANT {revoked} TO" in told.message
        assert await running.is_active()


async def test_sessions_of_a_role_that_it_is_a_member_of_can_be_ended(deployment: Deployment) -> None:
    await deployment.admin.execute(f'REVOKE pg_signal_backend FROM "{deployment.account}"'.encode())
    await deployment.admin.execute(f'GRANT "{deployment.user}" TO "{deployment.account}"'.encode())
    async with deployment.running() as running:
        assert (await attempt(deployment, "pg-terminate-query", {"pid": running.pid})).sessions == 1
        await deployment.act("pg-terminate-query", {"pid": running.pid})
        assert await running.state() is None


async def test_enable(deployment: Deployment) -> None:
    there = await attempt(deployment, "pg-stat-statements-enable")
    assert (there.objects, there.total) == ([], 0)
    await deployment.admin.execute("DROP EXTENSION pg_stat_statements")
    told = await refused_alike(deployment, "pg-stat-statements-enable")
    assert told.code == "privilege_missing"
    assert "CREATE EXTENSION pg_stat_statements" in told.message
    of_superuser = deployment.connect_superuser()
    told = await attempt(deployment, "pg-stat-statements-enable", server=of_superuser)
    assert [(each.change, each.name) for each in told.objects] == [("create", "pg_stat_statements")]
    before = {name for _, name, _ in await deployment.rows(EXTENSIONS)}
    await perform(of_superuser, ENGINE.actions["pg-stat-statements-enable"])
    after = {name for _, name, _ in await deployment.rows(EXTENSIONS)}
    assert after - before == {each.name for each in told.objects}
    await of_superuser.close()


async def test_reset(deployment: Deployment) -> None:
    for _ in range(5):
        await deployment.admin.execute("SELECT 1 AS counted_here")
    told = await attempt(deployment, "pg-stat-statements-reset")
    (statistics,) = told.objects
    assert statistics.rows
    ((_, calls),) = await deployment.rows(COUNTED)
    assert calls == 5
    await deployment.act("pg-stat-statements-reset")
    assert await deployment.rows(COUNTED) == []


async def test_reset_is_refused_alike(deployment: Deployment) -> None:
    await deployment.admin.execute(
        f'REVOKE EXECUTE ON FUNCTION pg_stat_statements_reset FROM "{deployment.account}"'.encode()
    )
    told = await refused_alike(deployment, "pg-stat-statements-reset")
    assert told.code == "privilege_missing"
    assert "pg_stat_statements_reset TO" in told.message
    await deployment.admin.execute("DROP EXTENSION pg_stat_statements")
    assert (await refused_alike(deployment, "pg-stat-statements-reset")).code == "precondition"


@pytest.mark.parametrize("action", ["pg-stat-statements-enable", "pg-stat-statements-reset"])
async def test_what_is_not_preloaded_is_refused_alike(action: str) -> None:
    with spawn("postgresql", newest("postgresql").version, preload=False) as live:
        async with new_deployment(live) as deployment:
            await deployment.admin.execute("DROP EXTENSION IF EXISTS pg_stat_statements")
            server = ENGINE.connect(parse_address(deployment.url(), ENGINE.default_port))
            assert isinstance(server, PostgresServer)
            told = await refused_alike(deployment, action, server=server)
            assert told.code == "precondition"
            assert "shared_preload_libraries" in told.message
            await server.close()
