"""Keep beside each watched stream its name for people."""

import sqlalchemy as sa
from alembic import op

revision = "b3f08c6d2a71"
down_revision = "7d3e91b0c5a4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.add_column("drift_monitors", sa.Column("titles", sa.JSON(), nullable=False, server_default="[]"))
