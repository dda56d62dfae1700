"""Add batches of sampled raw rows."""

import sqlalchemy as sa
from alembic import op

revision = "7d3e91b0c5a4"
down_revision = "0b8c5e2f7d16"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.create_table(
        "sample_batches",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("batch", sa.String(), nullable=False),
        sa.Column("slot", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sample_batches")),
        sa.UniqueConstraint("device", "batch", name=op.f("uq_sample_batches_device_batch")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_sample_batches_slot_id"), "sample_batches", ["slot", "id"], unique=False)
    op.create_index(
        op.f("ix_sample_batches_device_received_at"), "sample_batches", ["device", "received_at"], unique=False
    )
