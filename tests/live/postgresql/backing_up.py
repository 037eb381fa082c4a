"""A database that is backed up and restored, and everything in it for comparison."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from agent.demo.postgresql import wheel_programs
from engines.postgresql.backup import PostgresBackups
from engines.postgresql.programs import usual_folders
from engines.postgresql.quoting import quote_identifier
from engines.postgresql.server import PostgresServer
from tests.leftovers import command_of, descendants
from tests.live.postgresql.deployment import PASSWORD, Deployment, maintenance, new_deployment
from tests.live.postgresql.every_kind import every_kind
from tests.live.servers import LiveServer

FOLDERS = [*usual_folders(), wheel_programs()]

ROWS = """
SELECT format('%I.%I', nspname, relname),
       format('SELECT count(*), md5(string_agg(x::text, chr(10) ORDER BY x::text COLLATE "C")) FROM ONLY %I.%I AS x',
              nspname, relname)
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE (relkind = 'r' OR relkind = 'm' AND relispopulated)
   AND nspname !~ '^pg_' AND nspname <> 'information_schema'
"""

SEQUENCES = """
SELECT format('%I.%I', nspname, relname), format('SELECT last_value, is_called FROM %I.%I', nspname, relname)
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE relkind = 'S' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
"""

LARGE_OBJECTS = "SELECT oid::text, md5(lo_get(oid)) FROM pg_largeobject_metadata"


@dataclass(frozen=True)
class Content:
    """All of a database: two of these are equal when the databases cannot be told apart."""

    schema: tuple[str, ...]
    """What pg_dump says of it, rights, owners and comments included."""
    rows: dict[str, tuple[Any, ...]]
    """How many rows each table and filled materialized view has, and a checksum of them."""
    sequences: dict[str, tuple[Any, ...]]
    large_objects: dict[str, str]


@dataclass
class BackedUp:
    """A deployment with what makes its backups."""

    deployment: Deployment
    server: PostgresServer
    """As the account that makes and restores them."""
    reader: str

    @property
    def backups(self) -> PostgresBackups:
        return PostgresBackups(self.server, FOLDERS)

    async def run(self, statements: str) -> None:
        """Run statements as the superuser; @user@ and @reader@ are the roles."""
        names = {"@user@": self.deployment.user, "@reader@": self.reader, "@account@": self.deployment.account}
        for placeholder, name in names.items():
            statements = statements.replace(placeholder, quote_identifier(name))
        await self.deployment.admin.execute(statements.encode())

    async def look_again(self) -> None:
        """Log in anew to look from outside, after the server was restarted."""
        deployment = self.deployment
        deployment.admin = await deployment.session(deployment.live.admin, client_encoding="UTF8")

    async def content(self) -> Content:
        live, database = self.deployment.live, self.deployment.database

        async def answers(queries: str) -> dict[str, tuple[Any, ...]]:
            return {name: (await self.deployment.rows(query))[0] for name, query in await self.deployment.rows(queries)}

        return Content(
            schema=schema_of(live, database),
            rows=await answers(ROWS),
            sequences=await answers(SEQUENCES),
            large_objects=dict(await self.deployment.rows(LARGE_OBJECTS)),
        )


def schema_of(live: LiveServer, database: str) -> tuple[str, ...]:
    """Let the newest pg_dump that there is describe a database."""
    said = subprocess.run(
        [wheel_programs() / "pg_dump", "--schema-only", f"--dbname={live.url(database=database)}"],
        check=True,
        capture_output=True,
    ).stdout.decode(errors="surrogateescape")
    return tuple(line for line in said.splitlines() if not line.startswith(("\\restrict ", "\\unrestrict ")))


@asynccontextmanager
async def every_kind_of_object(live: LiveServer, *, superuser: bool) -> AsyncIterator[BackedUp]:
    """Make a database with an object of every kind, backed up by a superuser or by dbvalet's ordinary account.

    What only a superuser can make is in the first kind alone. The account is a member of the role that owns the rest.
    """
    reader = f"the reader {secrets.token_hex(4)}"
    async with maintenance(live) as admin:
        await admin.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(reader)))
    try:
        async with new_deployment(live) as deployment:
            backed_up = BackedUp(deployment, deployment.server, reader)
            user, quoted_reader = quote_identifier(deployment.user), quote_identifier(reader)
            script = every_kind(live.version_tuple[0], user, quoted_reader, superuser=superuser)
            await deployment.admin.execute(script)
            if superuser:
                backed_up.server = deployment.connect_superuser()
            else:
                await backed_up.run("GRANT @user@ TO @account@")
            try:
                yield backed_up
            finally:
                await backed_up.server.close()
    finally:
        async with maintenance(live) as admin:
            await admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(reader)))


class At:
    """Progress that does something, once, when the words begin with these."""

    def __init__(self, words: str, do: Callable[[], object]) -> None:
        self._words = words
        self._do = do
        self.told: list[tuple[float, str]] = []
        self.done = False

    def __call__(self, percent: float, words: str) -> None:
        self.told.append((percent, words))
        if not self.done and words.startswith(self._words):
            self.done = True
            self._do()


def ignore(_percent: float, _words: str) -> None:
    """Progress that nobody follows."""


def programs_running(name: str) -> list[int]:
    """List the processes of this one's that run a program."""
    return [pid for pid in descendants(os.getpid()) if Path(command_of(pid).split(" ")[0]).name == name]


def remedies(reasons: Sequence[str]) -> str:
    """Take the statements out of reasons, as a person would."""
    return " ".join(reason.split("Remedy: ")[1].split(" Nothing was changed.")[0] for reason in reasons)


__all__ = [
    "FOLDERS",
    "PASSWORD",
    "At",
    "BackedUp",
    "Content",
    "every_kind_of_object",
    "ignore",
    "programs_running",
    "remedies",
]
