"""The tables of the state, as the newest migration leaves them. A change here needs a migration beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Boolean, Column, DateTime, Index, Integer, MetaData, Table, Text, TypeDecorator, text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import BigInteger


class Instant(TypeDecorator[datetime]):
    """A time with an offset; SQLite, which has no such type, keeps it as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Write UTC."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Read UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

memory = Table(
    "memory",
    metadata,
    Column("database_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""A few JSON values by database: the `Memory` of its server. The database `""` is dbvalet itself."""

database_settings = Table(
    "database_settings",
    metadata,
    Column("database_id", Text, primary_key=True),
    Column("periodic_backups_enabled", Boolean, nullable=False),
    Column("periodic_backups_scheduled_at", Text, nullable=False),
    Column("scheduled_since", Instant),
    Column("maintenance_weekday_utc", Integer),
    Column("maintenance_starting_hour_utc", Integer),
)
"""What clients have set. The hours are a JSON list; slots before `scheduled_since` were never asked for."""

operations = Table(
    "operations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("database_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("progress", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("error", Text),
    Column("params", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("started_by", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("owner", Text),
    Column("heartbeat", BigInteger, nullable=False),
    Column("clean_up_due", Boolean, nullable=False),
)
"""Work that outlives its request. `params` is a JSON object, `notes` a JSON list of texts. An open operation has no
`finished_at`; `owner` is the dbvalet that works on it and counts `heartbeat` up."""

Index(
    "one_open_operation",
    operations.c.database_id,
    unique=True,
    # On PostgreSQL too, by its migration; said here, it would import all that SQLAlchemy has for that: 2 MiB.
    sqlite_where=text("finished_at IS NULL"),
)
Index("operations_of_a_database", operations.c.database_id, operations.c.created_at)

backups = Table(
    "backups",
    metadata,
    Column("id", Text, primary_key=True),
    Column("database_id", Text, nullable=False),
    Column("operation_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("size", BigInteger),
    Column("sha256", Text),
    Column("manifest", Text),
    Column("logical_database", Text),
)
"""`logical_database` is null for the deployment's own. `size` and `sha256` are those of the archive, `manifest` is the
JSON that stands in it: a backup that has them is done, and what became of another one its operation tells."""

Index("backups_of_a_database", backups.c.database_id, backups.c.created_at)

schedule_slots = Table(
    "schedule_slots",
    metadata,
    Column("database_id", Text, primary_key=True),
    Column("slot", Instant, primary_key=True),
    Column("operation_id", Text, nullable=False),
)
"""The hours at which a periodic backup was begun: of several dbvalets one gets the row."""

timelines = Table(
    "timelines",
    metadata,
    Column("database_id", Text, primary_key=True),
    Column("system_identifier", Text, primary_key=True),
    Column("timeline", Integer, primary_key=True, autoincrement=False),
    Column("parent", Integer),
    Column("forked_at_lsn", Text),
    Column("began_at", Instant, nullable=False),
    Column("ended_at", Instant),
)
"""Which timeline of a PostgreSQL cluster was live when; the server itself forgets it."""

markers = Table(
    "markers",
    metadata,
    Column("database_id", Text, primary_key=True),
    Column("committed_at", Instant, primary_key=True),
    Column("timeline", Integer, nullable=False),
    Column("lsn", Text, nullable=False),
    Column("archived", Boolean, nullable=False),
)
"""Commits that dbvalet made itself, so that an instant of an idle database can be recovered."""

audit = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("database_id", Text),
    Column("line", Text, nullable=False),
    Column("digest", Text, nullable=False),
)
"""The audit: `line` is a JSON object, which names its sequence and the digest of the line before, and `digest` is its
SHA-256. Nothing here is ever changed or removed."""

Index("audit_of_a_database", audit.c.database_id, audit.c.sequence)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
)
"""One row: the last line of the audit. Whoever adds a line locks it, so that the chain has one end."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("who", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("begun_at", Instant, nullable=False),
    Column("before", Text),
    Column("answer", Text),
)
"""What was asked for under a key of a token. Without an `answer` (JSON) it runs, or what became of it is not known;
`before` (JSON) is what the action was about, as the engine had it then: see `engines.aftermath`. Where backups were
made first it is an object, `{"before": …, "saved": […]}`: see `agent.backups.named`."""

Index("keys_by_age", idempotency_keys.c.begun_at)
