"""PostgreSQL 12 and later."""

from engines.engine import Engine
from engines.postgresql.grants import grants
from engines.postgresql.requirements import REQUIREMENTS
from engines.versions import Versions

ENGINE = Engine(
    name="postgresql",
    title="PostgreSQL",
    schemes=("postgresql", "postgres"),
    default_port=5432,
    package="engines.postgresql",
    server="engines.postgresql.server:PostgresServer",
    requirements=REQUIREMENTS,
    grants=grants,
    backups="engines.postgresql.backup:PostgresBackups",
    health="engines.postgresql.health:PostgresHealth",
    versions={"postgresql": Versions(oldest=(12,))},
    users="engines.postgresql.users:PostgresUsers",
    recovery="engines.postgresql.recovery.server:PostgresRecovery",
)

__all__ = ["ENGINE"]
