"""Many rows in one statement, as fast as the driver can.

SQLAlchemy's own way binds each value of each row in Python, which took longer than storing them. Here rows go to the
driver's `executemany` as they are, so values must be what the driver stores: text, numbers, bytes, and JSON as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, SQLModel


def insert(
    session: Session, table: type[SQLModel], columns: Sequence[str], rows: Sequence[tuple[Any, ...]], *, conflict: str
) -> None:
    """Insert rows.

    Args:
        session: Of `Database.write()`.
        table: Where to.
        columns: Names of the table's columns, in the order of the rows' values. Never from outside.
        rows: Values.
        conflict: What follows ON CONFLICT: ``DO NOTHING``, or what `replacing` or `adding` give.
    """
    if not rows:
        return
    connection = session.connection()
    sign = "?" if connection.dialect.name == "sqlite" else "%s"
    values = ", ".join([sign] * len(columns))
    # Names come from the code, values go to the driver apart from the statement.
    statement = f"INSERT INTO {table.__tablename__} ({', '.join(columns)}) VALUES ({values}) ON CONFLICT {conflict}"  # noqa: S608
    connection.exec_driver_sql(statement, list(rows))


def replacing(key: Sequence[str], columns: Sequence[str]) -> str:
    """Return the conflict clause by which a row with the same key gets the new values."""
    return f"({', '.join(key)}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in columns)}"


def adding(table: type[SQLModel], key: Sequence[str], columns: Sequence[str]) -> str:
    """Return the conflict clause by which the new values are added to those of the row with the same key."""
    sums = ", ".join(f"{name} = {table.__tablename__}.{name} + excluded.{name}" for name in columns)
    return f"({', '.join(key)}) DO UPDATE SET {sums}"
