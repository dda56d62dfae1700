"""The spool: closed windows and events, kept on disk until the server has acknowledged them.

One SQLite file (WAL, synchronous=FULL, one writer): with synchronous=NORMAL, committed rows were lost in a power cut.
The file also owns `epoch` and `boot`, because they say which sequence its numbers belong to: a spool that is lost or
damaged begins a new epoch.

Invariants: a number is given once; a message never changes after it was handed over, so that sending it twice is the
same as once (windows that were not may be merged, under a new number); what is dropped or merged is counted, and told
to the server in an event of its own.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from shoal_agent.adapters.spool_file import is_damage, open_file, put_aside
from shoal_agent.domain.coarsening import Span, mergeable, together
from shoal_agent.domain.outbox import surplus
from shoal_agent.domain.shedding import Told
from shoal_agent.errors import SpoolError
from shoal_agent.ports import Shed, Spooled, SpoolUsage
from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.messages import Ack
from shoal_protocol.mqtt.topics import Up

_log = logging.getLogger(__name__)

_COLUMNS = "seq, kind, key, size, body, stream, start_ms, length_ms, counted"
_INSERT = f"INSERT INTO items ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constant names
_MAX_KEYS = 1000
_ROOMY = 0.75
"""Share of the budget that merging leaves at most, so that it isn't done again at every window."""


class SqliteSpool:
    """The spool in a SQLite file.

    Args:
        path: Of the file; created when missing, put aside when damaged.
        budget_bytes: Sum of the messages' sizes that is kept at most.
        new_epoch: Gives 16 random hexadecimal digits.

    Raises:
        SpoolError: The disk is full, read-only or failing.
        OSError: A damaged file can't be put aside.
    """

    def __init__(self, path: Path, *, budget_bytes: int, new_epoch: Callable[[], str]) -> None:
        self._budget = budget_bytes
        self._lock = threading.Lock()
        self._fault = ""
        self.first = 1
        try:
            self._begin(path, new_epoch)
        except SpoolError as error:
            if not is_damage(error.__cause__):
                raise
            _log.error("the spool is damaged (%s): a new one begins, with a new epoch", error)
            put_aside(path)
            self._begin(path, new_epoch)

    def _begin(self, path: Path, new_epoch: Callable[[], str]) -> None:
        """Open the file and count the start.

        Raises:
            SpoolError: The file is damaged, or the disk does not take it.
        """
        self._connection = open_file(path)
        try:
            with self._transaction() as db:
                db.execute("INSERT OR IGNORE INTO facts VALUES ('epoch', ?)", (new_epoch(),))
                for name in ("boot", "seq", "dropped", "merged"):
                    db.execute("INSERT OR IGNORE INTO facts VALUES (?, '0')", (name,))
                # a file that never noted what it handed over may have handed over all of it
                db.execute("INSERT OR IGNORE INTO facts SELECT 'handed', value FROM facts WHERE name = 'seq'")
                self.epoch = str(db.execute("SELECT value FROM facts WHERE name = 'epoch'").fetchone()[0])
                self.boot = _add(db, "boot", 1)
                self._handed = _add(db, "handed", 0)
                db.execute(f"SELECT {_COLUMNS} FROM items LIMIT 0")  # noqa: S608 - constant names
                db.execute("SELECT key, seq FROM recorded LIMIT 0")
        except SpoolError:
            self._connection.close()
            raise

    def append(
        self, kind: Up, build: Callable[[int], bytes], *, key: str | None = None, span: Span | None = None
    ) -> int | None:
        """Store a message under the next number.

        Args:
            kind: What it is.
            build: Gives the message's bytes for its number.
            key: A message with a key is stored once, however often it is appended.
            span: Of a window that may be merged with others until it is handed over.

        Returns:
            Its number, or none when a message with this key was stored before.

        Raises:
            SpoolError: The disk is full or failing; nothing was stored.
        """
        with self._transaction() as db:
            if key is not None and db.execute("SELECT 1 FROM recorded WHERE key = ?", (key,)).fetchone():
                return None
            seq = _add(db, "seq", 1)
            _insert(db, seq, kind, build(seq), key=key, span=span)
            if key is not None:
                db.execute("INSERT INTO recorded VALUES (?, ?)", (key, seq))
                db.execute("DELETE FROM recorded WHERE seq <= ? - ?", (seq, _MAX_KEYS))
            return seq

    def has_stored(self, key: str) -> bool:
        """Tell whether a message with this key was ever stored; the last thousand keys are known."""
        with self._reading() as db:
            return db.execute("SELECT 1 FROM recorded WHERE key = ?", (key,)).fetchone() is not None

    def hand_over(self, seqs: Sequence[int]) -> None:
        """Remember that these are handed to a transport: they, and all before them, never change any more.

        Raises:
            SpoolError: The disk is full or failing; don't hand them over.
        """
        newest = max(seqs, default=0)
        if newest > self._handed:  # may be too low where two threads hand over at once; the file's never is
            with self._transaction() as db:
                if newest > _add(db, "handed", 0):
                    db.execute("UPDATE facts SET value = ? WHERE name = 'handed'", (newest,))
            self._handed = newest

    def make_room(self, shed: Shed) -> list[int]:
        """Keep the budget, and store events that say how.

        First windows that were never handed over are merged into coarser ones, then the oldest windows are dropped,
        then what else is oldest.

        Returns:
            The numbers dropped.
        """
        with self._transaction() as db:
            if _total(db) <= self._budget:
                return []
            gone = self._coarsen(db, shed.merge) if shed.merge is not None else []
            by_age = "SELECT seq, size FROM items ORDER BY start_ms IS NULL, start_ms, seq"
            sizes = db.execute(by_age).fetchall()
            waits = {_told(db, name).seq for name in ("told_lost", "told_merged")}
            beyond = surplus(sizes, total_bytes=_total(db), budget_bytes=self._budget)
            dropped = sorted(set(beyond).difference(waits))
            rows = _delete(db, dropped)
            if dropped:
                gone += self._tell(db, "told_lost", dropped, shed.tell_lost, rows=rows)
            if gone and shed.tell_merged is not None:
                tell_merged = shed.tell_merged
                self._tell(db, "told_merged", gone, lambda seq, parts, _rows: tell_merged(seq, parts))
            return dropped

    def _coarsen(self, db: sqlite3.Connection, merge: Callable[[int, list[bytes]], bytes]) -> list[int]:
        """Merge until there is room again, or nothing is left that could be merged; return the numbers merged."""
        total, gone, handed = _total(db), list[int](), _add(db, "handed", 0)
        stuck: set[int] = set()
        found = "SELECT seq, stream, start_ms, length_ms, counted FROM items WHERE seq > ? AND stream IS NOT NULL"
        while total > self._budget * _ROOMY:
            spans = {row[0]: Span(*row[1:]) for row in db.execute(found, (handed,)) if row[0] not in stuck}
            groups = mergeable(spans)
            if not groups:
                break
            for group in groups:
                total -= self._merge(db, {seq: spans[seq] for seq in group}, merge, gone, stuck)
                if total <= self._budget * _ROOMY:
                    break
        _add(db, "merged", len(gone))
        return gone

    def _tell(
        self,
        db: sqlite3.Connection,
        name: str,
        numbers: list[int],
        build: Callable[[int, list[int], int], bytes],
        *,
        rows: int = 0,
    ) -> list[int]:
        """Store the event about numbers, in the place of one that was never sent; return that one's number, if any."""
        last = _told(db, name)
        waits = last.seq > _add(db, "handed", 0)
        replaced = [last.seq] if waits else []
        db.executemany("DELETE FROM items WHERE seq = ?", [(seq,) for seq in replaced])
        merged = replaced if name == "told_merged" else []  # its own number is one more that never comes
        told = last.next(_add(db, "seq", 1), [*numbers, *merged], rows=rows, waits=waits)
        _insert(db, told.seq, Up.EVENT, build(told.seq, list(told.numbers), told.rows))
        db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, msgspec.json.encode(told.as_json()).decode()))
        return replaced

    def _merge(
        self,
        db: sqlite3.Connection,
        spans: dict[int, Span],
        merge: Callable[[int, list[bytes]], bytes],
        gone: list[int],
        stuck: set[int],
    ) -> int:
        """Replace windows by one; return the bytes that this saves. What can't be merged is noted as stuck."""
        marks = ",".join("?" * len(spans))
        bodies = [bytes(row[0]) for row in db.execute(f"SELECT body FROM items WHERE seq IN ({marks})", [*spans])]  # noqa: S608 - question marks
        seq = _add(db, "seq", 1)
        try:
            body = merge(seq, bodies)
        except ContentError as error:
            _log.warning("windows %s stay as they are: %s", sorted(spans), error)
            _add(db, "seq", -1)
            stuck.update(spans)
            return 0
        db.executemany("DELETE FROM items WHERE seq = ?", [(part,) for part in spans])
        _insert(db, seq, Up.PROFILE, body, span=together(spans.values()))
        gone.extend(spans)
        return sum(map(len, bodies)) - len(body)

    def give_up(self, seqs: Iterable[int], tell: Callable[[int, list[int], int], bytes] | None) -> list[int]:
        """Drop messages that the server can't take, and store an event that says which.

        Args:
            seqs: Their numbers; those that are gone are left out.
            tell: Gives the event's bytes for its number, the numbers dropped and the rows counted in them; none: no
                event.

        Returns:
            The numbers dropped.

        Raises:
            SpoolError: The disk is full or failing; nothing was dropped.
        """
        with self._transaction() as db:
            there = [seq for seq in sorted(seqs) if db.execute("SELECT 1 FROM items WHERE seq = ?", (seq,)).fetchone()]
            return _drop(db, there, tell)

    def waiting(self, limit: int = 1024) -> list[int]:
        """Return the numbers of the oldest unacknowledged messages, ascending."""
        with self._reading() as db:
            rows = db.execute("SELECT seq FROM items ORDER BY seq LIMIT ?", (limit,)).fetchall()
        return [int(seq) for (seq,) in rows]

    def read(self, seqs: Sequence[int]) -> list[Spooled]:
        """Return messages by number, ascending; those that are gone are left out."""
        found = []
        with self._reading() as db:
            for seq in sorted(seqs):
                row = db.execute("SELECT kind, body FROM items WHERE seq = ?", (seq,)).fetchone()
                if row is not None:
                    found.append(Spooled(seq, Up(row[0]), bytes(row[1])))
        return found

    def acknowledge(self, ack: Ack) -> int:
        """Delete what the server has committed; return how many messages that were."""
        if ack.epoch != self.epoch:
            return 0
        with self._transaction() as db:
            gone = db.execute("DELETE FROM items WHERE seq <= ?", (min(ack.through, 2**62),)).rowcount
            for first, last in ack.ranges:
                bounds = (min(first, 2**62), min(last, 2**62))
                gone += db.execute("DELETE FROM items WHERE seq BETWEEN ? AND ?", bounds).rowcount
            return int(gone)

    def usage(self) -> SpoolUsage:
        """Return what waits, and what was ever dropped; `fault` says why the last message was not stored.

        Raises:
            SpoolError: The file can't be read any more.
        """
        with self._reading() as db:
            windows = db.execute("SELECT count(*) FROM items WHERE kind = ?", (Up.PROFILE.value,))
            dropped = db.execute("SELECT value FROM facts WHERE name = 'dropped'")
            return SpoolUsage(
                windows=int(windows.fetchone()[0]),
                size_bytes=_total(db),
                dropped=int(dropped.fetchone()[0]),
                fault=self._fault,
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Run one transaction.

        Raises:
            SpoolError: SQLite could not carry it out; nothing of it was stored.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
                self._fault = ""
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    self._fault = f"it can't be written: {error}"
                    raise SpoolError(f"the spool can't be written: {error}", hint="is the disk full?") from error
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Read.

        Raises:
            SpoolError: The file is damaged or the disk is failing.
        """
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise SpoolError(f"the spool can't be read: {error}", hint="is the disk failing?") from error


def _insert(
    db: sqlite3.Connection, seq: int, kind: Up, body: bytes, *, key: str | None = None, span: Span | None = None
) -> None:
    place = (span.stream, span.start_ms, span.length_ms, span.rows) if span else (None, None, None, None)
    db.execute(_INSERT, (seq, kind.value, key, len(body), body, *place))


def _drop(db: sqlite3.Connection, dropped: list[int], tell: Callable[[int, list[int], int], bytes] | None) -> list[int]:
    """Delete messages, count them, and store the event that says which."""
    rows = _delete(db, dropped)
    if dropped and tell is not None:
        seq = _add(db, "seq", 1)
        _insert(db, seq, Up.EVENT, tell(seq, dropped, rows))
    return dropped


def _delete(db: sqlite3.Connection, dropped: list[int]) -> int:
    """Delete messages and count them as dropped; return the rows that were counted in them."""
    rows = _rows(db, dropped)
    db.executemany("DELETE FROM items WHERE seq = ?", [(seq,) for seq in dropped])
    _add(db, "dropped", len(dropped))
    return rows


def _told(db: sqlite3.Connection, name: str) -> Told:
    """Return the last event of a kind about what was let go of."""
    row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return Told.from_json(msgspec.json.decode(row[0])) if row else Told()


def _rows(db: sqlite3.Connection, seqs: list[int]) -> int:
    """Return the rows that were counted in these windows."""
    found = (db.execute("SELECT counted FROM items WHERE seq = ?", (seq,)).fetchone() for seq in seqs)
    return sum(row[0] or 0 for row in found if row)


def _add(db: sqlite3.Connection, name: str, amount: int) -> int:
    row = db.execute(
        "UPDATE facts SET value = CAST(value AS INTEGER) + ? WHERE name = ? RETURNING value", (amount, name)
    ).fetchone()
    return int(row[0])


def _total(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT coalesce(sum(size), 0) FROM items").fetchone()[0])
