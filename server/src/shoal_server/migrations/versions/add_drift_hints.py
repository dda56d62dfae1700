"""Add to each alarm of drift what its values suggest."""

import sqlalchemy as sa
from alembic import op

revision = "e7c20d4f81ab"
down_revision = "5a1f40c7d2e9"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.add_column("drift_alarms", sa.Column("hint", sa.String(), nullable=False, server_default=""))
