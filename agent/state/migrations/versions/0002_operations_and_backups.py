"""Settings of databases, operations, backups, their schedule, timelines and markers."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables of what outlives a request."""
    op.create_table(
        "database_settings",
        sa.Column("database_id", sa.Text, primary_key=True),
        sa.Column("periodic_backups_enabled", sa.Boolean, nullable=False),
        sa.Column("periodic_backups_scheduled_at", sa.Text, nullable=False),
        sa.Column("scheduled_since", INSTANT),
        sa.Column("maintenance_weekday_utc", sa.Integer),
        sa.Column("maintenance_starting_hour_utc", sa.Integer),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("database_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("progress", sa.Integer, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("params", sa.Text, nullable=False),
        sa.Column("notes", sa.Text, nullable=False),
        sa.Column("started_by", sa.Text, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT),
        sa.Column("owner", sa.Text),
        sa.Column("heartbeat", sa.BigInteger, nullable=False),
        sa.Column("clean_up_due", sa.Boolean, nullable=False),
    )
    op.create_index(
        "one_open_operation",
        "operations",
        ["database_id"],
        unique=True,
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index("operations_of_a_database", "operations", ["database_id", "created_at"])
    op.create_table(
        "backups",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("database_id", sa.Text, nullable=False),
        sa.Column("operation_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT),
        sa.Column("size", sa.BigInteger),
        sa.Column("sha256", sa.Text),
        sa.Column("manifest", sa.Text),
    )
    op.create_index("backups_of_a_database", "backups", ["database_id", "created_at"])
    op.create_table(
        "schedule_slots",
        sa.Column("database_id", sa.Text, primary_key=True),
        sa.Column("slot", INSTANT, primary_key=True),
        sa.Column("operation_id", sa.Text, nullable=False),
    )
    op.create_table(
        "timelines",
        sa.Column("database_id", sa.Text, primary_key=True),
        sa.Column("system_identifier", sa.Text, primary_key=True),
        sa.Column("timeline", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("parent", sa.Integer),
        sa.Column("forked_at_lsn", sa.Text),
        sa.Column("began_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT),
    )
    op.create_table(
        "markers",
        sa.Column("database_id", sa.Text, primary_key=True),
        sa.Column("committed_at", INSTANT, primary_key=True),
        sa.Column("timeline", sa.Integer, nullable=False),
        sa.Column("lsn", sa.Text, nullable=False),
        sa.Column("archived", sa.Boolean, nullable=False),
    )
