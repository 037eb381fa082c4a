"""One logical database of a live PostgreSQL as a deployment: dbvalet's account on it, and people who use it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection, sql

from engines.address import parse_address
from engines.engine import GrantsFor, perform
from engines.postgresql import ENGINE
from engines.postgresql.server import PostgresServer
from tests.live.admins import as_admin
from tests.live.servers import LiveServer

Session = AsyncConnection[tuple[Any, ...]]

MANY_PAGES = b"""
CREATE TABLE many_pages WITH (fillfactor = 10) AS SELECT repeat('x', 500) AS filling FROM generate_series(1, 400)
"""

# pg_sleep is parallel safe, so the workers sleep too.
PARALLEL_QUERY = """
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
SELECT count(*) FROM many_pages WHERE pg_sleep(0.05) IS NOT NULL
"""

PARALLEL_WORKERS = """
SELECT pid FROM pg_stat_activity WHERE backend_type = 'parallel worker' AND datname = current_database()
"""

PASSWORD = "pass word:@/'\"%"


@dataclass
class Deployment:
    """A fresh logical database, dbvalet's server for it, and sessions of other people on it."""

    live: LiveServer
    database: str
    account: str
    """dbvalet's, made by the script that `dbvalet grants` prints."""
    user: str
    """An ordinary role, as an application has."""
    admin: Session
    """A superuser's session in the database, to look from outside."""
    server: PostgresServer
    others: list[Session] = field(default_factory=list[Session])

    async def act(self, name: str, params: object = None) -> Any:
        """Run an action as the service does, and hold the result against the declared model."""
        action = ENGINE.actions[name]
        result = await perform(self.server, action, action.validate(params))
        action.result.validate_python(result)
        return result

    def url(self, **options: str) -> str:
        return self.live.url(self.account, PASSWORD, self.database, **options)

    def connect_valet(self, url: str | None = None) -> PostgresServer:
        """Make another server of dbvalet, to be closed by the test."""
        server = ENGINE.connect(parse_address(url or self.url(), ENGINE.default_port))
        assert isinstance(server, PostgresServer)
        return server

    def connect_superuser(self) -> PostgresServer:
        """Make a server of dbvalet whose account is the superuser's, for what no other may do."""
        with as_admin("only a superuser creates an untrusted extension, and restores what a superuser owns"):
            return self.connect_valet(self.live.url(database=self.database))

    async def session(self, user: str | None = None, database: str | None = None, **options: Any) -> Session:
        """Log in as the ordinary role, as dbvalet's account or as the superuser."""
        account = {"user": user or self.user, "password": PASSWORD}
        if user == self.live.admin:
            account["password"] = self.live.password
        session = await psycopg.AsyncConnection.connect(
            host=self.live.host,
            port=self.live.port,
            dbname=database or self.database,
            autocommit=True,
            **account,
            **options,
        )
        self.others.append(session)
        return session

    @asynccontextmanager
    async def running(self, query: str = "SELECT pg_sleep(60)", **login: Any) -> AsyncIterator[Running]:
        """Run a query in a session of its own until the block ends."""
        session = await self.session(**login)
        task = asyncio.create_task(_outcome(session, query))
        running = Running(self, session, session.info.backend_pid, task)
        try:
            await until(running.is_active)
            yield running
        finally:
            await self.admin.execute("SELECT pg_terminate_backend(%s)", [running.pid])
            await asyncio.wait({task})

    @asynccontextmanager
    async def parallel_query(self) -> AsyncIterator[tuple[int, list[int]]]:
        """Run a query with parallel workers; give the pid of their leader and theirs."""
        await self.admin.execute(MANY_PAGES)
        async with self.running(PARALLEL_QUERY, user=self.live.admin) as leader:
            workers: list[int] = []

            async def have_started() -> bool:
                workers[:] = [pid for (pid,) in await self.rows(PARALLEL_WORKERS)]
                return bool(workers)

            await until(have_started)
            yield leader.pid, workers

    async def walsender(self) -> int:
        """Start a replication connection of this database, and give its pid."""
        session = await self.session(self.live.admin, replication="database")
        pid = session.info.backend_pid
        assert await self.value("SELECT backend_type FROM pg_stat_activity WHERE pid = %s", [pid]) == "walsender"
        return pid

    @asynccontextmanager
    async def not_counted(self, role: str) -> AsyncIterator[None]:
        """Leave a role's statements out of pg_stat_statements: text in no encoding would spoil it for the server."""
        name = sql.Identifier(role)
        await self.admin.execute(sql.SQL("ALTER ROLE {} SET pg_stat_statements.track = 'none'").format(name))
        try:
            yield
        finally:
            await self.admin.execute(sql.SQL("ALTER ROLE {} RESET pg_stat_statements.track").format(name))
            await self.admin.execute("SELECT pg_stat_statements_reset()")

    async def rows(self, query: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Ask the superuser's session."""
        cursor = await self.admin.execute(query.encode(), params)
        return await cursor.fetchall()

    async def value(self, query: str, params: Any = None) -> Any:
        rows = await self.rows(query, params)
        return rows[0][0] if rows else None


@dataclass
class Running:
    """A query that runs in a session of its own."""

    deployment: Deployment
    session: Session
    pid: int
    task: asyncio.Task[psycopg.Error | None]

    async def state(self) -> str | None:
        """Look from outside; None when the backend is gone."""
        return await self.deployment.value("SELECT state FROM pg_stat_activity WHERE pid = %s", [self.pid])

    async def is_active(self) -> bool:
        return await self.state() == "active"

    async def backend_start(self) -> Any:
        return await self.deployment.value("SELECT backend_start FROM pg_stat_activity WHERE pid = %s", [self.pid])

    async def error(self) -> psycopg.Error | None:
        """Wait for the query's end and give what its client was told; None when it went through."""
        return await asyncio.wait_for(asyncio.shield(self.task), 5)


async def _outcome(session: Session, query: str) -> psycopg.Error | None:
    try:
        await session.execute(query.encode())
    except psycopg.Error as error:
        return error
    return None


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Poll until a condition holds."""
    ends_at = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < ends_at, f"not within {seconds} s: {condition}"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def new_deployment(live: LiveServer, *, options: LiteralString = "") -> AsyncIterator[Deployment]:
    """Make a logical database, with further options of CREATE DATABASE, and run the grants script in it.

    Everything is taken away afterwards.
    """
    mark = secrets.token_hex(4)
    database, account, user = f"app_{mark}", f"valet_{mark}", f"user_{mark}"
    async with maintenance(live) as admin:
        await admin.execute(sql.SQL("CREATE DATABASE {} ").format(sql.Identifier(database)) + sql.SQL(options))
        await admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(user), sql.Literal(PASSWORD))
        )
    admin = await psycopg.AsyncConnection.connect(live.url(database=database), autocommit=True, client_encoding="UTF8")
    script = ENGINE.grants(GrantsFor(user=account, database=database, password=PASSWORD))
    await admin.execute(script.encode())
    server = ENGINE.connect(parse_address(live.url(account, PASSWORD, database), ENGINE.default_port))
    assert isinstance(server, PostgresServer)
    deployment = Deployment(live, database, account, user, admin, server)
    try:
        yield deployment
    finally:
        await server.close()
        for session in (*deployment.others, admin):
            await session.close()
        # A session of its own: the test may have restarted the server.
        async with maintenance(live) as dropper:
            await _drop(dropper, database, account, user)


@asynccontextmanager
async def maintenance(live: LiveServer) -> AsyncIterator[Session]:
    """Log in as the superuser, in no deployment's database."""
    async with await psycopg.AsyncConnection.connect(live.url(database="postgres"), autocommit=True) as session:
        yield session


async def _drop(admin: Session, database: str, *roles: str) -> None:
    terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    ends_at = time.monotonic() + 10
    while True:
        await admin.execute(terminate.encode(), [database])
        try:
            await admin.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(database)))
        except psycopg.errors.ObjectInUse:
            assert time.monotonic() < ends_at, f"{database} stays in use"
        else:
            break
    for role in roles:
        await admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
