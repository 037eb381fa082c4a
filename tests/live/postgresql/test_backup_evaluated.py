"""What others have written is not run by a restore as an account that has powers over the server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engines.errors import Precondition
from tests.live.postgresql.backing_up import BackedUp, ignore
from tests.live.servers import LiveServer
from tests.live.test_users import with_users

pytestmark = pytest.mark.newest_version

WAITING = """
GRANT @user@ TO @account@;
GRANT CREATE ON SCHEMA public TO @user@;
SET ROLE @user@;
CREATE FUNCTION public.waits() RETURNS integer LANGUAGE plpgsql AS $f$
BEGIN
    IF session_user ~ '^valet_|^postgres$' AND current_setting('application_name') ~ '^dbvalet' THEN
        RESET ROLE;
        EXECUTE 'GRANT pg_read_all_data TO "@name@"';
    END IF;
    RETURN 1;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN 1;
END
$f$;
CREATE FUNCTION public.harmless(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $f$
BEGIN
    RETURN public.waits();
END
$f$;
"""
"""What an application's user can make, who then waits for a restore."""

WAYS = {
    "check": "CREATE TABLE public.t (n integer CHECK (public.harmless(n) > 0))",
    "check-that-is-no-function-of-theirs": (
        "CREATE TABLE public.t (n integer CHECK (query_to_xml('SELECT public.waits()', true, true, '') IS NOT NULL))"
    ),
    "odd-name": (
        'CREATE FUNCTION public."CHECK (\n;""x "(integer) RETURNS integer LANGUAGE sql AS \'SELECT public.waits()\';'
        'CREATE TABLE public.t (n integer CHECK (public."CHECK (\n;""x "(n) > 0))'
    ),
    "domain": (
        "CREATE DOMAIN public.d AS integer CHECK (public.harmless(VALUE) > 0); CREATE TABLE public.t (n public.d)"
    ),
    "generated-column": "CREATE TABLE public.t (n integer, g integer GENERATED ALWAYS AS (public.harmless(n)) STORED)",
    "generated-column-without-rows": (
        "CREATE TABLE public.g (n integer, g integer GENERATED ALWAYS AS (public.harmless(1) + n) STORED);"
        "CREATE TABLE public.t (n integer)"
    ),
    "partition": (
        "CREATE TABLE public.t (n integer) PARTITION BY RANGE (public.harmless(n));"
        "CREATE TABLE public.p PARTITION OF public.t FOR VALUES FROM (0) TO (9)"
    ),
    "operator": (
        "CREATE FUNCTION public.two(integer, integer) RETURNS boolean LANGUAGE sql AS 'SELECT public.waits() > 0';"
        "CREATE OPERATOR public.=~= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = public.two);"
        "CREATE TABLE public.t (n integer CHECK (n OPERATOR(public.=~=) 1))"
    ),
    "cast": (
        "CREATE TYPE public.e AS ENUM ('a');"
        "CREATE FUNCTION public.to_integer(public.e) RETURNS integer LANGUAGE sql AS 'SELECT public.waits()';"
        "CREATE CAST (public.e AS integer) WITH FUNCTION public.to_integer(public.e) AS IMPLICIT;"
        "CREATE TABLE public.t (n integer CHECK ('a'::public.e + n > 0))"
    ),
    "member-of-an-extension": (
        "RESET ROLE; DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO @user@', current_database()); END $$;"
        "SET ROLE @user@; CREATE EXTENSION hstore SCHEMA public;"
        "ALTER EXTENSION hstore ADD FUNCTION public.harmless(integer);"
        "CREATE TABLE public.t (n integer CHECK (public.harmless(n) > 0))"
    ),
    "index-and-foreign-key": (
        "CREATE TABLE public.t (n integer PRIMARY KEY); CREATE INDEX i ON public.t ((n + public.harmless(1)));"
        "ALTER TABLE public.t CLUSTER ON i;"
        "CREATE TABLE public.u (n integer REFERENCES public.t); INSERT INTO public.t VALUES (2);"
        "INSERT INTO public.u VALUES (2)"
    ),
}

NAMED = {
    "check-that-is-no-function-of-theirs": "pg_catalog.query_to_xml",
    "odd-name": 'public.CHECK ( ;"x',
    "member-of-an-extension": "function public.harmless(integer)",
    "operator": "public.=~=",
    "cast": "public.to_integer",
}
"""What the refusal names; otherwise the harmless one."""

ORDINARY = """
CREATE FUNCTION public.of_a_superuser(integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
CREATE EXTENSION hstore SCHEMA public;
SET ROLE @user@;
CREATE FUNCTION public.watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE DOMAIN public.email AS text CHECK (VALUE ~ '^[^@]+@[^@]+$' AND length(VALUE) < 99);
CREATE TABLE public.author (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    n integer DEFAULT public.waits() CHECK (n BETWEEN 0 AND 9 OR n IN (11, 12)),
    m integer CHECK (public.of_a_superuser(m)),
    h public.hstore CHECK (public.akeys(h) IS NOT NULL AND h OPERATOR(public.?) 'a'),
    "CHECK (public.waits(" text CHECK ("CHECK (public.waits(" <> 'CHECK (public.waits('),
    twice integer GENERATED ALWAYS AS (abs(n) * 2) STORED,
    email public.email,
    at timestamptz CHECK (at < now() + interval '1 day' AND EXTRACT(year FROM at) > 1999)
);
CREATE TRIGGER watch BEFORE INSERT ON public.author FOR EACH ROW EXECUTE FUNCTION public.watch();
CREATE VIEW public.shown AS SELECT public.harmless(n) AS n FROM public.author;
CREATE INDEX by_email ON public.author (lower(email)) WHERE n > 0;
CREATE TABLE public.book (author integer REFERENCES public.author (id), sold date) PARTITION BY RANGE (sold);
CREATE TABLE public.book_new PARTITION OF public.book FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');
INSERT INTO public.author (m, h, "CHECK (public.waits(", email, at) VALUES (1, 'a=>1', 'x', 'a@b', '2020-01-01');
INSERT INTO public.book VALUES (1, '2021-01-01');
RESET ROLE;
"""


@pytest.fixture
async def managing(postgresql: LiveServer) -> AsyncIterator[BackedUp]:
    """A database whose account may manage users, and restore what an application's user owns."""
    async with with_users(postgresql) as deployment:
        made = BackedUp(deployment, deployment.server, reader=deployment.user)
        await made.run(WAITING.replace("@name@", deployment.user))
        yield made
        await made.run("DROP OWNED BY @user@ CASCADE")


async def is_granted(backed_up: BackedUp) -> bool:
    return await backed_up.deployment.value(
        "SELECT pg_has_role(%s, 'pg_read_all_data', 'MEMBER')", [backed_up.deployment.user]
    )


@pytest.mark.parametrize("way", WAYS)
async def test_who_manages_users_does_not_restore_what_would_run_the_code_of_others(
    managing: BackedUp, way: str, tmp_path: Path
) -> None:
    await managing.run(f"{WAYS[way]}; RESET ROLE; INSERT INTO public.t VALUES (1)")
    (note,) = (await managing.backups.dump(tmp_path, ignore)).notes
    before = await managing.content()
    with pytest.raises(Precondition, match=r"no superuser has written.*CREATEROLE") as refused:
        await managing.backups.restore(tmp_path, ignore)
    assert not await is_granted(managing)
    assert f" account: {NAMED.get(way, 'public.harmless')}. " in refused.value.message
    assert note == f"To restore this: {refused.value.message.removesuffix(' Nothing was changed.')}"
    assert await managing.content() == before


async def test_an_account_without_powers_restores_it(managing: BackedUp, tmp_path: Path) -> None:
    await managing.run(f"{WAYS['check']}; RESET ROLE; INSERT INTO public.t VALUES (1)")
    await managing.backups.dump(tmp_path, ignore)
    before = await managing.content()
    await managing.run(
        "ALTER ROLE @account@ NOCREATEROLE; REVOKE ADMIN OPTION FOR pg_read_all_data, pg_write_all_data FROM @account@;"
        "TRUNCATE public.t"
    )
    await managing.backups.restore(tmp_path, ignore)
    assert await managing.content() == before
    assert not await is_granted(managing)


@pytest.mark.parametrize("as_superuser", [False, True], ids=["manages-users", "superuser"])
async def test_what_has_ordinary_expressions_is_restored(
    managing: BackedUp, as_superuser: bool, tmp_path: Path
) -> None:
    await managing.run(f"RESET ROLE; {ORDINARY}")
    if not as_superuser:
        await managing.run("ALTER FUNCTION public.of_a_superuser OWNER TO @account@")
    else:
        managing.server = managing.deployment.connect_superuser()
    before = await managing.content()
    await managing.backups.dump(tmp_path, ignore)
    await managing.run("DELETE FROM public.book")
    await managing.backups.restore(tmp_path, ignore)
    assert await managing.content() == before
    assert not await is_granted(managing)
