"""The grants script makes an account that suffices, has no more, and is named whatever its owner likes."""

import base64
import random
import secrets

import psycopg
import pytest
from psycopg import sql

from engines.address import parse_address
from engines.engine import GrantsFor, lacking
from engines.postgresql import ENGINE
from engines.postgresql.quoting import quote_identifier, quote_literal
from tests.live.images import newest
from tests.live.postgresql.deployment import PASSWORD, Deployment, maintenance, new_deployment
from tests.live.servers import ADMIN_PASSWORD, LiveServer, spawn

ODD_NAMES = (
    "qu\"ote 's",
    "new\nline; DROP DATABASE app; --",
    "dollar$check$ $statistics$ $$",
    "@account@ :database :'x' %I %s {}",
    "back\\slash E\\'",
    "ünïcödé ☃ \U0001d52d",
    " spaces at both ends ",
    "x" * 55,
)

PIECES = (
    *("'", '"', "`", "\\", "''", '""', '\\"', "\\'", "\n", "\r\n", "\t", " ", "  ", "%", "%s", "%%", "{}", "{0}", "$1"),
    *(
        "$$",
        "$a$",
        ":a",
        ":'a'",
        "@account@",
        "--",
        "/*",
        "*/",
        ";",
        "; DROP ROLE valet; --",
        "E'",
        "U&'",
        "pg_",
        "postgres",
    ),
    *(
        "\u0440\u043estgres",
        "\u2170",
        "\u017f",
        "\u200b",
        "\ufeff",
        "\u202e",
        "é",
        "☃",
        "😀",
        "a",
        "A",
        "0",
        "_",
        "public",
        "PUBLIC",
        "null",
        "\x01",
        "\x7f",
    ),
)


def hostile_names(number: int) -> list[str]:
    """Make names that PostgreSQL can have and that do their worst to whoever does not quote them."""
    dice = random.Random(20261125)
    names: set[str] = set()
    while len(names) < number:
        name = "".join(dice.choices(PIECES, k=dice.randint(1, 8)))
        while len(name.encode()) > 63:
            name = name[:-1]
        names.add(name)
    return sorted(names)


async def test_the_account_suffices_for_every_action_and_has_nothing_more(deployment: Deployment) -> None:
    assert await lacking(deployment.server, tuple(ENGINE.requirements)) == []
    memberships = await deployment.rows(
        "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = %s::regrole ORDER BY 1", [deployment.account]
    )
    assert memberships == [("pg_read_all_stats",), ("pg_signal_backend",)]
    attributes = "rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
    assert (
        await deployment.value(f"SELECT {attributes} FROM pg_roles WHERE rolname = %s", [deployment.account]) is False
    )


async def test_running_the_script_again_does_no_harm_and_sets_the_password(deployment: Deployment) -> None:
    again = GrantsFor(user=deployment.account, database=deployment.database, password="another")
    for _ in range(2):
        await deployment.admin.execute(ENGINE.grants(again).encode())
    server = deployment.connect_valet(deployment.live.url(deployment.account, "another", deployment.database))
    assert await lacking(server, tuple(ENGINE.requirements)) == []
    await server.close()


async def test_the_script_refuses_another_database_than_its_own_and_makes_nothing(deployment: Deployment) -> None:
    wanted = GrantsFor(user="never_made", database="another", password=PASSWORD)
    with pytest.raises(psycopg.errors.RaiseException, match="this script is for the database another"):
        await deployment.admin.execute(ENGINE.grants(wanted).encode())
    assert not await deployment.rows("SELECT FROM pg_roles WHERE rolname = 'never_made'")


async def test_the_password_does_not_stand_in_the_statistics(deployment: Deployment) -> None:
    secret = secrets.token_hex(16)
    wanted = GrantsFor(user=deployment.account, database=deployment.database, password=secret)
    await deployment.admin.execute(ENGINE.grants(wanted).encode())
    await deployment.admin.execute("SELECT 1 AS counted_again")
    rows = await deployment.rows("SELECT query FROM pg_stat_statements")
    assert any("counted_again" in str(query) for (query,) in rows)
    assert not any(secret in str(query) for (query,) in rows)


async def test_without_the_preloaded_library_the_rest_is_made() -> None:
    with spawn("postgresql", newest("postgresql").version, preload=False) as live:
        async with new_deployment(live) as deployment:
            assert await deployment.act("pg-list-queries")
            assert [row["name"] for row in await deployment.act("list-extensions")] == ["plpgsql"]


async def test_names_of_any_kind_are_meant_exactly(postgresql: LiveServer) -> None:
    async with maintenance(postgresql) as admin:
        for name in ODD_NAMES:
            user, database = sql.Identifier(name), sql.Identifier(name + "-db")
            wanted = GrantsFor(user=name, database=name + "-db", password=PASSWORD)
            roles = await all_roles(admin)
            await admin.execute(sql.SQL("CREATE DATABASE {}").format(database))
            try:
                run_psql(postgresql, wanted)
                assert await all_roles(admin) - roles == {name}
                server = ENGINE.connect(parse_address(postgresql.url(name, PASSWORD, name + "-db"), 5432))
                assert await lacking(server, tuple(ENGINE.requirements)) == []
                await server.close()
            finally:
                await admin.execute(sql.SQL("DROP DATABASE {}").format(database))
                await admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(user))
            assert await all_roles(admin) == roles


async def all_roles(admin: psycopg.AsyncConnection[tuple[object, ...]]) -> set[object]:
    return {name for (name,) in await (await admin.execute("SELECT rolname FROM pg_roles")).fetchall()}


def run_psql(live: LiveServer, wanted: GrantsFor) -> None:
    """Run the script as its head says, with the psql of the server's own image; no name passes through a shell."""
    script = ENGINE.grants(wanted).encode()
    parts = {"script": script, "database": wanted.database.encode(), "password": ADMIN_PASSWORD.encode()}
    files = "; ".join(
        f"echo {base64.b64encode(part).decode()} | base64 -d > /tmp/{name}" for name, part in parts.items()
    )
    run = 'PGPASSWORD="$(cat /tmp/password)" PGDATABASE="$(cat /tmp/database)" psql -X -q -1 -v ON_ERROR_STOP=1'
    outcome = live.container.exec(["sh", "-c", f"{files}; {run} -h 127.0.0.1 -U {live.admin} -f /tmp/script"])
    assert outcome.exit_code == 0, outcome.output


async def test_a_thousand_hostile_names_and_texts_come_out_as_they_are(private_deployment: Deployment) -> None:
    names = hostile_names(1000)
    before = await private_deployment.rows(
        "SELECT rolname FROM pg_roles UNION ALL SELECT relname FROM pg_class ORDER BY 1"
    )
    for start in range(0, len(names), 100):
        batch = names[start : start + 100]
        columns = ", ".join(f"{quote_literal(name)} AS {quote_identifier(name)}" for name in batch)
        cursor = await private_deployment.admin.execute(f"SELECT {columns}".encode())
        assert [column.name for column in cursor.description or ()] == batch
        assert list(await cursor.fetchone() or ()) == batch
    after = await private_deployment.rows(
        "SELECT rolname FROM pg_roles UNION ALL SELECT relname FROM pg_class ORDER BY 1"
    )
    assert after == before
