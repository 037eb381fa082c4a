"""Statements with passwords, of others and of dbvalet itself, as a reader is shown them."""

import pytest

from engines.users import change_password, create_user, delete_user, made_password
from tests.live.postgresql.deployment import Deployment
from tests.live.servers import LiveServer
from tests.live.test_users import users_of, with_users

PLANTED = "planted-in-a-statement"

STATEMENTS = [
    "ALTER ROLE {role} PASSWORD '{planted}'",
    "alter role {role} encrypted password /* its own */ E'{planted}'",
    "DO 'BEGIN ALTER ROLE {role} PASSWORD ''{planted}''; END'",
    "DO 'BEGIN EXECUTE ''ALTER ROLE {role} PASSWORD ''''{planted}''''''; END'",
    "DO $$BEGIN ALTER ROLE {role} PASSWORD '{planted}'; END$$",
    "SELECT set_config('my.password', '{planted}', false)",
]


async def shown(deployment: Deployment) -> list[str]:
    """Give every text that the two lists show."""
    rows = await deployment.act("pg-list-queries") + await deployment.act("pg-stat-statements-list")
    return [str(row["query"]) for row in rows]


async def test_passwords_in_statements_of_others_are_masked_in_both_lists(deployment: Deployment) -> None:
    for each in STATEMENTS:
        statement = each.format(role=deployment.user, planted=PLANTED)
        session = await deployment.session(deployment.live.admin)
        await session.execute("SET pg_stat_statements.track = 'all'")
        await session.execute(statement.encode())
        # The session stays, and shows it as its last.
        texts = await deployment.rows("SELECT query FROM pg_stat_activity WHERE pid = %s", [session.info.backend_pid])
        assert texts == [(statement,)]
    texts = await shown(deployment)
    assert any(text.startswith("ALTER ROLE") and "[secret]" in text for text in texts)
    assert not any(PLANTED in text for text in texts)


@pytest.mark.newest_version
async def test_what_dbvalet_itself_says_of_a_users_password_is_masked(postgresql: LiveServer) -> None:
    async with with_users(postgresql) as deployment:
        await _test_its_own_statements(deployment)


async def _test_its_own_statements(deployment: Deployment) -> None:
    users, name = users_of(deployment.server), f"named-{deployment.database[4:]}"
    await deployment.admin.execute(f"ALTER ROLE \"{deployment.account}\" SET pg_stat_statements.track = 'all'".encode())
    await create_user(users, name, made_password(), read_only=False)
    await change_password(users, name, made_password())
    kept = await deployment.rows("SELECT query FROM pg_stat_statements WHERE query LIKE '%SCRAM-SHA-256$4096:%'")
    assert kept
    texts = await shown(deployment)
    assert any("PASSWORD [secret]" in text and name in text for text in texts)
    assert not any("SCRAM-SHA-256$4" in text for text in texts)
    await delete_user(users, name)


async def test_a_statement_without_a_password_is_shown_as_it_is(deployment: Deployment) -> None:
    statement = "SELECT 'a token' AS \"it's\", 'x' AS password, md5('y')"
    session = await deployment.session()
    await session.execute(statement.encode())
    texts = await shown(deployment)
    assert 'SELECT $1 AS "it\'s", $2 AS password, md5($3)' in texts
