"""What Alembic runs around every migration: our tables, and the connection that the caller opened."""

from importlib import import_module
from typing import Any, Literal

from alembic import context
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import AutoString


def _render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write SQLModel's text columns as what they are to the database."""
    return "sa.String()" if kind == "type" and isinstance(item, AutoString) else False


import_module("shoal_server.tables")  # all of them, to compare with
connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
    render_item=_render,
    compare_type=True,
    transactional_ddl=False,
)
context.run_migrations()
