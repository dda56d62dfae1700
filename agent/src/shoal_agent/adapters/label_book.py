"""The label book: counts of labels on disk until a window's message has taken them to the spool.

One SQLite file (WAL, synchronous=FULL), which also holds the key of this device's prediction ids, the models that ids
name, and the marks of labels that were counted, so that a doubled one isn't. All of it is bounded; where the disk takes
nothing the book is in memory.

Invariant: a count is in the book or in the spool, never in both. The two files have no common transaction, so counts
are first marked as taken, and deleted once the message that takes them is stored. Where that is not known, as after the
power was cut in between, the spool is asked whether it ever stored the message of that mark.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shoal_agent.adapters.spool_file import CACHE_KB, put_aside
from shoal_agent.errors import LabelBookError
from shoal_agent.ports import LabelCount
from shoal_protocol.profile.labels import ErrorSums, LabelGroup

MAX_SEEN = 100_000
"""Marks of counted labels that are kept: a label doubled after so many others counts twice."""

MAX_WAITING = 50_000
"""Counts that wait for the server."""

MAX_MODELS = 200
MAX_TAKEN = 1000
"""Counts that one message takes: about 12 KB."""

_log = logging.getLogger(__name__)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS models (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, slot TEXT NOT NULL, digest TEXT NOT NULL,
    form BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS seen (id INTEGER PRIMARY KEY AUTOINCREMENT, mark BLOB NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS counts (
    seq INTEGER NOT NULL, model BLOB NOT NULL, start_ms INTEGER NOT NULL, length_ms INTEGER NOT NULL,
    truth INTEGER NOT NULL, said INTEGER NOT NULL, bin INTEGER NOT NULL, n INTEGER NOT NULL,
    error REAL, absolute REAL, square REAL, value REAL, value_square REAL,
    PRIMARY KEY (seq, model, start_ms, length_ms, truth, said, bin)
) WITHOUT ROWID;
"""
_ADD = """
INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n, error = error + excluded.error, absolute = absolute + excluded.absolute,
    square = square + excluded.square, value = value + excluded.value,
    value_square = value_square + excluded.value_square
"""
_NO_SUMS = (None,) * 5


class SqliteLabelBook:
    """The label book in a SQLite file.

    Args:
        path: Of the file; ``:memory:`` keeps it in memory.

    Raises:
        LabelBookError: The disk does not take it.
    """

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.Lock()
        self._connection = _open(path)
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO facts VALUES ('key', ?)", (secrets.token_bytes(32),))
            self.key = bytes(db.execute("SELECT value FROM facts WHERE name = 'key'").fetchone()[0])
            self._waiting = _waiting(db)

    @property
    def waiting(self) -> int:
        """Counts that no message has taken yet."""
        return self._waiting

    def register(self, model: bytes, *, slot: str, digest: str, form: bytes) -> None:
        """Remember a model that ids name; of many the newest. One that is far from being forgotten writes nothing."""
        with self._reading() as db:
            known = db.execute(
                "SELECT slot, digest, form FROM models WHERE key = ? AND id > (SELECT max(id) FROM models) - ?",
                (model, MAX_MODELS // 2),
            ).fetchone()
        if known == (slot, digest, form):
            return
        with self._transaction() as db:
            db.execute("DELETE FROM models WHERE key = ?", (model,))
            db.execute("INSERT INTO models (key, slot, digest, form) VALUES (?, ?, ?, ?)", (model, slot, digest, form))
            db.execute("DELETE FROM models WHERE id <= (SELECT max(id) FROM models) - ?", (MAX_MODELS,))

    def form(self, model: bytes) -> bytes | None:
        """Return how a model's answers are kept in ids; none: the model is not known any more."""
        with self._reading() as db:
            row = db.execute("SELECT form FROM models WHERE key = ?", (model,)).fetchone()
        return None if row is None else bytes(row[0])

    def count(self, labels: Sequence[LabelCount]) -> int:
        """Count labels, each mark once; returns how many were new.

        Raises:
            LabelBookError: The disk does not take them, or too many wait; none was counted.
        """
        if self._waiting >= MAX_WAITING:
            raise LabelBookError(
                f"{self._waiting} counts of labels wait for the server: no more are taken until it was reached"
            )
        with self._transaction() as db:
            new = [label for label in labels if _is_new(db, label.mark)]
            db.executemany(_ADD, [_row(label) for label in new])
            db.execute("DELETE FROM seen WHERE id <= (SELECT max(id) FROM seen) - ?", (MAX_SEEN,))
            self._waiting = _waiting(db)
        return len(new)

    def take(self, mark: int) -> tuple[LabelGroup, ...]:
        """Mark the oldest counts as taken by one message; return them by model and window.

        Args:
            mark: Of the message, above 0, and of no other one ever: its number won't do, since one that could not be
                stored leaves its number to the next.
        """
        with self._transaction() as db:
            rows = db.execute(
                "SELECT model, start_ms, length_ms, truth, said, bin FROM counts WHERE seq = 0"
                " ORDER BY start_ms LIMIT ?",
                (MAX_TAKEN,),
            ).fetchall()
            where = "model = ? AND start_ms = ? AND length_ms = ? AND truth = ? AND said = ? AND bin = ?"
            db.executemany(f"UPDATE counts SET seq = ? WHERE seq = 0 AND {where}", [(mark, *row) for row in rows])  # noqa: S608 - no text from outside
            self._waiting = _waiting(db)
            return _groups(db, mark)

    def put_back(self, mark: int) -> None:
        """Let the counts of a message that was not stored wait again."""
        with self._transaction() as db:
            _put_back(db, mark)
            self._waiting = _waiting(db)

    def delivered(self, mark: int) -> None:
        """Forget the counts of a message that is stored."""
        with self._transaction() as db:
            db.execute("DELETE FROM counts WHERE seq = ?", (mark,))

    def taken(self) -> tuple[int, ...]:
        """Return the marks of messages of which nobody has said yet whether they were stored."""
        with self._reading() as db:
            return tuple(mark for (mark,) in db.execute("SELECT DISTINCT seq FROM counts WHERE seq > 0"))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Use the connection alone.

        Raises:
            LabelBookError: SQLite could not do it.
        """
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise LabelBookError(f"the label book can't be used: {error}", hint="is the disk full?") from error


def open_label_book(path: Path) -> SqliteLabelBook:
    """Return the label book in a file; a damaged one is put aside, and while the disk takes nothing it is in memory."""
    try:
        return SqliteLabelBook(path)
    except LabelBookError as error:
        _log.error("%s can't be used (%s): a new label book begins", path, error)
    try:
        put_aside(path)
        return SqliteLabelBook(path)
    except (LabelBookError, OSError) as error:
        _log.error("%s can't be made (%s): labels wait in memory until the next start", path, error)
        return SqliteLabelBook(":memory:")


def _open(path: Path | str) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA cache_size=-{CACHE_KB}")
            connection.executescript(_SCHEMA)
            connection.execute("SELECT seq, value_square FROM counts LIMIT 0")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise LabelBookError(f"the label book can't be opened: {error}") from error
    return connection


def _is_new(db: sqlite3.Connection, mark: bytes) -> bool:
    return bool(db.execute("INSERT OR IGNORE INTO seen (mark) VALUES (?)", (mark,)).rowcount)


def _row(label: LabelCount) -> tuple[object, ...]:
    sums = label.errors
    key = (0, label.model, label.start_ms, label.length_ms, label.truth, label.said, label.bin, 1)
    if sums is None:
        return (*key, *_NO_SUMS)
    return (*key, sums.error, sums.absolute, sums.square, sums.truth, sums.truth_square)


def _waiting(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM counts WHERE seq = 0").fetchone()[0])


def _put_back(db: sqlite3.Connection, mark: int) -> None:
    rows = db.execute("SELECT * FROM counts WHERE seq = ?", (mark,)).fetchall()
    db.executemany(_ADD, [(0, *row[1:]) for row in rows])
    db.execute("DELETE FROM counts WHERE seq = ?", (mark,))


def _groups(db: sqlite3.Connection, mark: int) -> tuple[LabelGroup, ...]:
    rows = db.execute(
        "SELECT m.slot, m.digest, c.start_ms, c.length_ms, c.truth, c.said, c.bin, c.n,"
        " c.error, c.absolute, c.square, c.value, c.value_square"
        " FROM counts c JOIN models m ON m.key = c.model WHERE c.seq = ?",
        (mark,),
    ).fetchall()
    groups: dict[tuple[str, str, int, int], LabelGroup] = {}
    for slot, digest, start_ms, length_ms, truth, said, cell, n, *sums in rows:
        key = (slot, digest, start_ms, length_ms)
        old = groups.get(key, LabelGroup(*key))
        errors = old.errors
        if sums[0] is not None:
            more = ErrorSums(n, *sums)
            errors = more if errors is None else errors + more
        groups[key] = LabelGroup(*key, cells=(*old.cells, (truth, said, cell, n)), errors=errors)
    return tuple(groups.values())
