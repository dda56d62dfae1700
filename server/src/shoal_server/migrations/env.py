"""What Alembic runs around every migration: our tables, and the connection that the caller opened."""

from alembic import context
from sqlmodel import SQLModel

import shoal_server.tables  # noqa: F401 - all tables must be known before they are compared

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
    compare_type=True,
    transactional_ddl=False,
)
context.run_migrations()
