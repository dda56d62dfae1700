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
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlmodel import SQLModel

from shoal_server.errors import StartError

_ONE_UPGRADE = 0x5368_6F61_6C00  # any number that no other program would lock in this database


def upgrade(engine: Engine) -> None:
    """Run the missing migrations in one transaction, alone.

    Raises:
        StartError: A newer program has brought the schema further than this one knows.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_UPGRADE})
        config = _config(connection)
        _check_known(connection, config)
        command.upgrade(config, "head")


def _check_known(connection: Connection, config: Config) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    unknown = set(MigrationContext.configure(connection).get_current_heads()) - known
    if unknown:
        raise StartError(
            f"the database is of a newer Shoal than this one: it has the schema {', '.join(sorted(unknown))}",
            hint="install that version again, or restore the backup from before the upgrade",
        )


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
