"""The one door to the database: short read and write transactions over SQLite or PostgreSQL.

Owns engines, pragmas, transaction boundaries and the call that brings the schema up to date. Leaves tables and
queries to the rooms' `store.py` modules, which take a `Session` first and never open one themselves.

Invariants:
    - A write is one transaction: all of it is committed at the end of the `with` block, or none of it.
    - On SQLite there is one writer at a time (a lock in the process, BEGIN IMMEDIATE between processes), the journal
      is a WAL and a commit has reached the disk when `write()` returns (synchronous=FULL).
    - `read()` can't change anything: the database itself refuses.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlmodel import Session, SQLModel

from shoal_server.errors import StartError

Clock: TypeAlias = Callable[[], float]
"""Seconds since the epoch, UTC. Every part of the server that needs the time is given one."""

SCHEMA_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Names of constraints, so that a migration can find them again on both databases."""

# Set once at import, before any room defines a table: a name can't be given to a constraint afterwards.
SQLModel.metadata.naming_convention = SCHEMA_NAMES

_BUSY_TIMEOUT_MS = 30_000
_WRITES = "shoal_writes"


class Database:
    """Engines and transactions for one database URL.

    Args:
        url: `sqlite:///PATH` or `postgresql://…` (psycopg 3 is used whatever driver the URL names or leaves out).

    Raises:
        StartError: The URL names no such database, or what speaks to it is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = _with_driver(url)
        self._engine = _engine(self.url)
        self._reader = self._engine.execution_options(**_reading(self._engine))
        self._writer = self._engine.execution_options(**{_WRITES: True})
        self._lock = threading.Lock()
        self._writing_thread: int | None = None

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a snapshot of the database that can't be written through.

        Yields:
            A session; objects loaded in it stay readable after the block.
        """
        with Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open the one write transaction: committed when the block ends, rolled back when it raises.

        Yields:
            A session; objects loaded in it stay readable after the block.

        Raises:
            RuntimeError: when this thread is already inside a `write()`: two transactions would wait for each other.
        """
        with self._one_writer(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        if self.dialect != "sqlite":
            yield
            return
        if self._writing_thread == threading.get_ident():
            raise RuntimeError("write() inside write(): pass the open session on instead")
        with self._lock:
            self._writing_thread = threading.get_ident()
            try:
                yield
            finally:
                self._writing_thread = None

    def reach(self) -> None:
        """Ask the database the smallest question.

        Raises:
            StartError: It can't be reached; says why.
        """
        try:
            self.check()
        except SQLAlchemyError as error:
            why = str(error.__cause__ or error).strip().splitlines()[0]
            place = make_url(self.url).render_as_string(hide_password=True)
            raise StartError(
                f"the database {place} can't be used: {why}",
                hint="is it running, and are address, name, user and password right? `shoal-server doctor` asks it too",
            ) from error

    def upgrade(self) -> None:
        """Bring the schema to the newest migration; waits while another process does the same."""
        from shoal_server.storage.migrations import upgrade  # noqa: PLC0415 - alembic costs 60 ms that a test of a room needn't pay

        upgrade(self._writer)

    def create_all(self) -> None:
        """Make every table that is imported by now, without migrations. For tests only."""
        with self._writer.begin() as connection:
            SQLModel.metadata.create_all(connection)

    def check(self) -> None:
        """Ask the database the smallest question; raises SQLAlchemy's error when it can't answer."""
        with self._reader.connect() as connection:
            connection.execute(text("SELECT 1")).scalar_one()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Open a bare write transaction, for schema comparison and maintenance."""
        with self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all pooled connections, and those still in use as they come back; not to be used afterwards."""
        event.listen(self._engine, "checkin", lambda connection, _record: connection.close())
        self._engine.dispose()


def insert_ignore(session: Session, table: type[SQLModel], values: Mapping[str, Any]) -> bool:
    """Insert one row unless a row with the same key is there (ON CONFLICT DO NOTHING).

    Args:
        session: a session of `Database.write()`.
        table: the SQLModel table class.
        values: column values by attribute name; defaults of the table fill the rest.

    Returns:
        True when the row was inserted, False when it was there already.
    """
    target = table.__table__  # type: ignore[attr-defined]  # SQLModel sets it on table classes only
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    key = next(iter(target.primary_key.columns))
    statement = insert(target).values(**values).on_conflict_do_nothing().returning(key)
    return session.execute(statement).first() is not None


def lock_for_transaction(session: Session, name: str) -> None:
    """Make this transaction the only one that holds `name` until it ends.

    SQLite has one writer anyway, so only PostgreSQL is asked (an advisory lock).
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})


def _reading(engine: Engine) -> dict[str, Any]:
    if engine.dialect.name == "sqlite":
        return {_WRITES: False}
    return {_WRITES: False, "postgresql_readonly": True, "isolation_level": "REPEATABLE READ"}


def _with_driver(url: str) -> str:
    form = "expected sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise StartError(f"the database's address can't be read ({error}): {form}") from error
    backend = parsed.get_backend_name()
    if backend in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    elif backend != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise StartError(f"{form}, got {url.split('://', 1)[0]}://…")
    return parsed.render_as_string(hide_password=False)


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        try:
            return create_engine(url, pool_size=10, max_overflow=20, pool_pre_ping=True)
        except ImportError as error:
            raise StartError("PostgreSQL needs the package psycopg", hint="pip install 'psycopg[binary]'") from error
    Path(parsed.database or "").parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        pool_size=10,
        max_overflow=40,
        connect_args={"check_same_thread": False, "timeout": _BUSY_TIMEOUT_MS / 1000},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Hand transaction control to us and set what holds per connection."""
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY_TIMEOUT_MS}"):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql(f"PRAGMA query_only={'OFF' if writes else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
