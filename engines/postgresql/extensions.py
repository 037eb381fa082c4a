"""Extensions of the deployment's database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from engines.action import Effect, action

if TYPE_CHECKING:
    from engines.postgresql.server import PostgresServer

LIST_EXTENSIONS = """
SELECT extname AS name,
       pg_catalog.concat('v', extversion) AS version
  FROM pg_catalog.pg_extension
 ORDER BY extname
"""


class Extension(TypedDict):
    """An extension that was created in the database."""

    name: str
    version: str
    """As its script is numbered, with a `v` before it."""


@action(
    "list-extensions",
    effect=Effect.READ,
    example_result=[{"name": "plpgsql", "version": "v1.0"}, {"name": "postgis", "version": "v2.5.0"}],
)
async def list_extensions(server: PostgresServer) -> list[Extension]:
    """List enabled PostgreSQL extensions and their version.

    Those created in the deployment's own database, by name; an extension that the server could create is not listed.

    Source: https://www.postgresql.org/docs/current/catalog-pg-extension.html
    """
    rows: list[Any] = await server.read(LIST_EXTENSIONS)
    return rows
