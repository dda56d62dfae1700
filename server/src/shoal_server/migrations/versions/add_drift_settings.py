"""Add to each monitor of drift its season, its rate of false alarms and its devices."""

import sqlalchemy as sa
from alembic import op

revision = "d1a7e3b95c42"
down_revision = "c6f098218b30"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.add_column("drift_monitors", sa.Column("devices", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("drift_monitors", sa.Column("season", sa.String(), nullable=False, server_default="none"))
    op.add_column(
        "drift_monitors",
        sa.Column("mean_time_to_false_alarm", sa.Float(), nullable=False, server_default="10000"),
    )
