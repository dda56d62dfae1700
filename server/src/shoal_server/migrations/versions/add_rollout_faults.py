"""Add to the devices of rollouts why they failed."""

import sqlalchemy as sa
from alembic import op

revision = "f9b52571fd53"
down_revision = "b3f08c6d2a71"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.add_column("rollout_members", sa.Column("fault", sa.String(), nullable=False, server_default=""))
