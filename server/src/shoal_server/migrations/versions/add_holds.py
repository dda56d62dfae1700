"""Add the hold that somebody at a device put on its updates."""

import sqlalchemy as sa
from alembic import op

revision = "4e9a1f6b2c83"
down_revision = "f9b52571fd53"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.add_column("devices", sa.Column("hold", sa.JSON(), nullable=True))
