"""Add to blobs and manifests what garbage collection and quotas need, and deleted versions."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0b8c5e2f7d16"
down_revision = "e7c20d4f81ab"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    now = str(time.time())  # what is there already counts as just pushed
    op.create_table(
        "deleted_versions",
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("counter", sa.Integer(), nullable=False),
        sa.Column("deleted_at", sa.Float(), nullable=False),
        sa.Column("deleted_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("model", "version", name=op.f("pk_deleted_versions")),
    )
    op.add_column("oci_blobs", sa.Column("size", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("oci_blobs", sa.Column("touched_at", sa.Float(), nullable=False, server_default=now))
    op.create_index("ix_oci_blobs_digest", "oci_blobs", ["digest"], unique=False)
    op.add_column("oci_manifests", sa.Column("blobs", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("oci_manifests", sa.Column("manifests", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("oci_manifests", sa.Column("touched_at", sa.Float(), nullable=False, server_default=now))
