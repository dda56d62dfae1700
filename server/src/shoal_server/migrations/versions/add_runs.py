"""Keep which runs of its agent a device spoke by, to tell two machines of one identity."""

import sqlalchemy as sa
from alembic import op

revision = "c27b50e91d6f"
down_revision = "4c9f1e7ab203"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.add_column("devices", sa.Column("runs", sa.JSON(), nullable=False, server_default="[]"))
