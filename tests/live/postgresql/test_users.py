"""Users of a live PostgreSQL while others change users too, and when a deletion is interrupted."""

import asyncio
from collections.abc import AsyncIterator
from typing import LiteralString, cast

import psycopg
import pytest
from psycopg import sql

from engines import deadline
from engines.errors import Conflict, DeadlineExceeded, EngineUnavailable, Protected, UserNotFound
from engines.users import change_password, create_user, delete_user, find_user, made_password
from tests.live.postgresql.cutting import cutting_wire
from tests.live.postgresql.deployment import PASSWORD, Deployment, new_deployment, until
from tests.live.servers import LiveServer
from tests.live.test_users import login, users_of, with_users

pytestmark = pytest.mark.newest_version

CONNECTION_LIMIT = "SELECT rolconnlimit FROM pg_roles WHERE rolname = %s"


@pytest.fixture
async def deployment(postgresql: LiveServer) -> AsyncIterator[Deployment]:
    """A deployment whose account may manage users."""
    async with with_users(postgresql) as made:
        yield made


def name_of(deployment: Deployment, what: str = "reader") -> str:
    return f"{what}-{deployment.database[4:]}"


async def test_a_user_whose_deletion_was_interrupted_is_listed_and_deleted_by_doing_it_again(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, name = users_of(deployment.server), name_of(deployment)
    await create_user(users, name, made_password(), read_only=True)
    write, alive = deployment.server.write, True

    async def until_it_is_killed(statement: str, params: object = None) -> list[dict[str, object]]:
        nonlocal alive
        if "pg_terminate_backend" in statement:
            alive = False
        if not alive:
            raise EngineUnavailable("The server is restarted.")
        return await write(statement, {})

    monkeypatch.setattr(deployment.server, "write", until_it_is_killed)
    with pytest.raises(EngineUnavailable) as refused:
        await delete_user(users, name)
    assert "cannot log in (CONNECTION LIMIT 0)" in refused.value.message
    monkeypatch.undo()
    assert await deployment.value(CONNECTION_LIMIT, [name]) == 0
    await find_user(users, name)
    await delete_user(users, name)
    assert await deployment.value(CONNECTION_LIMIT, [name]) is None


async def test_nobody_logs_in_while_a_user_is_deleted_and_its_own_limit_is_put_back(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, name, password = users_of(deployment.server), name_of(deployment), made_password()
    await create_user(users, name, password, read_only=True)
    await deployment.admin.execute(f'ALTER ROLE "{name}" CONNECTION LIMIT 7'.encode())
    write = deployment.server.write

    async def nothing_ends(statement: str, params: object = None) -> list[dict[str, object]]:
        if "pg_terminate_backend" in statement:
            with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
                await login(deployment, name, password)
            raise DeadlineExceeded("Sessions of the user do not end; it is still there.")
        return await write(statement, {})

    monkeypatch.setattr(deployment.server, "write", nothing_ends)
    with pytest.raises(DeadlineExceeded) as refused:
        await delete_user(users, name)
    assert refused.value.message == "Sessions of the user do not end; it is still there."
    monkeypatch.undo()
    assert await deployment.value(CONNECTION_LIMIT, [name]) == 7
    await login(deployment, name, password)
    await delete_user(users, name)


async def test_a_deletion_that_is_refused_says_that_the_user_cannot_log_in(deployment: Deployment) -> None:
    users, name = users_of(deployment.server), name_of(deployment, "writer")
    await create_user(users, name, made_password(), read_only=False)
    await deployment.admin.execute(f'ALTER ROLE "{name}" CONNECTION LIMIT 0'.encode())
    await deployment.admin.execute(f'CREATE TABLE its (n int); ALTER TABLE its OWNER TO "{name}"'.encode())
    with pytest.raises(Conflict, match=r"table public\.its.*cannot log in \(CONNECTION LIMIT 0\)"):
        await delete_user(users, name)
    await deployment.admin.execute(b"DROP TABLE its")
    await delete_user(users, name)


async def test_a_user_whose_deletion_had_no_answer_is_told_as_deleted(deployment: Deployment) -> None:
    name = name_of(deployment)
    await create_user(users_of(deployment.server), name, made_password(), read_only=True)
    async with cutting_wire(deployment.live, b"DROP ROLE") as wire:
        server = deployment.connect_valet(deployment.url(host="127.0.0.1", port=str(wire.port)))
        try:
            await delete_user(users_of(server), name)
            assert wire.cuts == 1
        finally:
            await server.close()
    assert await deployment.value(CONNECTION_LIMIT, [name]) is None


async def test_a_user_that_somebody_else_drops_meanwhile_is_not_found(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, name = users_of(deployment.server), name_of(deployment)
    await create_user(users, name, made_password(), read_only=True)
    write = deployment.server.write

    async def after_a_drop(statement: str, params: object = None) -> list[dict[str, object]]:
        if "DROP ROLE" in statement:
            await write(statement, {})
        return await write(statement, {"name": name} if "%(name)s" in statement else {})

    monkeypatch.setattr(deployment.server, "write", after_a_drop)
    with pytest.raises(UserNotFound):
        await delete_user(users, name)


POWERFUL = {
    "superuser": "CREATE ROLE {group} SUPERUSER",
    "creates-roles": "CREATE ROLE {group} CREATEROLE",
    "creates-databases": "CREATE ROLE {group} CREATEDB",
    "replicates": "CREATE ROLE {group} REPLICATION",
    "sees-all-rows": "CREATE ROLE {group} BYPASSRLS",
    "runs-programs": "CREATE ROLE {group}; GRANT pg_execute_server_program TO {group}",
    "owner-of-another-database": "CREATE ROLE {group}; ALTER DATABASE {another} OWNER TO {group}",
    "granted-in-another-database": "CREATE ROLE {group}; GRANT CONNECT ON DATABASE {another} TO {group}",
    "owner-of-this-database": "CREATE ROLE {group}; ALTER DATABASE {database} OWNER TO {group}",
    "dbvalet-itself": "CREATE ROLE {group}; GRANT {account} TO {group}",
}
"""Roles that a user of a database must not come to by a new password of one of their members."""


@pytest.fixture
async def another(postgresql: LiveServer) -> AsyncIterator[Deployment]:
    """Another deployment on the same server."""
    async with new_deployment(postgresql) as made:
        yield made


@pytest.mark.parametrize("is_direct", [True, False], ids=["direct", "through-another"])
@pytest.mark.parametrize("power", POWERFUL)
async def test_a_member_of_a_role_with_more_than_a_users_rights_is_protected(
    deployment: Deployment, another: Deployment, power: str, is_direct: bool
) -> None:
    users, name = users_of(deployment.server), name_of(deployment, "member")
    group, between = name_of(deployment, "group"), name_of(deployment, "between")
    granted = group if is_direct else between

    async def say(statement: str) -> None:
        names = {
            "account": deployment.account,
            "database": deployment.database,
            "another": another.database,
            "user": name,
            "group": group,
            "between": between,
            "granted": granted,
        }
        quoted = {key: sql.Identifier(value) for key, value in names.items()}
        wanted = sql.SQL(cast(LiteralString, statement)).format(password=sql.Literal(PASSWORD), **quoted)
        await deployment.admin.execute(wanted)

    await say("CREATE ROLE {user} LOGIN PASSWORD {password}")
    await say(POWERFUL[power])
    try:
        await say("CREATE ROLE {between} NOINHERIT; GRANT {group} TO {between}; GRANT {granted} TO {user}")
        assert (await find_user(users, name)).protected
        with pytest.raises(Protected):
            await change_password(users, name, made_password())
        with pytest.raises(Protected):
            await delete_user(users, name)
        await login(deployment, name, PASSWORD)
    finally:
        await say("ALTER DATABASE {database} OWNER TO CURRENT_USER; ALTER DATABASE {another} OWNER TO CURRENT_USER")
        await say("DROP OWNED BY {group}; DROP ROLE {user}, {group}, {between}")


async def test_a_member_of_an_ordinary_role_is_not_protected(deployment: Deployment) -> None:
    users, password, group = users_of(deployment.server), made_password(), name_of(deployment, "group")
    made = {read_only: name_of(deployment, "reader" if read_only else "writer") for read_only in (True, False)}
    await deployment.admin.execute(
        sql.SQL(
            "CREATE ROLE {0}; GRANT pg_read_all_data TO {0}; CREATE TABLE its (n int); ALTER TABLE its OWNER TO {0}"
        ).format(sql.Identifier(group))
    )
    try:
        for read_only, name in made.items():
            assert not (await create_user(users, name, password, read_only=read_only)).protected
            await deployment.admin.execute(
                sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(name))
            )
            assert not (await find_user(users, name)).protected
            await change_password(users, name, made_password())
            await delete_user(users, name)
    finally:
        await deployment.admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(group)))


async def test_a_user_is_created_while_an_administrator_grants_on_the_database(deployment: Deployment) -> None:
    users, name = users_of(deployment.server), name_of(deployment)
    async with deployment.admin.transaction():
        await deployment.admin.execute(
            f'GRANT TEMPORARY ON DATABASE "{deployment.database}" TO "{deployment.user}"'.encode()
        )
        creating = asyncio.create_task(create_user(users, name, made_password(), read_only=True))

        async def waits() -> bool:
            return await deployment.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1

        await until(waits)
    assert (await creating).read_only
    await delete_user(users, name)


async def test_a_user_can_log_in_again_when_the_time_for_its_deletion_is_up(deployment: Deployment) -> None:
    users, name, password = users_of(deployment.server), name_of(deployment), made_password()
    await create_user(users, name, password, read_only=True)
    async with deployment.admin.transaction():
        await deployment.admin.execute(
            f'GRANT TEMPORARY ON DATABASE "{deployment.database}" TO "{deployment.user}"'.encode()
        )
        with deadline.within(3.5), pytest.raises(DeadlineExceeded) as late:
            try:
                await delete_user(users, name)
            finally:
                # Without any left, a slower server would not have put it back.
                assert deadline.remaining() > 1
    assert "CONNECTION LIMIT" not in late.value.message
    assert await deployment.value(CONNECTION_LIMIT, [name]) == -1
    await login(deployment, name, password)
    await delete_user(users, name)


async def test_users_are_created_and_deleted_at_the_same_time(deployment: Deployment) -> None:
    users = users_of(deployment.server)
    names = [name_of(deployment, f"user{number}") for number in range(8)]
    for _ in range(3):
        await asyncio.gather(*(create_user(users, name, made_password(), read_only=False) for name in names))
        await asyncio.gather(*(delete_user(users, name) for name in names))
