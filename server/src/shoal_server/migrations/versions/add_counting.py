"""Add what is counted beyond bundles: documents, contracts at the server, first rows, and what was learnt of them."""

import sqlalchemy as sa
from alembic import op

revision = "6c1d9e40a7b3"
down_revision = "88841d975152"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.create_table(
        "countings",
        sa.Column("bundle", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("bundle", name=op.f("pk_countings")),
    )
    op.create_index(op.f("ix_countings_digest"), "countings", ["digest"])
    op.create_table(
        "model_contracts",
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.Column("set_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_model_contracts")),
    )
    op.create_table(
        "drift_sketches",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("columns", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "device", name=op.f("pk_drift_sketches")),
    )
    op.create_table(
        "learnt_references",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.Column("learnt_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_learnt_references")),
    )
