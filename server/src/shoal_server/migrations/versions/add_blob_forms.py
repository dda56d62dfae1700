"""Add coded forms of blobs."""

import sqlalchemy as sa
from alembic import op

revision = "3f9a6c1e8b27"
down_revision = "7d3e91b0c5a4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.create_table(
        "blob_forms",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("base", sa.String(), nullable=False),
        sa.Column("form", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("made_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "base", name=op.f("pk_blob_forms")),
    )
    op.create_index(op.f("ix_blob_forms_form"), "blob_forms", ["form"], unique=False)
