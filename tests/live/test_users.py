"""Users on the live engines: made, used, refused what a reader may not do, given passwords, taken away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import psycopg
import pymysql
import pytest
from psycopg import sql

from engines import deadline
from engines.address import parse_address
from engines.engine import GrantsFor, Server
from engines.errors import (
    AlreadyExists,
    Conflict,
    InvalidParams,
    Precondition,
    PrivilegeMissing,
    Protected,
    UserNotFound,
)
from engines.mysql import ENGINE as MYSQL
from engines.mysql.facts import Flavour
from engines.mysql.user_rights import user_grants
from engines.postgresql.grants import grants
from engines.users import (
    User,
    Users,
    change_password,
    create_user,
    delete_user,
    find_user,
    made_password,
)
from tests.live.hostile_names import hostile_names
from tests.live.images import newest
from tests.live.postgresql.deployment import PASSWORD, Deployment, new_deployment
from tests.live.servers import LiveServer

LIMIT = 120

PLAIN = "pass-of-the-valet-0123"

ONE_OF_EACH = {newest("mysql").key, "mariadb:10.5"}

if TYPE_CHECKING:
    Login = pymysql.connections.Connection[pymysql.cursors.Cursor]


def users_of(server: Server) -> Users:
    users = server.engine.users_of(server)
    assert users is not None
    return users


POSTGRESQL_WRITES = """
INSERT INTO things VALUES (2)
UPDATE things SET n = 3
DELETE FROM things
TRUNCATE things
SELECT * FROM things FOR UPDATE
MERGE INTO things USING (SELECT 1 AS m) AS other ON n = m WHEN MATCHED THEN DELETE
WITH gone AS (DELETE FROM things RETURNING n) SELECT * FROM gone
COPY things FROM PROGRAM 'echo 1'
COPY things TO '/tmp/things'
CREATE TABLE mine (n int)
CREATE TABLE public.mine AS SELECT 1 AS n
CREATE TEMPORARY TABLE mine (n int)
CREATE SCHEMA mine
CREATE VIEW mine AS SELECT 1
CREATE SEQUENCE mine
CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE TYPE mine AS ENUM ('a')
CREATE INDEX ON things (n)
ALTER TABLE things ADD COLUMN m int
DROP TABLE things
SELECT nextval('counter')
SELECT setval('counter', 7)
SELECT lo_create(0)
SELECT lo_from_bytea(0, 'x')
SELECT lo_creat(-1)
CREATE ROLE mine
CREATE DATABASE mine
COMMENT ON TABLE things IS 'mine'
ALTER TABLE things OWNER TO CURRENT_USER
REFRESH MATERIALIZED VIEW shown
""".strip().splitlines()


@asynccontextmanager
async def with_users(live: LiveServer) -> AsyncIterator[Deployment]:
    """A deployment whose account may manage users."""
    async with new_deployment(live) as deployment:
        script = grants(GrantsFor(user=deployment.account, database=deployment.database, password=PASSWORD))
        switched = script.replace("'dbvalet.users', 'no'", "'dbvalet.users', 'yes'")
        assert switched != script
        await deployment.admin.execute(switched.encode())
        try:
            with deadline.within(LIMIT):
                yield deployment
        finally:
            for name in (deployment.account, deployment.user):
                await deployment.admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))


async def login(deployment: Deployment, name: str, password: str) -> psycopg.AsyncConnection[tuple[object, ...]]:
    session = await psycopg.AsyncConnection.connect(
        deployment.live.url(name, password, deployment.database), autocommit=True
    )
    deployment.others.append(session)
    return session


@pytest.mark.newest_version
async def test_postgresql_readers_read_and_cannot_write(postgresql: LiveServer) -> None:
    async with with_users(postgresql) as deployment:
        users = users_of(deployment.server)
        await deployment.admin.execute(
            b"CREATE TABLE things AS SELECT 1 AS n; CREATE SEQUENCE counter; "
            b"CREATE MATERIALIZED VIEW shown AS SELECT n FROM things"
        )
        name, password = f"reader-{deployment.database[4:]}", made_password()
        made = await create_user(users, name, password, read_only=True)
        assert made == User(name=name, read_only=True, protected=False)
        try:
            session = await login(deployment, name, password)
            await session.execute(b"SET default_transaction_read_only = off")
            for statement in POSTGRESQL_WRITES:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await session.execute(statement.encode())
                    pytest.fail(statement)
            await deployment.admin.execute(
                b"CREATE SCHEMA later; CREATE TABLE later.things AS SELECT 7 AS n; CREATE TABLE more AS SELECT 8 AS n"
            )
            cursor = await session.execute(b"SELECT l.n, m.n FROM later.things AS l, more AS m")
            assert await cursor.fetchall() == [(7, 8)]
            for table in ("later.things", "more"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await session.execute(f"INSERT INTO {table} VALUES (1)".encode())
            assert "SCRAM-SHA-256" in await deployment.value(
                "SELECT rolpassword FROM pg_authid WHERE rolname = %s", [name]
            )
        finally:
            await delete_user(users, name)
        with pytest.raises(psycopg.OperationalError):
            await session.execute(b"SELECT 1")
        with pytest.raises(UserNotFound):
            await find_user(users, name)


@pytest.mark.newest_version
async def test_postgresql_a_user_that_cannot_be_dropped_can_still_log_in(postgresql: LiveServer) -> None:
    async with with_users(postgresql) as deployment:
        users, password = users_of(deployment.server), made_password()
        name = f"reader-{deployment.database[4:]}"
        await create_user(users, name, password, read_only=True)
        await deployment.admin.execute(f'CREATE TABLE given (n int); GRANT SELECT ON given TO "{name}"'.encode())
        with pytest.raises(Conflict):
            await delete_user(users, name)
        session = await login(deployment, name, password)
        assert await (await session.execute("SELECT count(*) FROM given")).fetchall() == [(0,)]
        await deployment.admin.execute(f'REVOKE SELECT ON given FROM "{name}"'.encode())
        await deployment.admin.execute(f'GRANT pg_read_server_files TO "{name}"'.encode())
        with pytest.raises(Protected):
            await delete_user(users, name)
        await deployment.admin.execute(f'REVOKE pg_read_server_files FROM "{name}"'.encode())
        await delete_user(users, name)


@pytest.mark.newest_version
async def test_postgresql_writers_passwords_and_what_is_protected(postgresql: LiveServer) -> None:
    async with with_users(postgresql) as deployment:
        users = users_of(deployment.server)
        name, first = f"writer-{deployment.database[4:]}", made_password()
        assert not (await create_user(users, name, first, read_only=False)).read_only
        session = await login(deployment, name, first)
        await session.execute(b"CREATE TABLE mine (n int); CREATE TEMP TABLE brief (n int); SELECT lo_create(4711)")
        with pytest.raises(AlreadyExists):
            await create_user(users, name.upper(), first, read_only=True)
        second = made_password()
        await change_password(users, name, second)
        with pytest.raises(psycopg.OperationalError):
            await login(deployment, name, first)
        session = await login(deployment, name, second)
        with pytest.raises(Conflict, match=r"table public\.mine"):
            await delete_user(users, name)
        await session.execute(b"DROP TABLE mine; SELECT lo_unlink(4711)")
        listed = {user.name: user for user in await users.all()}
        for protected in (deployment.account, deployment.live.admin):
            assert listed[protected].protected
            with pytest.raises(Protected):
                await change_password(users, protected, second)
            with pytest.raises(Protected):
                await delete_user(users, protected)
        # Not of dbvalet's making, so PostgreSQL 16 and later does not let it.
        with pytest.raises(PrivilegeMissing, match="WITH ADMIN OPTION"):
            await change_password(users, deployment.user, second)
        async with new_deployment(postgresql) as another:
            await another.admin.execute(
                sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                    sql.Identifier(another.database), sql.Identifier(another.user)
                )
            )
            assert (await find_user(users, another.user)).protected
            # Without the part of the script for users.
            with pytest.raises(Precondition, match="lo_create"):
                await create_user(users_of(another.server), "some-reader", second, read_only=True)
            with pytest.raises(PrivilegeMissing, match="CREATEROLE"):
                await create_user(users_of(another.server), "some-writer", second, read_only=False)
        await delete_user(users, name)
        await hostile(users, [name, deployment.account, deployment.user])


async def hostile(users: Users, known: list[str]) -> None:
    """No name that is not exactly one of them does anything."""
    before = await users.all()
    names = {user.name for user in before}
    password = made_password()
    for odd in [*hostile_names(known, 60, 32), "a\0b", "x'y", 'x"y', "reader@'%'", "", "pg_reader", "postgres"]:
        if odd not in names:
            with pytest.raises(UserNotFound):
                await delete_user(users, odd)
            with pytest.raises(UserNotFound):
                await change_password(users, odd, password)
        try:
            await create_user(users, odd, password, read_only=False)
        except (InvalidParams, AlreadyExists):
            continue
        await delete_user(users, odd)
    assert await users.all() == before


MYSQL_WRITES = """
INSERT INTO things VALUES (2)
REPLACE INTO things VALUES (2)
UPDATE things SET n = 3
DELETE FROM things
TRUNCATE things
LOAD DATA INFILE '/tmp/things' INTO TABLE things
SELECT 1 INTO OUTFILE '/tmp/things'
CREATE TABLE mine (n INT)
CREATE TEMPORARY TABLE mine (n INT)
CREATE DATABASE mine
CREATE VIEW mine AS SELECT 1
CREATE FUNCTION mine() RETURNS INT DETERMINISTIC RETURN 1
CREATE PROCEDURE mine() SELECT 1
CREATE TRIGGER mine BEFORE INSERT ON things FOR EACH ROW SET @x = 1
CREATE EVENT mine ON SCHEDULE EVERY 1 DAY DO SELECT 1
CREATE INDEX mine ON things (n)
ALTER TABLE things ADD COLUMN m INT
RENAME TABLE things TO mine
DROP TABLE things
DROP DATABASE {database}
CREATE USER mine
GRANT INSERT ON {database}.* TO CURRENT_USER()
SET GLOBAL max_connections = 7
LOCK TABLES things WRITE
CALL made()
""".strip().splitlines()

REFUSED_BY_MYSQL = {1044, 1045, 1142, 1227, 1370, 1410}


def mysql_login(live: LiveServer, user: str, password: str, database: str | None = None) -> "Login":
    return pymysql.connect(
        host=live.host,
        port=live.port,
        user=user,
        password=password,
        database=database,
        autocommit=True,
        # caching_sha2_password wants TLS; the images of MariaDB have none.
        ssl={"check_hostname": False} if live.flavour == "mysql" else None,
    )


def say(session: "Login", *statements: str) -> tuple[tuple[object, ...], ...]:
    with session.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return tuple(cursor.fetchall())


@pytest.mark.newest_version
async def test_mysql_users(mysql: LiveServer) -> None:
    if f"{mysql.flavour}:{mysql.version}" not in ONE_OF_EACH:
        pytest.skip("the newest version")
    database, valet = "of_users", "valet_of_users"
    root = mysql_login(mysql, mysql.admin, mysql.password)
    say(
        root,
        f"CREATE DATABASE {database}",
        "CREATE DATABASE ofXusers",
        f"CREATE TABLE {database}.things (n INT)",
        f"CREATE PROCEDURE {database}.made() DELETE FROM things",
        f"CREATE USER {valet} IDENTIFIED BY '{PLAIN}'",
        "CREATE USER of_another IDENTIFIED BY 'x'",
        "GRANT SELECT ON ofXusers.* TO of_another",
    )
    server = MYSQL.connect(parse_address(mysql.url(valet, PLAIN, database), MYSQL.default_port))
    users = users_of(server)
    facts = (cast(Flavour, mysql.flavour), mysql.version_tuple)
    try:
        say(root, f"GRANT CREATE ON {database}.* TO {valet}")
        with deadline.within(LIMIT):
            with pytest.raises(PrivilegeMissing, match="GRANT CREATE USER, PROCESS"):
                await users.all()
            say(root, *user_grants(f"'{valet}'@'%'", database, *facts))
            password = made_password()
            made = await create_user(users, "reader", password, read_only=True)
            assert (made.name, made.read_only, made.protected) == ("reader", True, False)
            session = mysql_login(mysql, "reader", password, database)
            for statement in MYSQL_WRITES:
                with pytest.raises(pymysql.MySQLError) as refused:
                    say(session, statement.format(database=database))
                    pytest.fail(statement)
                assert refused.value.args[0] in REFUSED_BY_MYSQL, statement
            say(root, f"CREATE TABLE {database}.later AS SELECT 7 AS n")
            assert say(session, "SELECT n FROM later") == ((7,),)
            with pytest.raises(pymysql.MySQLError):
                say(session, "INSERT INTO later VALUES (1)")
            with pytest.raises(pymysql.MySQLError):
                say(session, "SELECT 1 FROM mysql.user")
            second = made_password()
            await change_password(users, "reader", second)
            with pytest.raises(pymysql.MySQLError):
                mysql_login(mysql, "reader", password)
            mysql_login(mysql, "reader", second).close()

            made = await create_user(users, "writer", password, read_only=False)
            assert (made.read_only, made.protected) == (False, False)
            writing = mysql_login(mysql, "writer", password, database)
            say(writing, "CREATE TABLE mine (n INT)", "CREATE VIEW seen AS SELECT 1 AS n")
            with pytest.raises(Conflict, match=r"view of_users\.seen"):
                await delete_user(users, "writer")
            say(writing, "DROP VIEW seen")

            listed = {user.name: user for user in await users.all()}
            for protected in (valet, "of_another", "root", *(name for name in listed if name.startswith("mysql."))):
                assert listed[protected].protected, protected
                with pytest.raises(Protected):
                    await change_password(users, protected, second)
            await hostile(users, ["reader", "writer", valet, "root@localhost"])
            for name, its in (("reader", session), ("writer", writing)):
                await delete_user(users, name)
                with pytest.raises(pymysql.MySQLError):
                    say(its, "SELECT 1")
    finally:
        await server.close()
        for statement in (
            f"DROP DATABASE {database}",
            "DROP DATABASE ofXusers",
            *(f"DROP USER IF EXISTS {name}" for name in (valet, "reader", "writer", "of_another")),
        ):
            say(root, statement)
        root.close()
