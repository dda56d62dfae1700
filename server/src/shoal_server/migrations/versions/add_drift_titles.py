"""Keep beside each watched stream its name for people."""

import sqlalchemy as sa
from alembic import op

revision = "b3f08c6d2a71"
down_revision = "3f9a6c1e8b27"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.add_column("drift_monitors", sa.Column("titles", sa.JSON(), nullable=False, server_default="[]"))
