"""Add shadow hours and their counts, for shadow models."""

import sqlalchemy as sa
from alembic import op

revision = "5a1f40c7d2e9"
down_revision = "d1a7e3b95c42"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.create_table(
        "shadow_hours",
        sa.Column("slot", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("shadow", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("hour_ms", sa.BigInteger(), nullable=False),
        sa.Column("compared", sa.BigInteger(), nullable=False),
        sa.Column("agreed", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("difference", sa.Float(), nullable=False),
        sa.Column("absolute", sa.Float(), nullable=False),
        sa.Column("square", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("slot", "digest", "shadow", "device", "hour_ms", name=op.f("pk_shadow_hours")),
    )
    op.create_index(op.f("ix_shadow_hours_slot_hour_ms"), "shadow_hours", ["slot", "hour_ms"], unique=False)
    op.create_table(
        "shadow_cells",
        sa.Column("slot", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("shadow", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("hour_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("first", sa.String(), nullable=False),
        sa.Column("second", sa.String(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "slot", "digest", "shadow", "device", "hour_ms", "kind", "first", "second", name=op.f("pk_shadow_cells")
        ),
    )
    op.create_index(op.f("ix_shadow_cells_slot_hour_ms"), "shadow_cells", ["slot", "hour_ms"], unique=False)
