"""The spool's file: its tables, opening it, and telling a damaged one from a disk that takes none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from shoal_agent.errors import SpoolError

CACHE_KB = 256
"""Pages in memory: with its 2,000 the check of a spool of weeks, which reads each page once, keeps 1.8 MB."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT, size INTEGER NOT NULL, body BLOB NOT NULL,
    stream TEXT, start_ms INTEGER, length_ms INTEGER, counted INTEGER
);
CREATE TABLE IF NOT EXISTS recorded (key TEXT PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

_DAMAGED = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH})
"""What SQLite says of a file that is no spool; SQLITE_ERROR: its tables are others than expected."""


def open_file(path: Path) -> sqlite3.Connection:
    """Open or make the file.

    Raises:
        SpoolError: It is damaged, or the disk does not take it.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA cache_size=-{CACHE_KB}")
            connection.executescript(_SCHEMA)
            _add_columns(connection)
            fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if fault != "ok":
                raise sqlite3.DatabaseError(str(fault))
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise SpoolError(f"the spool can't be opened: {error}", hint="is the disk full or read-only?") from error
    return connection


def _add_columns(connection: sqlite3.Connection) -> None:
    """Give a file of an earlier version the columns that windows are merged by; its windows are never merged."""
    known = {row[1] for row in connection.execute("PRAGMA table_info(items)")}
    for name, kind in (("stream", "TEXT"), ("start_ms", "INTEGER"), ("length_ms", "INTEGER"), ("counted", "INTEGER")):
        if name not in known:
            connection.execute(f"ALTER TABLE items ADD COLUMN {name} {kind}")


def is_damage(error: BaseException | None) -> bool:
    """Tell a file that is no spool from a disk that does not take one; the check's own finding has no code."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or (code & 0xFF) in _DAMAGED


def put_aside(path: Path) -> None:
    """Rename a file that can't be used, so that the next start makes a new one.

    Raises:
        OSError: The disk is read-only or failing.
    """
    for suffix in ("", "-wal", "-shm"):
        damaged = path.with_name(path.name + suffix)
        if damaged.exists():
            damaged.replace(path.with_name(f"{path.name}.damaged{suffix}"))
