"""What is planted in `public` is never called, though the account's own search_path puts `public` first."""

import pytest

from engines.engine import lacking
from engines.postgresql import ENGINE, session
from tests.live.postgresql.deployment import Deployment

SPRUNG = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM public.sprung"

# Each trap counts in a sequence, which no rollback undoes, and then fails.
TRAPS = """
CREATE SEQUENCE public.sprung;
GRANT ALL ON public.sprung TO PUBLIC;
CREATE FUNCTION public.spring(what text) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.nextval('public.sprung');
    RAISE EXCEPTION 'planted % was called', what;
END
$$;
"""

FUNCTIONS = (
    ("now", "", "timestamptz"),
    ("clock_timestamp", "", "timestamptz"),
    ("current_database", "", "name"),
    ("pg_cancel_backend", "integer", "boolean"),
    ("pg_terminate_backend", "integer", "boolean"),
    ("pg_terminate_backend", "integer, bigint", "boolean"),
    ("current_setting", "text", "text"),
    ("current_setting", "text, boolean", "text"),
    ("set_config", "text, text, boolean", "text"),
    ("concat", "text, text", "text"),
    ("concat", "text, name", "text"),
    ("quote_ident", "text", "text"),
    ("pg_has_role", "name, text", "boolean"),
    ("pg_has_role", "text, text", "boolean"),
    ("has_function_privilege", "oid, text", "boolean"),
    ("has_schema_privilege", "oid, text", "boolean"),
    ("has_table_privilege", "oid, text", "boolean"),
    ("date_part", "text, interval", "double precision"),
    ("pg_postmaster_start_time", "", "timestamptz"),
    ("pg_control_system", "", "record"),
    ("pg_stat_get_activity", "integer", "record"),
)

OPERATORS = (
    ("=", "integer", "integer", "boolean"),
    ("=", "integer", "smallint", "boolean"),
    ("=", "oid", "oid", "boolean"),
    ("=", "text", "text", "boolean"),
    ("=", "name", "name", "boolean"),
    ("=", "name", "text", "boolean"),
    ("=", "timestamptz", "timestamptz", "boolean"),
    ("=", "boolean", "boolean", "boolean"),
    ("<>", "text", "text", "boolean"),
    ("<>", "timestamptz", "timestamptz", "boolean"),
    ("~~", "text", "text", "boolean"),
    ("!~~", "text", "text", "boolean"),
    ("-", "timestamptz", "timestamptz", "interval"),
    ("*", "double precision", "integer", "double precision"),
    ("*", "double precision", "double precision", "double precision"),
    ("*", "numeric", "numeric", "numeric"),
    ("*", "bigint", "integer", "bigint"),
)

RELATIONS = (
    "pg_stat_activity",
    "pg_extension",
    "pg_roles",
    "pg_database",
    "pg_namespace",
    "pg_class",
    "pg_proc",
)


async def plant(deployment: Deployment) -> None:
    run = deployment.admin.execute
    await run(TRAPS.encode())
    for name, arguments, result in FUNCTIONS:
        body = f"BEGIN PERFORM public.spring('{name}'); RETURN NULL; END"
        await run(
            f"CREATE FUNCTION public.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS $${body}$$".encode()
        )
    for number, (symbol, left, right, result) in enumerate(OPERATORS):
        body = f"BEGIN PERFORM public.spring('operator {symbol}'); RETURN NULL; END"
        await run(
            f"CREATE FUNCTION public.operator_{number}({left}, {right}) RETURNS {result} LANGUAGE plpgsql"
            f" AS $${body}$$".encode()
        )
        await run(
            f"CREATE OPERATOR public.{symbol}"
            f" (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.operator_{number})".encode()
        )
    for name in RELATIONS:
        await run(f"CREATE VIEW public.{name} AS SELECT public.spring('{name}') AS pid, 'x'::text AS extname".encode())
        await run(f"GRANT SELECT ON public.{name} TO PUBLIC".encode())
    await run(f'ALTER ROLE "{deployment.account}" SET search_path = public, pg_catalog'.encode())


async def test_nothing_planted_is_called_by_any_action(deployment: Deployment) -> None:
    await plant(deployment)
    await deployment.server.describe()
    assert await lacking(deployment.server, tuple(ENGINE.requirements)) == []
    async with deployment.running() as running, deployment.running() as other:
        for action in ("list-extensions", "pg-list-queries", "pg-stat-statements-enable"):
            await deployment.act(action)
        start = (await running.backend_start()).isoformat()
        await deployment.act("pg-cancel-query", {"pid": running.pid})
        await deployment.act(
            "pg-cancel-query", {"pid": other.pid, "backend_start": (await other.backend_start()).isoformat()}
        )
        assert (await running.state(), await other.state()) == ("idle", "idle")
        await deployment.act("pg-terminate-query", {"pid": running.pid, "backend_start": start})
        assert await running.state() is None
        for action in ("pg-stat-statements-list", "pg-stat-statements-reset"):
            await deployment.act(action)
    assert await deployment.value(SPRUNG) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT now()",
        "SELECT pg_cancel_backend(1)",
        "SELECT 1 = 1",
        "SELECT 'a'::text = 'b'::text",
        "SELECT * FROM pg_stat_activity",
        "SELECT clock_timestamp() - clock_timestamp()",
    ],
)
async def test_the_traps_catch_whoever_does_not_pin_the_search_path(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    await plant(deployment)
    monkeypatch.setattr(session, "SETTINGS", "")
    with pytest.raises(Exception, match=r"planted .* was called"):
        await deployment.server.read(statement)
    assert await deployment.value(SPRUNG) == 1


async def test_a_session_keeps_its_pin_whatever_the_role_and_the_database_set(deployment: Deployment) -> None:
    for owner in (f'ROLE "{deployment.account}"', f'DATABASE "{deployment.database}"'):
        for setting in ("search_path = public", "statement_timeout = 0", "TimeZone = 'Asia/Tokyo'", "jit = on"):
            await deployment.admin.execute(f"ALTER {owner} SET {setting}".encode())
    for wanted, setting in (("pg_catalog", "search_path"), ("10s", "statement_timeout"), ("UTC", "TimeZone")):
        rows = await deployment.server.read(f"SELECT pg_catalog.current_setting('{setting}') AS value")
        assert rows == [{"value": wanted}]
