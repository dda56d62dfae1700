"""Add to the devices of rollouts why they failed."""

import sqlalchemy as sa
from alembic import op

revision = "3f9a6c1e8b27"
down_revision = "7d3e91b0c5a4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.add_column("rollout_members", sa.Column("fault", sa.String(), nullable=False, server_default=""))
