"""Add to versions why they are deprecated."""

import sqlalchemy as sa
from alembic import op

revision = "88841d975152"
down_revision = "c27b50e91d6f"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.add_column("model_versions", sa.Column("deprecated", sa.String(), nullable=False, server_default=""))
