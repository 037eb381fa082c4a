"""Databases that are not as usual: extensions with rows of their own, functions that need a search_path, odd text."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from engines.errors import BackendNotFound, BackupFailed
from tests.live.postgresql.backing_up import BackedUp, ignore
from tests.live.postgresql.deployment import Deployment, new_deployment, until
from tests.live.servers import LiveServer

# What dbvalet does around the engine's own tools does not differ between versions.
pytestmark = pytest.mark.newest_version

KEEPS_SETTINGS = """
CREATE TABLE extension_setting (name text PRIMARY KEY, value text, own boolean DEFAULT true);
INSERT INTO extension_setting VALUES ('shipped', 'by the extension', true);
SELECT pg_catalog.pg_extension_config_dump('extension_setting', 'WHERE NOT own');
CREATE SCHEMA of_the_extension;
GRANT USAGE ON SCHEMA of_the_extension TO PUBLIC;
COMMENT ON SCHEMA of_the_extension IS 'by the extension';
"""

NEEDS_SEARCH_PATH = """
CREATE TABLE public.word (w text);
CREATE FUNCTION public.simplified(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
CREATE FUNCTION public.unqualified(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN RETURN simplified($1); END';
CREATE INDEX by_function ON public.word (public.unqualified(w));
COMMENT ON INDEX public.by_function IS 'needs public';
CREATE MATERIALIZED VIEW public.words AS SELECT public.unqualified(w) AS u FROM public.word;
INSERT INTO public.word VALUES ('One'), ('Two');
CREATE UNIQUE INDEX one_of_each ON public.word (w);
"""


@pytest.fixture
async def plain(deployment: Deployment) -> AsyncIterator[BackedUp]:
    """A database with nothing in it, and a superuser who backs it up."""
    server = deployment.connect_superuser()
    yield BackedUp(deployment, server, reader=deployment.user)
    await server.close()


def install(live: LiveServer, name: str, version: str, script: str) -> None:
    """Put an extension among the server's files, as root in its container."""
    control = f"comment = 'of a test'\ndefault_version = '{version}'\nrelocatable = false\n"
    files = {f"{name}.control": control, f"{name}--{version}.sql": script}
    write = "; ".join(
        f"echo {base64.b64encode(content.encode()).decode()} | base64 -d >$folder/{file}"
        for file, content in files.items()
    )
    find = "folder=$(dirname $(find / -name plpgsql.control -not -path '/proc/*' 2>/dev/null | head -n 1))"
    outcome = live.container.exec(["sh", "-c", f"{find}; {write}"])
    assert outcome.exit_code == 0, outcome.output


async def test_rows_that_a_user_added_to_an_extension_come_back_once(plain: BackedUp, tmp_path: Path) -> None:
    install(plain.deployment.live, "keeps_settings", "1.0", KEEPS_SETTINGS)
    await plain.run(
        "CREATE EXTENSION keeps_settings SCHEMA public;"
        "INSERT INTO public.extension_setting VALUES ('mine', 'of the backup', false);"
        "CREATE TABLE of_the_extension.but_ours (a integer); GRANT USAGE ON SCHEMA of_the_extension TO @account@"
    )
    before = await plain.content()
    await plain.backups.dump(tmp_path, ignore)
    await plain.run(
        "UPDATE public.extension_setting SET value = 'changed' WHERE name = 'mine';"
        "INSERT INTO public.extension_setting VALUES ('later', '', false)"
    )
    await plain.backups.restore(tmp_path, ignore)
    assert await plain.content() == before
    await plain.run("DROP EXTENSION keeps_settings CASCADE")
    await plain.backups.restore(tmp_path, ignore)
    assert await plain.content() == before


async def test_extensions_stay_as_they_are_and_notes_say_so(plain: BackedUp, tmp_path: Path) -> None:
    await plain.run(
        "CREATE EXTENSION hstore SCHEMA public; CREATE TABLE kept (h hstore); INSERT INTO kept VALUES ('a=>1')"
    )
    before = await plain.content()
    await plain.backups.dump(tmp_path, ignore)
    await plain.run(
        "CREATE SCHEMA moved; ALTER EXTENSION hstore SET SCHEMA moved; CREATE EXTENSION citext SCHEMA public"
    )
    await plain.run("CREATE TABLE later (c citext)")
    with pytest.raises(BackupFailed, match="hstore"):
        await plain.backups.restore(tmp_path, ignore)
    await plain.run("ALTER EXTENSION hstore SET SCHEMA public")
    notes = await plain.backups.restore(tmp_path, ignore)
    assert "Left as they are: the extensions citext, hstore, pg_stat_statements." in notes
    after = await plain.content()
    assert after.rows == before.rows
    assert await plain.deployment.value("SELECT count(*) FROM pg_extension WHERE extname = 'citext'") == 1


async def test_an_index_whose_function_needs_a_search_path_comes_back_where_it_can(
    plain: BackedUp, tmp_path: Path
) -> None:
    await plain.run(NEEDS_SEARCH_PATH)
    since_17 = plain.deployment.live.version_tuple[0] >= 17
    await plain.run("SELECT 1" if since_17 else "REFRESH MATERIALIZED VIEW public.words")
    before = await plain.content()
    await plain.backups.dump(tmp_path, ignore)
    await plain.run("DROP TABLE word CASCADE")
    notes = await plain.backups.restore(tmp_path, ignore)
    after = await plain.content()
    assert after.rows["public.word"] == before.rows["public.word"]
    left_out = [note for note in notes if note.startswith("LEFT OUT")]
    if not since_17:
        assert left_out == []
        assert after == before
    else:
        # 17 calls functions in indexes and materialized views with its own search_path, whoever makes them.
        index, comment, view = left_out
        assert "CREATE INDEX by_function" in index
        assert "COMMENT ON INDEX public.by_function" in comment
        assert "REFRESH MATERIALIZED VIEW public.words" in view
        assert "simplified(text) does not exist" in index and "simplified(text) does not exist" in view
        assert await plain.deployment.value("SELECT count(*) FROM pg_indexes WHERE tablename = 'word'") == 1


async def test_text_of_any_encoding_comes_back_as_it_was(postgresql: LiveServer, tmp_path: Path) -> None:
    async with (
        new_deployment(
            postgresql, options="ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        ) as deployment,
        deployment.not_counted(postgresql.admin),
    ):
        odd = await deployment.session(postgresql.admin, client_encoding="LATIN1")
        await odd.execute('CREATE TABLE "Stra\u00dfe" ("\u00fc" text)')
        await odd.execute("INSERT INTO \"Stra\u00dfe\" VALUES ('\u00e4'), ('\u00ff\u00fe')")
        await odd.execute('CREATE VIEW "\u00d6" AS SELECT \'\u00df\' AS "\u00c4" FROM "Stra\u00dfe"')
        server = deployment.connect_superuser()
        backed_up = BackedUp(deployment, server, reader=deployment.user)
        await backed_up.backups.dump(tmp_path, ignore)
        await odd.execute('DROP TABLE "Stra\u00dfe" CASCADE')
        await odd.execute('CREATE TABLE "\u00fcber" (a integer)')
        await backed_up.backups.restore(tmp_path, ignore)
        cursor = await odd.execute('SELECT "\u00fc" FROM "Stra\u00dfe"')
        assert await cursor.fetchall() == [("\u00e4",), ("\u00ff\u00fe",)]
        cursor = await odd.execute('SELECT DISTINCT "\u00c4" FROM "\u00d6"')
        assert await cursor.fetchall() == [("\u00df",)]
        with pytest.raises(psycopg.errors.UndefinedTable):
            await odd.execute('SELECT FROM "\u00fcber"')
        await server.close()


async def test_large_objects_come_back_without_any_table(plain: BackedUp, tmp_path: Path) -> None:
    await plain.run("SELECT lo_from_bytea(0, ('object ' || n)::bytea) FROM generate_series(1, 20) AS n")
    await plain.run("SET ROLE @user@; SELECT lo_from_bytea(0, repeat('large', 100000)::bytea)")
    await plain.run("RESET ROLE")
    before = await plain.content()
    assert len(before.large_objects) == 21
    await plain.backups.dump(tmp_path, ignore)
    await plain.run("SELECT lo_unlink(oid) FROM pg_largeobject_metadata; SELECT lo_from_bytea(0, 'later')")
    await plain.backups.restore(tmp_path, ignore)
    assert await plain.content() == before


async def test_temporary_tables_of_other_sessions_are_left_alone(plain: BackedUp, tmp_path: Path) -> None:
    await plain.backups.dump(tmp_path, ignore)
    other = await plain.deployment.session()
    await other.execute("CREATE TEMPORARY TABLE mine (id serial, a text)")
    await other.execute("INSERT INTO mine (a) VALUES ('kept')")
    await plain.backups.restore(tmp_path, ignore)
    cursor = await other.execute("SELECT a FROM mine")
    assert await cursor.fetchall() == [("kept",)]


async def test_settings_and_rights_of_the_database_itself_stay(plain: BackedUp, tmp_path: Path) -> None:
    await plain.backups.dump(tmp_path, ignore)
    database = plain.deployment.database
    await plain.run(f"ALTER DATABASE {database} SET work_mem = '9MB'; COMMENT ON DATABASE {database} IS 'ours'")
    await plain.backups.restore(tmp_path, ignore)
    session = await plain.deployment.session()
    assert await (await session.execute("SHOW work_mem")).fetchone() == ("9MB",)


async def test_limits_of_the_role_do_not_end_a_restore(plain: BackedUp, tmp_path: Path) -> None:
    """Nor do they end a dump: statement_timeout, a transaction that may only read, another schema first."""
    account = plain.deployment.account
    await plain.run("CREATE TABLE slow (a integer); INSERT INTO slow VALUES (1); ALTER TABLE slow OWNER TO @user@")
    await plain.run("GRANT @user@ TO @account@; GRANT ALL ON SCHEMA public TO @account@, @user@")
    for setting in (
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "default_transaction_read_only = on",
        "default_transaction_isolation = 'serializable'",
        "search_path = nowhere",
        "standard_conforming_strings = off",
        "DateStyle = 'SQL, DMY'",
        "bytea_output = 'escape'",
    ):
        await plain.run(f"ALTER ROLE {account} SET {setting}")
    before = await plain.content()
    limited = BackedUp(plain.deployment, plain.deployment.server, reader=plain.reader)
    await limited.backups.dump(tmp_path, ignore)
    await plain.run("TRUNCATE slow")
    await limited.backups.restore(tmp_path, ignore)
    assert await plain.content() == before


async def test_sessions_of_dumps_and_restores_are_not_listed_as_queries(plain: BackedUp, tmp_path: Path) -> None:
    await plain.backups.dump(tmp_path, ignore)
    holder = await plain.deployment.session(plain.deployment.live.admin)
    await holder.execute("CREATE TABLE held (a integer)")
    await holder.execute("BEGIN; LOCK TABLE held")
    restoring = asyncio.create_task(plain.backups.restore(tmp_path, ignore))
    waiting = "SELECT pid FROM pg_stat_activity WHERE application_name = 'dbvalet restore' AND wait_event_type = 'Lock'"

    async def is_waiting() -> bool:
        return bool(await plain.deployment.rows(waiting))

    await until(is_waiting)
    plain.deployment.server = plain.server
    pids = {query["pid"] for query in await plain.deployment.act("pg-list-queries")}
    ((restore,),) = await plain.deployment.rows(waiting)
    assert holder.info.backend_pid in pids
    assert restore not in pids
    with pytest.raises(BackendNotFound):
        await plain.deployment.act("pg-terminate-query", {"pid": restore})
    await holder.execute("COMMIT")
    await restoring
