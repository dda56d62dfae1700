"""Number devices' credentials, and keep the next ones until they are used; keep the key of challenges."""

import sqlalchemy as sa
from alembic import op

revision = "4c9f1e7ab203"
down_revision = "4e9a1f6b2c83"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.create_table(
        "server_keys",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_server_keys")),
    )
    op.add_column("devices", sa.Column("credential", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("devices", sa.Column("credential_at", sa.Float(), nullable=False, server_default="0"))
    op.add_column("devices", sa.Column("next_verifier", sa.String(), nullable=False, server_default=""))
    op.add_column("devices", sa.Column("next_public_key", sa.String(), nullable=False, server_default=""))
    op.add_column("devices", sa.Column("proved_at_ms", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE devices SET credential_at = enrolled_at")
    op.add_column("desired", sa.Column("credential", sa.Integer(), nullable=False, server_default="0"))
