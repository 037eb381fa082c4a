"""Backups of other logical databases than the deployment's own, made before they are destroyed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; what is there is of the deployment's own."""
    op.add_column("backups", sa.Column("logical_database", sa.Text))
