"""Statistics of statements, by the extension pg_stat_statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from typing_extensions import TypedDict

from engines.action import Effect, action
from engines.aftermath import AS_ASKED, Aftermath, Goal
from engines.engine import require, require_privileges, unseen
from engines.errors import AlreadyExists, Conflict, ConnectionLost, EngineUnavailable, PrivilegeMissing
from engines.postgresql.query_text import mask_queries
from engines.postgresql.quoting import quote_identifier
from engines.postgresql.server import PostgresServer, UnreadableText
from engines.preview import Affected, Change, Preview, preview_of

PRELOADED = "pg_stat_statements preloaded"
CREATED = "pg_stat_statements created"
MAY_CREATE = "create pg_stat_statements"
MAY_READ = "read pg_stat_statements"
MAY_RESET = "execute pg_stat_statements_reset"

FIND_EXTENSION = """
SELECT extension.extversion AS version,
       namespace.nspname AS schema,
       pg_catalog.current_setting('pg_stat_statements.max', true) IS NOT NULL AS preloaded,
       pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS may_read
  FROM pg_catalog.pg_extension AS extension
  JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = extension.extnamespace
 WHERE extension.extname = 'pg_stat_statements'
"""

CREATE_EXTENSION = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public"

LIST_STATEMENTS = (
    (
        (1, 8),
        """
SELECT userid AS user_id,
       query,
       calls,
       rows,
       total_exec_time AS total_time,
       min_exec_time AS min_time,
       max_exec_time AS max_time,
       mean_exec_time AS mean_time,
       stddev_exec_time AS std_dev,
       queryid IS NULL AS hidden
  FROM {schema}.pg_stat_statements({with_texts})
 WHERE dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
 ORDER BY total_exec_time DESC, userid, queryid
""",
    ),
    (
        (1, 3),
        """
SELECT userid AS user_id,
       query,
       calls,
       rows,
       total_time,
       min_time,
       max_time,
       mean_time,
       stddev_time AS std_dev,
       queryid IS NULL AS hidden
  FROM {schema}.pg_stat_statements({with_texts})
 WHERE dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
 ORDER BY total_time DESC, userid, queryid
""",
    ),
)
"""By the first version of the extension that has these columns. 1.8 counts planning apart from execution. The text and
the id of a statement of another role are hidden from who has not pg_read_all_stats."""

RESET_STATEMENTS = (
    (
        (1, 7),
        """
SELECT datname
  FROM pg_catalog.pg_database CROSS JOIN LATERAL {schema}.pg_stat_statements_reset(0, oid, 0)
 WHERE datname = pg_catalog.current_database()
""",
    ),
    ((1, 0), "SELECT {schema}.pg_stat_statements_reset()"),
)
"""By the first version of the extension that has this form: before 1.7 only the whole server's rows can be reset. The
function stands in FROM because its result has another type since 1.11, which a prepared statement must not meet."""

MOST_CALLS = """
SELECT COALESCE(pg_catalog.max(calls), 0) AS calls
  FROM {schema}.pg_stat_statements(false)
 WHERE dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""

STATS_SINCE = (1, 11)

COUNTED_SINCE = """
SELECT pg_catalog.concat_ws(' ', userid, queryid, toplevel, EXTRACT(epoch FROM stats_since)) AS counted
  FROM {schema}.pg_stat_statements(false)
 WHERE dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
 ORDER BY calls DESC, userid, queryid, toplevel
 LIMIT 20
"""
"""The last of all that the server forgets by itself, when it has no room for new ones (pg_stat_statements.max)."""

RESET_OF_DATABASE = (1, 7)

COUNT_OF_DATABASE = """
SELECT pg_catalog.count(*) AS statements
  FROM {schema}.pg_stat_statements(false)
 WHERE dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""

COUNT_OF_SERVER = """
SELECT pg_catalog.count(*) AS statements
  FROM {schema}.pg_stat_statements(false)
"""

FEW_CALLS = 100
"""Calls of one statement that a busy server may have counted anew while dbvalet looks whether it was reset."""


class Extension(NamedTuple):
    """The extension as it was created in this database."""

    version: tuple[int, ...]
    schema: str
    """Quoted."""
    may_read: bool
    """Whether the account sees the statements of other roles."""

    def statement(self, by_version: Sequence[tuple[tuple[int, ...], str]], *, with_texts: bool = True) -> str:
        """Choose from a table by this version, and put the schema in."""
        return for_version(by_version, self.version).format(
            schema=self.schema, with_texts="true" if with_texts else "false"
        )


class StatementStatistics(TypedDict):
    """What PostgreSQL counted for one statement of one role; times are milliseconds of execution."""

    user_id: int
    query: str | None
    """With its constants replaced and passwords masked; null when the server cannot give the texts."""
    calls: int
    rows: int
    total_time: float
    min_time: float
    max_time: float
    mean_time: float
    std_dev: float


async def look_whether_enabled(server: PostgresServer) -> list[str]:
    """Tell whether there is the extension."""
    return [AS_ASKED] if await server.read(FIND_EXTENSION) else []


async def look_since_when(server: PostgresServer) -> list[str] | None:
    """Tell since when the statements of this database that ran most often are counted.

    None before PostgreSQL 17, which does not say it. The oldest count of all would tell less: it goes when somebody
    resets that one statement, or the server needs its room.
    """
    extension = await _find_extension(server)
    if extension.version < STATS_SINCE:
        return None
    return [str(row["counted"]) for row in await server.read(COUNTED_SINCE.format(schema=extension.schema))]


async def preview_enable(server: PostgresServer) -> Preview:
    """Tell what pg-stat-statements-enable would create.

    Raises: Precondition, PrivilegeMissing
    """
    if await _is_enabled(server):
        return preview_of("Leaves the extension pg_stat_statements as it is: it is there already.")
    await require_privileges(server, MAY_CREATE)
    return preview_of(
        "Creates the extension pg_stat_statements in the schema public.",
        [Affected(change=Change.CREATE, kind="extension", name="pg_stat_statements")],
    )


async def preview_reset(server: PostgresServer) -> Preview:
    """Tell what pg-stat-statements-reset would forget.

    Raises: Precondition, PrivilegeMissing
    """
    extension, _ = await _counted(server)
    await require_privileges(server, MAY_RESET)
    of_server = extension.version < RESET_OF_DATABASE
    statement = COUNT_OF_SERVER if of_server else COUNT_OF_DATABASE
    (row,) = await server.read(statement.format(schema=extension.schema))
    where = "the whole server" if of_server else f"the database {server.address.database}"
    return preview_of(
        f"Forgets what was counted for {row['statements']} statements of {where}.",
        [Affected(change=Change.REMOVE, kind="statistics", name="pg_stat_statements", rows=row["statements"])],
        keeps=["the extension pg_stat_statements", *([] if of_server else ["the statistics of other databases"])],
    )


@action(
    "pg-stat-statements-enable",
    effect=Effect.WRITE,
    privileges=(MAY_CREATE,),
    settings=(PRELOADED,),
    deadline=10.0,
    aftermath=Aftermath(look=look_whether_enabled, goal=Goal.THERE),
    preview=preview_enable,
)
async def enable_statements(server: PostgresServer) -> None:
    """Enable the collect of stats using the extension pg_stat_statements.

    Creates the extension in the deployment's database, in the schema `public`, unless it is there already. Its library
    has to be in `shared_preload_libraries`, which takes a restart; and as the extension is not a trusted one, only a
    superuser can create it: the script of `dbvalet grants postgresql` does.

    Raises: Precondition

    Source: https://www.postgresql.org/docs/current/pgstatstatements.html
    """
    if await _is_enabled(server):
        return
    try:
        await server.write(CREATE_EXTENSION)
    except (AlreadyExists, ConnectionLost):
        # Another session created it at the same moment; or the answer was lost: what counts is whether it is there.
        if await server.read(FIND_EXTENSION):
            return
        raise
    await require(server, CREATED)


@action(
    "pg-stat-statements-reset",
    effect=Effect.WRITE,
    privileges=(MAY_READ, MAY_RESET),
    settings=(PRELOADED, CREATED),
    deadline=10.0,
    aftermath=Aftermath(look=look_since_when, goal=Goal.FORGOTTEN),
    preview=preview_reset,
)
async def reset_statements(server: PostgresServer) -> None:
    """Reset stats collect.

    Forgets what was counted for statements of this database. Versions of the extension before 1.7 (PostgreSQL 11) can
    only forget what was counted for the whole server.

    Raises: Precondition, Conflict

    Source: https://www.postgresql.org/docs/current/pgstatstatements.html
    """
    extension, before = await _counted(server)
    try:
        await server.write(extension.statement(RESET_STATEMENTS))
    except ConnectionLost as lost:
        try:
            if await _most_calls(server, extension) < before:
                return
        except PrivilegeMissing:
            raise lost from None
        raise
    try:
        calls = await _most_calls(server, extension)
    except (EngineUnavailable, PrivilegeMissing) as blind:
        raise unseen(server, blind, MAY_READ) from blind
    if calls >= before > FEW_CALLS:
        raise Conflict("PostgreSQL did the reset, and the statistics are as before.")


@action(
    "pg-stat-statements-list",
    effect=Effect.READ,
    privileges=("pg_read_all_stats", MAY_READ),
    settings=(PRELOADED, CREATED),
    example_result=[
        {
            "user_id": 1000,
            "query": "SELECT * FROM users",
            "calls": 24512,
            "rows": 500,
            "total_time": 1837.1,
            "min_time": 0.2,
            "max_time": 3.5,
            "mean_time": 0.6,
            "std_dev": 0.1,
        }
    ],
)
async def list_statements(server: PostgresServer) -> list[StatementStatistics]:
    """List current stats.

    Statements of this database, those that took longest in all first. Times are milliseconds of execution, without
    planning. A statement that several roles ran, or that ran inside a function too, is there once for each. `query` is
    null where the server cannot give the texts: it lost their file, or one of any database is in no valid encoding.
    Passwords in it are masked: `[secret]` stands for them.

    Raises: Precondition

    Source: https://www.postgresql.org/docs/current/pgstatstatements.html
    """
    extension = await _find_extension(server)
    if not extension.may_read:
        raise PrivilegeMissing
    rows: list[Any]
    try:
        rows = await server.read(extension.statement(LIST_STATEMENTS))
    except UnreadableText:
        # The texts of all databases are converted before any row is left out: one that is not in the encoding of its
        # database (SQL_ASCII has any) fails them all.
        rows = await server.read(extension.statement(LIST_STATEMENTS, with_texts=False))
    # The privilege may be revoked since it was looked for.
    hidden = [row.pop("hidden") for row in rows]
    if any(hidden):
        raise PrivilegeMissing
    await mask_queries(rows)
    return rows


def for_version(by_version: Sequence[tuple[tuple[int, ...], str]], version: tuple[int, ...]) -> str:
    """Choose what holds from the newest version on that is not newer than this one."""
    return next((value for first, value in by_version if version >= first), by_version[-1][1])


async def _is_enabled(server: PostgresServer) -> bool:
    """Tell whether the extension is there already; if not, make sure that it can be.

    Raises: Precondition
    """
    if await server.read(FIND_EXTENSION):
        return True
    await require(server, PRELOADED)
    return False


async def _counted(server: PostgresServer) -> tuple[Extension, int]:
    """Find the extension, and how often the statement ran that ran most often.

    Raises: Precondition, PrivilegeMissing
    """
    extension = await _find_extension(server)
    return extension, await _most_calls(server, extension)


async def _find_extension(server: PostgresServer) -> Extension:
    """Find the extension in this database.

    Raises: Precondition
    """
    rows = await server.read(FIND_EXTENSION)
    if not rows or not rows[0]["preloaded"]:
        await require(server, PRELOADED, CREATED)
        rows = await server.read(FIND_EXTENSION)
    (row,) = rows
    version = tuple(int(part) for part in row["version"].split("."))
    return Extension(version, quote_identifier(row["schema"]), row["may_read"])


async def _most_calls(server: PostgresServer, extension: Extension) -> int:
    return (await server.read(MOST_CALLS.format(schema=extension.schema)))[0]["calls"]
