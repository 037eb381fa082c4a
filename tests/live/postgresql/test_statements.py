"""Statistics of statements: enabled once, reset for this database, listed under the documented names."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence

import psycopg
import pytest

from engines import deadline
from engines.aftermath import Verdict, judge
from engines.engine import look, perform
from engines.errors import Conflict, ConnectionLost, DeadlineExceeded, Precondition, PrivilegeMissing
from engines.postgresql import ENGINE
from tests.live.images import newest
from tests.live.postgresql.cutting import cutting_wire
from tests.live.postgresql.deployment import Deployment, new_deployment, until
from tests.live.servers import LiveServer, spawn

ASCII_DATABASE = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
FIELDS = ["user_id", "query", "calls", "rows", "total_time", "min_time", "max_time", "mean_time", "std_dev"]
FAMILY = ("pg-stat-statements-enable", "pg-stat-statements-list", "pg-stat-statements-reset")
IS_CREATED = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_stat_statements'"


async def drop_extension(deployment: Deployment) -> None:
    await deployment.admin.execute("DROP EXTENSION IF EXISTS pg_stat_statements")


async def count(deployment: Deployment, marker: str, times: int) -> None:
    session = await deployment.session()
    for number in range(times):
        await session.execute(f"SELECT generate_series(1, 3) AS {marker} WHERE {number} >= 0".encode())


async def listed(deployment: Deployment, marker: str) -> list[dict[str, object]]:
    return [row for row in await deployment.act("pg-stat-statements-list") if marker in str(row["query"])]


async def test_list_gives_the_documented_names_and_what_the_server_counted(deployment: Deployment) -> None:
    await count(deployment, "marker_a", 5)
    (row,) = await listed(deployment, "marker_a")
    assert list(row) == FIELDS
    assert (row["calls"], row["rows"]) == (5, 15)
    assert row["user_id"] == await deployment.value("SELECT oid FROM pg_roles WHERE rolname = %s", [deployment.user])
    assert row["query"] == "SELECT generate_series($1, $2) AS marker_a WHERE $3 >= $4"
    times = [row[name] for name in FIELDS[4:]]
    assert all(isinstance(value, float) and value >= 0 for value in times)
    assert isinstance(row["total_time"], float) and isinstance(row["mean_time"], float)
    assert row["total_time"] == pytest.approx(5 * row["mean_time"])


async def test_times_are_milliseconds(deployment: Deployment) -> None:
    session = await deployment.session()
    await session.execute("SELECT pg_sleep(0.2) AS marker_b")
    (row,) = await listed(deployment, "marker_b")
    assert isinstance(row["max_time"], float)
    assert 200 <= row["max_time"] < 20_000


async def test_statements_of_other_databases_are_left_out_and_survive_a_reset(deployment: Deployment) -> None:
    async with new_deployment(deployment.live) as other:
        await count(other, "marker_c", 2)
        await count(deployment, "marker_d", 2)
        assert await listed(deployment, "marker_c") == []
        assert await listed(deployment, "marker_d")
        assert await deployment.act("pg-stat-statements-reset") is None
        assert await listed(deployment, "marker_d") == []
        assert await listed(other, "marker_c")


async def test_every_version_of_the_extension_is_listed_and_reset(deployment: Deployment) -> None:
    versions = await deployment.rows(
        "SELECT version FROM pg_available_extension_versions WHERE name = 'pg_stat_statements'"
        " AND string_to_array(version, '.')::int[] >= '{1,4}'"
    )
    assert len(versions) >= 4
    for (version,) in versions:
        await drop_extension(deployment)
        await deployment.admin.execute(f"CREATE EXTENSION pg_stat_statements VERSION '{version}'".encode())
        await deployment.admin.execute(
            f'GRANT EXECUTE ON FUNCTION pg_stat_statements_reset TO "{deployment.account}"'.encode()
        )
        await count(deployment, "marker_e", 3)
        (row,) = await listed(deployment, "marker_e")
        assert (list(row), row["calls"]) == (FIELDS, 3), version
        await deployment.act("pg-stat-statements-reset")
        assert await listed(deployment, "marker_e") == [], version


async def test_text_in_no_encoding_costs_the_texts_and_nothing_else(deployment: Deployment) -> None:
    async with new_deployment(deployment.live, options=ASCII_DATABASE) as other:
        await deployment.act("pg-stat-statements-reset")
        await count(deployment, "marker_i", 2)
        raw = await other.session(client_encoding="SQL_ASCII")
        await raw.execute(b'SELECT 1 AS "\xff"')
        try:
            for reader in (deployment, other):
                rows = await reader.act("pg-stat-statements-list")
                assert rows
            rows = await deployment.act("pg-stat-statements-list")
            user_id = await deployment.value("SELECT oid FROM pg_roles WHERE rolname = %s", [deployment.user])
            assert [(row["query"], row["calls"]) for row in rows if row["user_id"] == user_id] == [(None, 2)]
            await deployment.act("pg-stat-statements-reset")
        finally:
            await other.act("pg-stat-statements-reset")


async def test_the_extension_is_found_in_whatever_schema_it_is(deployment: Deployment) -> None:
    await deployment.admin.execute('CREATE SCHEMA "odd "" %s {} $1 schema"')
    await deployment.admin.execute('ALTER EXTENSION pg_stat_statements SET SCHEMA "odd "" %s {} $1 schema"')
    with pytest.raises(PrivilegeMissing, match="read pg_stat_statements") as refused:
        await deployment.act("pg-stat-statements-list")
    await apply_remedies(deployment, refused.value)
    await count(deployment, "marker_f", 1)
    assert await listed(deployment, "marker_f")
    await deployment.act("pg-stat-statements-reset")
    assert await listed(deployment, "marker_f") == []
    await deployment.act("pg-stat-statements-enable")


async def apply_remedies(deployment: Deployment, refused: PrivilegeMissing) -> None:
    """Run the statements that a refusal names, as a superuser who copies them would."""
    statements = re.findall(r"(?:GRANT|CREATE EXTENSION) [^;]*;", refused.message)
    assert statements, refused.message
    for statement in statements:
        await deployment.admin.execute(statement.encode())


async def test_a_missing_execute_is_named_with_the_grant_that_helps(deployment: Deployment) -> None:
    await deployment.admin.execute(
        f'REVOKE EXECUTE ON FUNCTION pg_stat_statements_reset FROM "{deployment.account}"'.encode()
    )
    await count(deployment, "marker_g", 1)
    with pytest.raises(PrivilegeMissing, match="execute pg_stat_statements_reset") as refused:
        await deployment.act("pg-stat-statements-reset")
    assert await listed(deployment, "marker_g")
    await apply_remedies(deployment, refused.value)
    await deployment.act("pg-stat-statements-reset")
    assert await listed(deployment, "marker_g") == []


async def test_list_without_pg_read_all_stats_names_the_grant_that_helps(deployment: Deployment) -> None:
    await deployment.admin.execute(f'REVOKE pg_read_all_stats FROM "{deployment.account}"'.encode())
    with pytest.raises(PrivilegeMissing, match="pg_read_all_stats") as refused:
        await deployment.act("pg-stat-statements-list")
    await apply_remedies(deployment, refused.value)
    await deployment.act("pg-stat-statements-list")


async def test_enable_where_it_is_there_already_changes_nothing(deployment: Deployment) -> None:
    before = await deployment.value("SELECT oid FROM pg_extension WHERE extname = 'pg_stat_statements'")
    assert await deployment.act("pg-stat-statements-enable") is None
    assert await deployment.value("SELECT oid FROM pg_extension WHERE extname = 'pg_stat_statements'") == before


async def test_enable_by_an_ordinary_account_names_what_a_superuser_has_to_do(deployment: Deployment) -> None:
    await drop_extension(deployment)
    with pytest.raises(PrivilegeMissing) as refused:
        await deployment.act("pg-stat-statements-enable")
    assert await deployment.value(IS_CREATED) is None
    await apply_remedies(deployment, refused.value)
    await deployment.act("pg-stat-statements-enable")


async def test_enable_by_a_superuser_creates_the_extension_in_public(deployment: Deployment) -> None:
    await drop_extension(deployment)
    await deployment.admin.execute(f'ALTER ROLE "{deployment.account}" SUPERUSER'.encode())
    assert await deployment.act("pg-stat-statements-enable") is None
    assert await deployment.value(IS_CREATED) == "public"


async def test_several_enables_at_once_all_succeed(deployment: Deployment) -> None:
    await drop_extension(deployment)
    await deployment.admin.execute(f'ALTER ROLE "{deployment.account}" SUPERUSER'.encode())
    await asyncio.gather(*(deployment.act("pg-stat-statements-enable") for _ in range(4)))
    assert await deployment.value(IS_CREATED) == "public"


async def test_without_the_extension_list_and_reset_say_how_to_create_it(deployment: Deployment) -> None:
    await drop_extension(deployment)
    for action in ("pg-stat-statements-list", "pg-stat-statements-reset"):
        with pytest.raises(Precondition, match="CREATE EXTENSION pg_stat_statements"):
            await deployment.act(action)


async def test_without_the_schema_public_enable_says_so(deployment: Deployment) -> None:
    await drop_extension(deployment)
    await deployment.admin.execute(f'ALTER ROLE "{deployment.account}" SUPERUSER'.encode())
    await deployment.admin.execute("DROP SCHEMA public")
    with pytest.raises(Precondition, match="public"):
        await deployment.act("pg-stat-statements-enable")


@pytest.mark.parametrize("action", FAMILY)
async def test_an_action_that_must_wait_ends_at_its_deadline(deployment: Deployment, action: str) -> None:
    await deployment.act("list-extensions")
    async with deployment.admin.transaction():
        await deployment.admin.execute("LOCK TABLE pg_catalog.pg_extension IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DeadlineExceeded), deadline.within(0.3):
            await deployment.act(action)

        async def stopped() -> bool:
            active = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND state = 'active'"
            return await deployment.value(active, [deployment.account]) == 0

        await until(stopped)


async def test_a_role_that_was_dropped_keeps_its_statements(deployment: Deployment) -> None:
    await deployment.admin.execute("CREATE ROLE passing_by LOGIN PASSWORD 'x'")
    session = await psycopg.AsyncConnection.connect(
        deployment.live.url("passing_by", "x", deployment.database), autocommit=True
    )
    await session.execute("SELECT 1 AS marker_h")
    await session.close()
    await deployment.admin.execute("DROP ROLE passing_by")
    (row,) = await listed(deployment, "marker_h")
    assert isinstance(row["user_id"], int)


@pytest.fixture(scope="module")
async def not_preloaded() -> AsyncIterator[LiveServer]:
    with spawn("postgresql", newest("postgresql").version, preload=False) as server:
        yield server


@pytest.mark.parametrize("action", FAMILY)
async def test_without_the_preloaded_library_nothing_is_created_and_the_setting_is_named(
    not_preloaded: LiveServer, action: str
) -> None:
    async with new_deployment(not_preloaded) as deployment:
        await deployment.admin.execute(f'ALTER ROLE "{deployment.account}" SUPERUSER'.encode())
        with pytest.raises(Precondition, match="shared_preload_libraries"):
            await deployment.act(action)
        assert await deployment.value(IS_CREATED) is None


@pytest.mark.parametrize("action", ["pg-stat-statements-list", "pg-stat-statements-reset"])
async def test_an_extension_whose_library_is_no_longer_preloaded_is_a_precondition(
    not_preloaded: LiveServer, action: str
) -> None:
    async with new_deployment(not_preloaded) as deployment:
        await deployment.admin.execute("CREATE EXTENSION pg_stat_statements")
        with pytest.raises(Precondition, match="shared_preload_libraries"):
            await deployment.act(action)


@pytest.mark.parametrize(
    ("action", "marker"),
    [("pg-stat-statements-enable", b"CREATE EXTENSION"), ("pg-stat-statements-reset", b"pg_stat_statements_reset")],
)
async def test_a_change_whose_answer_was_lost_is_looked_up_and_found_done(
    deployment: Deployment, action: str, marker: bytes
) -> None:
    if action == "pg-stat-statements-enable":
        await drop_extension(deployment)
        await deployment.admin.execute(f'ALTER ROLE "{deployment.account}" SUPERUSER'.encode())
    else:
        await count(deployment, "marker_j", 50)
    async with cutting_wire(deployment.live, marker) as wire:
        server = deployment.connect_valet(deployment.url(host="127.0.0.1", port=str(wire.port)))
        assert await perform(server, ENGINE.actions[action]) is None
        assert wire.cuts == 1
        await server.close()
    assert await deployment.value(IS_CREATED) == "public"
    assert await listed(deployment, "marker_j") == []


async def test_a_reset_of_one_statement_by_somebody_else_is_not_taken_for_the_reset_of_all(
    deployment: Deployment, postgresql: LiveServer
) -> None:
    action = ENGINE.actions["pg-stat-statements-reset"]

    async def told(before: Sequence[str] | None) -> Verdict:
        return judge(action.aftermath.goal, before, await look(deployment.server, action, None))

    session = await deployment.session()
    for columns in range(1, 26):
        await session.execute(f"SELECT {', '.join('1' * columns)}".encode())
    before = await look(deployment.server, action, None)
    if postgresql.version_tuple < (17,):
        assert before is None
        return
    await deployment.admin.execute(
        """
        SELECT pg_stat_statements_reset(userid, dbid, queryid) FROM pg_stat_statements
         WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
         ORDER BY stats_since LIMIT 1
        """
    )
    await count(deployment, "marker_m", 100)
    assert await told(before) is Verdict.NOT_DONE
    await deployment.act("pg-stat-statements-reset")
    await count(deployment, "marker_m", 100)
    assert await told(before) is Verdict.DONE


@pytest.mark.parametrize("acknowledged", [False, True])
async def test_a_reset_is_no_refusal_when_the_account_may_not_look_any_more(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, *, acknowledged: bool
) -> None:
    await count(deployment, "marker_k", 50)
    server = deployment.server
    write = server.write

    async def write_and_revoke(statement: str) -> object:
        answer = await write(statement)
        await deployment.admin.execute(
            f'REVOKE EXECUTE ON FUNCTION public.pg_stat_statements FROM PUBLIC, "{deployment.account}"'.encode()
        )
        if not acknowledged:
            raise ConnectionLost
        return answer

    monkeypatch.setattr(server, "write", write_and_revoke)
    with pytest.raises(Conflict if acknowledged else ConnectionLost) as told:
        await deployment.act("pg-stat-statements-reset")
    text = "PostgreSQL said that it is done" if acknowledged else "whether it finished is not known"
    assert text in told.value.message
    await deployment.admin.execute("GRANT EXECUTE ON FUNCTION public.pg_stat_statements TO PUBLIC")
    assert await listed(deployment, "marker_k") == []


async def test_statements_that_are_hidden_meanwhile_are_a_refusal(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await count(deployment, "marker_l", 1)
    server = deployment.server
    read = server.read

    async def revoke_and_read(statement: str, params: object = None) -> object:
        if "calls," in statement:
            await deployment.admin.execute(f'REVOKE pg_read_all_stats FROM "{deployment.account}"'.encode())
        return await read(statement)

    assert await listed(deployment, "marker_l")
    monkeypatch.setattr(server, "read", revoke_and_read)
    with pytest.raises(PrivilegeMissing, match="GRANT pg_read_all_stats"):
        await deployment.act("pg-stat-statements-list")
