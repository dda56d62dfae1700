"""One server works on a database at a time: the lease that says which.

Several servers on one database would each publish to devices that are connected to the other, forget who is online at
the other's start, and sign with keys of their own. So a server takes a lease before it changes anything, and ends when
it has lost it to another.

On PostgreSQL the lease is an advisory lock of the session of one connection, which ends with the process, whatever
ended that; where its machine vanished, PostgreSQL notices by keep-alives within half a minute. On SQLite it is a lock
on a file beside the database. Commands beside a running server (`shoal-server gc`, `admin`) need none.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import Connection, NullPool, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from shoal_server.errors import StartError
from shoal_server.storage.database import Database

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "shoal-server"
_TRY = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
_HOLDER = text(
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND a.application_name LIKE :name"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_KEEP_ALIVE = ("SET tcp_keepalives_idle = 10", "SET tcp_keepalives_interval = 5", "SET tcp_keepalives_count = 3")
_log = logging.getLogger(__name__)


class DatabaseLease(Protocol):
    """The right to be the server of a database."""

    @property
    def lost(self) -> str:
        """Return why this server must end: another one has the lease; empty: none has."""

    def take(self) -> None:
        """Become the database's server.

        Raises:
            StartError: Another server is.
        """

    def keep(self) -> None:
        """Look whether the lease is still held, and take it again where it was let go of; called now and then."""

    def release(self) -> None:
        """Let another server in."""


def lease_of(database: Database) -> DatabaseLease:
    """Return the lease of a database, not taken yet."""
    if database.dialect == "sqlite":
        return FileLease(make_url(database.url).database or "")
    return SessionLease(database.url)


class FileLease:
    """The lease of a SQLite file.

    Args:
        path: Of the database; the lock is on a file of its own, since SQLite's locks don't bear another hand on theirs.
    """

    lost = ""

    def __init__(self, path: str | Path) -> None:
        self._path = f"{path}.lock"
        self._descriptor: int | None = None

    def take(self) -> None:
        """Lock the file.

        Raises:
            StartError: Another server has it locked, or it can't be made.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StartError(f"the lock beside the database can't be made: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise _taken(f"{self._path} is locked") from error
        self._descriptor = descriptor

    def keep(self) -> None:
        """Do nothing: the system takes no lock away from a process that lives."""

    def release(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class SessionLease:
    """The lease of a PostgreSQL database, held by one connection.

    Args:
        url: Of the database.
        holder: What this server is called; others are told it.
    """

    def __init__(self, url: str, *, holder: str = "") -> None:
        self.lost = ""
        told = holder or f"{socket.gethostname()}, process {os.getpid()}"
        name = f"{_NAME} {told}".encode()[:63].decode(errors="ignore")  # longer ones PostgreSQL cuts
        connect = {"application_name": name, "connect_timeout": 5}
        self._engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=connect)
        self._connection: Connection | None = None

    def take(self) -> None:
        """Lock.

        Raises:
            StartError: Another server has the lock.
        """
        holder = self._try()
        if holder is not None:
            raise _taken(f"the lease is held by {holder}" if holder else "the lease is held")

    def keep(self) -> None:
        """Ask the connection for a sign of life; where it has ended, take the lock by a new one.

        Raises:
            DBAPIError: The database is away; that is told by others, too.
        """
        if self._connection is not None:
            try:
                self._connection.execute(text("SELECT 1"))
            except DBAPIError as error:
                _log.warning("the connection that holds the lease has ended: %s", error)
                self.release()
            else:
                return
        if (holder := self._try()) is not None:
            self.lost = f"another server works on this database now: {holder or 'it has taken the lease'}"
            _log.critical("%s; this one ends", self.lost)

    def release(self) -> None:
        """End the connection, and with it the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _try(self) -> str | None:
        """Take the lock; none when that worked, else who has it."""
        with ExitStack() as stack:
            connection = stack.enter_context(self._engine.connect())
            for setting in _KEEP_ALIVE:
                connection.execute(text(setting))
            if connection.execute(_TRY, {"name": _NAME}).scalar_one():
                self._connection = connection
                stack.pop_all()  # it stays open
                return None
            return str(connection.execute(_HOLDER, {"name": f"{_NAME} %"}).scalar() or "").removeprefix(f"{_NAME} ")


def _taken(how: str) -> StartError:
    return StartError(
        f"another server works on this database ({how})",
        hint="one server at a time: stop the other, or choose another --database",
    )
