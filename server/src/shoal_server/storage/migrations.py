"""Bringing a database to the newest schema, and seeing whether tables and migrations still agree.

Owns the calls into Alembic. The migrations are in `shoal_server.migrations`, inside the wheel. A new one is written by
`python -m shoal_server.storage.migrations "Add what is added."`.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, text
from sqlmodel import SQLModel

_ONE_UPGRADE = 0x5368_6F61_6C00  # any number that no other program would lock in this database


def upgrade(engine: Engine) -> None:
    """Run the missing migrations in one transaction, alone."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_UPGRADE})
        command.upgrade(_config(connection), "head")


def differences(connection: Connection) -> list[Any]:
    """Tell what an upgraded database lacks or has beyond the tables in the code; empty when they agree."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, SQLModel.metadata))


def write_revision(message: str) -> None:
    """Write the migration from the newest one to the tables in the code."""
    from shoal_server.storage.database import Database  # noqa: PLC0415 - database imports this module, lazily too

    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/empty.db")
        database.upgrade()
        with database.connection() as connection:
            command.revision(_config(connection), message=message, autogenerate=True)
        database.close()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(slug)s_%%(rev)s")
    config.attributes["connection"] = connection
    return config


if __name__ == "__main__":
    write_revision(sys.argv[1])
