"""Migrations and tables say the same, on both databases."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import SQLModel

import shoal_server.tables
from shoal_server.errors import StartError
from shoal_server.storage.database import Database
from shoal_server.storage.migrations import differences


def test_every_table_of_the_source_is_known() -> None:
    source = Path(shoal_server.tables.__file__).parent
    defined = sum(path.read_text().count("SQLModel, table=True)") for path in source.rglob("*.py"))
    assert len(SQLModel.metadata.tables) == defined > 10


def test_an_upgraded_database_has_exactly_the_tables_of_the_code(database_url: str) -> None:
    database = Database(database_url)
    database.upgrade()
    with database.connection() as connection:
        found = differences(connection)
    assert found == [], 'write the missing migration: python -m shoal_server.storage.migrations "What it adds."'
    database.close()


def test_upgrading_again_changes_nothing(database_url: str) -> None:
    database = Database(database_url)
    versions = []
    for _ in range(2):
        database.upgrade()
        with database.connection() as connection:
            versions.append(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    assert versions[0] == versions[1]
    database.close()


def test_a_database_of_a_newer_program_is_left_alone(database_url: str) -> None:
    database = Database(database_url)
    database.upgrade()
    with database.connection() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'fromthefuture'"))
    with pytest.raises(StartError, match="newer Shoal") as caught:
        database.upgrade()
    database.close()
    assert "backup" in caught.value.hint
