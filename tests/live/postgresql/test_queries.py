"""pg-list-queries shows what runs in the deployment's database, and nothing else."""

import asyncio
import time
from datetime import datetime, timedelta

import orjson
import pytest

from engines import deadline
from engines.errors import DeadlineExceeded, InvalidParams, PrivilegeMissing
from tests.live.postgresql.deployment import Deployment, new_deployment, until
from tests.live.servers import LiveServer

FIELDS = [
    "query",
    "state",
    "username",
    "query_start",
    "pid",
    "query_duration",
    "backend_start",
    "state_change",
]

ASCII_DATABASE = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"


async def listed(deployment: Deployment, pid: int) -> dict[str, object]:
    (found,) = [row for row in await deployment.act("pg-list-queries") if row["pid"] == pid]
    return found


async def test_a_running_query_is_listed_with_every_documented_field(deployment: Deployment) -> None:
    async with deployment.running('SELECT pg_sleep(60) AS "naïve ☃"') as running:
        row = await listed(deployment, running.pid)
        assert list(row) == FIELDS
        assert row["query"] == 'SELECT pg_sleep(60) AS "naïve ☃"'
        assert row["state"] == "active"
        assert row["username"] == deployment.user
        seen = await deployment.rows(
            "SELECT query_start, backend_start, state_change FROM pg_stat_activity WHERE pid = %s", [running.pid]
        )
        assert (row["query_start"], row["backend_start"], row["state_change"]) == seen[0]


async def test_every_date_has_the_offset_of_utc_whatever_the_roles_time_zone_is(deployment: Deployment) -> None:
    await deployment.admin.execute(f"ALTER ROLE \"{deployment.account}\" SET TimeZone = 'Asia/Tokyo'".encode())
    async with deployment.running() as running:
        row = await listed(deployment, running.pid)
        assert isinstance(row["query_start"], datetime)
        assert row["query_start"].utcoffset() == timedelta(0)
        assert b'Z"' in orjson.dumps(row, option=orjson.OPT_UTC_Z)


async def test_the_duration_of_a_running_query_is_nanoseconds_until_now(deployment: Deployment) -> None:
    async with deployment.running() as running:
        await asyncio.sleep(0.3)
        low = await deployment.value(
            "SELECT clock_timestamp() - query_start FROM pg_stat_activity WHERE pid = %s", [running.pid]
        )
        duration = (await listed(deployment, running.pid))["query_duration"]
        high = await deployment.value(
            "SELECT clock_timestamp() - query_start FROM pg_stat_activity WHERE pid = %s", [running.pid]
        )
    assert isinstance(duration, int)
    assert duration % 1000 == 0
    assert low <= timedelta(microseconds=duration // 1000) <= high


@pytest.mark.parametrize("transaction", [False, True])
async def test_the_duration_of_an_idle_session_is_what_its_last_query_took(
    deployment: Deployment, transaction: bool
) -> None:
    session = await deployment.session()
    await session.set_autocommit(not transaction)
    await session.execute("SELECT pg_sleep(0.2)")
    await asyncio.sleep(1.5)
    row = await listed(deployment, session.info.backend_pid)
    assert row["state"] == ("idle in transaction" if transaction else "idle")
    took = await deployment.value(
        "SELECT state_change - query_start FROM pg_stat_activity WHERE pid = %s", [session.info.backend_pid]
    )
    assert isinstance(row["query_duration"], int)
    assert timedelta(microseconds=row["query_duration"] / 1000) == took
    assert 0.2 <= took.total_seconds() < 1.5


async def test_a_session_that_never_ran_anything_has_no_duration(deployment: Deployment) -> None:
    session = await deployment.session()
    row = await listed(deployment, session.info.backend_pid)
    assert (row["query"], row["state"], row["query_start"], row["query_duration"]) == ("", "idle", None, None)


async def test_dbvalets_own_sessions_are_left_out(deployment: Deployment) -> None:
    first = await deployment.act("pg-list-queries")
    own = await deployment.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'dbvalet'"
    )
    assert own >= 1
    assert [row["username"] for row in first] == [deployment.live.admin]


async def test_only_name_and_account_together_make_a_session_dbvalets_own(deployment: Deployment) -> None:
    same_name = await deployment.session(application_name="dbvalet")
    same_account = await deployment.session(deployment.account, application_name="psql")
    both = await deployment.session(deployment.account, application_name="dbvalet")
    pids = {row["pid"] for row in await deployment.act("pg-list-queries")}
    assert {same_name.info.backend_pid, same_account.info.backend_pid} <= pids
    assert both.info.backend_pid not in pids


async def test_sessions_of_other_databases_are_left_out(deployment: Deployment) -> None:
    async with deployment.running(database="postgres") as elsewhere, deployment.running() as here:
        pids = {row["pid"] for row in await deployment.act("pg-list-queries")}
        assert here.pid in pids
        assert elsewhere.pid not in pids


async def test_what_is_no_client_backend_is_left_out(deployment: Deployment) -> None:
    async with deployment.parallel_query() as (leader, workers):
        walsender = await deployment.walsender()
        pids = {row["pid"] for row in await deployment.act("pg-list-queries")}
    assert leader in pids
    assert not pids & {*workers, walsender}


async def test_params_are_refused(deployment: Deployment) -> None:
    with pytest.raises(InvalidParams) as refused:
        await deployment.act("pg-list-queries", {"pid": 1})
    assert refused.value.errors == {"pid": ["is not known"]}


async def test_without_pg_read_all_stats_the_refusal_names_the_grant_that_helps(deployment: Deployment) -> None:
    await deployment.admin.execute(f'REVOKE pg_read_all_stats FROM "{deployment.account}"'.encode())
    with pytest.raises(PrivilegeMissing) as refused:
        await deployment.act("pg-list-queries")
    grant = f'GRANT pg_read_all_stats TO "{deployment.account}";'
    assert "Missing: pg_read_all_stats." in refused.value.message
    assert grant in refused.value.message
    await deployment.admin.execute(grant.encode())
    assert await deployment.act("pg-list-queries")


async def test_a_list_that_must_wait_ends_at_its_deadline_and_is_stopped_in_the_engine(
    deployment: Deployment,
) -> None:
    await deployment.act("pg-list-queries")
    async with deployment.admin.transaction():
        await deployment.admin.execute("LOCK TABLE pg_catalog.pg_authid IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded), deadline.within(0.5):
            await deployment.act("pg-list-queries")
        assert 0.4 < time.monotonic() - started < 1.5

        async def stopped() -> bool:
            return not await deployment.value(
                "SELECT count(*) FROM pg_stat_get_activity(NULL)"
                " WHERE application_name = 'dbvalet' AND state = 'active'"
            )

        await until(stopped)
    assert await deployment.act("pg-list-queries")


async def test_text_that_is_not_utf_8_is_listed_all_the_same(postgresql: LiveServer) -> None:
    async with (
        new_deployment(postgresql, options=ASCII_DATABASE) as deployment,
        deployment.not_counted(deployment.user),
    ):
        session = await deployment.session(client_encoding="SQL_ASCII")
        await session.execute(b"SELECT 'caf\xe9 \xff'")
        row = await listed(deployment, session.info.backend_pid)
        assert row["query"] == "SELECT 'caf\ufffd \ufffd'"
        assert row["username"] == deployment.user
        orjson.dumps(row)


async def test_a_role_name_that_is_not_utf_8_does_not_hide_the_others(deployment: Deployment) -> None:
    """Shared catalogues hold names in the encoding of whichever database they were made in."""
    session = await deployment.session()
    name = deployment.user.encode()
    async with new_deployment(deployment.live, options=ASCII_DATABASE) as odd:
        raw = await odd.session(odd.live.admin, client_encoding="SQL_ASCII")
        await raw.execute("SET pg_stat_statements.track = 'none'")
        await raw.execute(b'ALTER ROLE "' + name + b'" RENAME TO "' + name + b'\xff"')
        try:
            assert (await listed(deployment, session.info.backend_pid))["username"] == f"{deployment.user}\ufffd"
        finally:
            await raw.execute(b'ALTER ROLE "' + name + b'\xff" RENAME TO "' + name + b'"')
