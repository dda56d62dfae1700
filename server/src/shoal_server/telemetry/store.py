"""Queries over windows, ledgers and malformed messages."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, func, select
from sqlmodel import Session, col

from shoal_protocol.profile.codec import ProfileMessage, decode_profile
from shoal_server.telemetry import bulk
from shoal_server.telemetry.ledger import Ledger
from shoal_server.telemetry.tables import LedgerRow, MalformedRow, WindowRow

KEPT_MALFORMED = 1000
HEAD_BYTES = 256
_MAX_ERROR = 300
_KEYS_A_QUERY = 400  # SQLite allows 32,766 variables; short statements are also cached
_DEVICES_A_QUERY = 500  # of more, a cohort's, the windows are chosen here


class LedgerKey(NamedTuple):
    """Whose numbers a ledger holds."""

    device: str
    epoch: str


@dataclass(frozen=True)
class StoredWindow:
    """One window as it came; `start_ms` is the server's view of its begin."""

    id: int
    device: str
    seq: int
    slot: str
    digest: str
    spec_hash: str
    start_ms: int
    length_ms: int
    n: int
    errors: int
    received_at: float
    body: bytes

    @cached_property
    def message(self) -> ProfileMessage:
        """The message, parsed again."""
        return decode_profile(self.body)


_WINDOW = (
    col(WindowRow.id),
    col(WindowRow.device),
    col(WindowRow.seq),
    col(WindowRow.slot),
    col(WindowRow.digest),
    col(WindowRow.spec_hash),
    col(WindowRow.start_ms),
    col(WindowRow.length_ms),
    col(WindowRow.n),
    col(WindowRow.errors),
    col(WindowRow.received_at),
    col(WindowRow.body),
)
WINDOW_COLUMNS = (
    "device",
    "epoch",
    "seq",
    "slot",
    "digest",
    "spec_hash",
    "start_ms",
    "length_ms",
    "n",
    "errors",
    "content_hash",
    "received_at",
    "body",
)
_LEDGERS_OF = select(
    col(LedgerRow.device), col(LedgerRow.epoch), col(LedgerRow.through), col(LedgerRow.ranges), col(LedgerRow.lost)
).where(
    col(LedgerRow.device).in_(bindparam("devices", expanding=True)),
    col(LedgerRow.epoch).in_(bindparam("epochs", expanding=True)),
)


def windows(
    session: Session,
    *,
    slot: str,
    start_ms: int,
    end_ms: int,
    digests: Iterable[str] | None = None,
    devices: Iterable[str] | None = None,
) -> list[StoredWindow]:
    """Return a slot's windows that begin in [start_ms, end_ms), in the order of begin, then device.

    Args:
        session: Of `Database.read()` or `write()`.
        slot: The slot.
        start_ms: Milliseconds since the epoch.
        end_ms: Milliseconds since the epoch.
        digests: Only of these bundles.
        devices: Only of these devices; any number of them.
    """
    wanted = select(*_WINDOW).where(
        col(WindowRow.slot) == slot, col(WindowRow.start_ms) >= start_ms, col(WindowRow.start_ms) < end_ms
    )
    if digests is not None:
        wanted = wanted.where(col(WindowRow.digest).in_(list(digests)))
    chosen = None if devices is None else frozenset(devices)
    if chosen is not None and len(chosen) <= _DEVICES_A_QUERY:
        wanted, chosen = wanted.where(col(WindowRow.device).in_(sorted(chosen))), None
    rows = session.execute(wanted.order_by(col(WindowRow.start_ms), col(WindowRow.device), col(WindowRow.id)))
    return [StoredWindow(*row) for row in rows if chosen is None or row[1] in chosen]


def windows_stored(
    session: Session,
    *,
    slot: str,
    start_ms: int,
    end_ms: int,
    digests: Collection[str],
    after_id: int,
    limit: int,
) -> list[StoredWindow]:
    """Return a page of a slot's windows of some bundles that begin in [start_ms, end_ms), in the order of storing."""
    wanted = select(*_WINDOW).where(
        col(WindowRow.id) > after_id,
        col(WindowRow.slot) == slot,
        col(WindowRow.start_ms) >= start_ms,
        col(WindowRow.start_ms) < end_ms,
        col(WindowRow.digest).in_(list(digests)),
    )
    return [StoredWindow(*row) for row in session.execute(wanted.order_by(col(WindowRow.id)).limit(limit))]


def bundles_since(session: Session, start_ms: int) -> list[tuple[str, str]]:
    """Return slot and digest of each bundle with a window that begins at an instant or later, sorted."""
    wanted = select(col(WindowRow.slot), col(WindowRow.digest)).where(col(WindowRow.start_ms) >= start_ms).distinct()
    return sorted((slot, digest) for slot, digest in session.execute(wanted))


def windows_after(session: Session, after_id: int, limit: int) -> list[StoredWindow]:
    """Return the windows stored after the one with this id, in the order in which they were stored."""
    wanted = select(*_WINDOW).where(col(WindowRow.id) > after_id)
    return [StoredWindow(*row) for row in session.execute(wanted.order_by(col(WindowRow.id)).limit(limit))]


def last_window_id(session: Session) -> int:
    """Return the id of the window stored last, 0 when there is none."""
    return session.execute(select(func.max(WindowRow.id))).scalar_one() or 0


def insert_windows(session: Session, rows: Sequence[tuple[Any, ...]]) -> None:
    """Store windows, each given in the order of `WINDOW_COLUMNS`; one whose key is there already is left alone."""
    bulk.insert(session, WindowRow, WINDOW_COLUMNS, rows, conflict="DO NOTHING")


def content_hashes(session: Session, key: LedgerKey, seqs: Sequence[int]) -> dict[int, bytes]:
    """Return the content hashes of stored windows by number; those that are gone are left out."""
    found: dict[int, bytes] = {}
    for at in range(0, len(seqs), _KEYS_A_QUERY):
        wanted = select(col(WindowRow.seq), col(WindowRow.content_hash)).where(
            col(WindowRow.device) == key.device,
            col(WindowRow.epoch) == key.epoch,
            col(WindowRow.seq).in_(seqs[at : at + _KEYS_A_QUERY]),
        )
        found.update((seq, content) for seq, content in session.execute(wanted))
    return found


def ledgers(session: Session, keys: Collection[LedgerKey]) -> dict[LedgerKey, Ledger]:
    """Return the ledgers of these keys; an empty one for a key that is new."""
    found = dict.fromkeys(keys, Ledger())
    devices = sorted({key.device for key in keys})
    for at in range(0, len(devices), _KEYS_A_QUERY):
        for device, epoch, through, ranges, lost in session.execute(
            _LEDGERS_OF, {"devices": devices[at : at + _KEYS_A_QUERY], "epochs": sorted({key.epoch for key in keys})}
        ):
            key = LedgerKey(device, epoch)
            if key in found:
                found[key] = Ledger(through, tuple((first, last) for first, last in ranges), lost)
    return found


def save_ledgers(session: Session, changed: Mapping[LedgerKey, Ledger], now: float) -> None:
    """Store ledgers over what was there."""
    columns = ("device", "epoch", "through", "ranges", "lost", "updated_at")
    rows = [
        (key.device, key.epoch, ledger.through, json.dumps(ledger.ranges), ledger.lost, now)
        for key, ledger in sorted(changed.items())
    ]
    bulk.insert(session, LedgerRow, columns, rows, conflict=bulk.replacing(("device", "epoch"), columns[2:]))


def device_ledgers(session: Session, device: str) -> dict[str, Ledger]:
    """Return a device's ledgers by epoch."""
    rows = session.execute(select(LedgerRow).where(col(LedgerRow.device) == device)).scalars()
    return {
        row.epoch: Ledger(row.through, tuple((first, last) for first, last in row.ranges), row.lost) for row in rows
    }


def lost_windows(session: Session) -> int:
    """Return how many windows all devices ever gave up, by their own word: their spools were full."""
    return int(session.execute(select(func.sum(LedgerRow.lost))).scalar_one() or 0)


def record_malformed(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep the newest `KEPT_MALFORMED` of what could not be read.

    Args:
        session: Of `Database.write()`.
        rows: device, kind, received_at, error and the payload of each.
    """
    for row in rows[-KEPT_MALFORMED:]:
        payload: bytes = row["payload"]
        session.add(
            MalformedRow(
                device=row["device"],
                kind=row["kind"],
                received_at=row["received_at"],
                error=row["error"].replace("\0", "")[:_MAX_ERROR],
                size_bytes=len(payload),
                head=payload[:HEAD_BYTES],
            )
        )
    session.flush()
    newest = session.execute(select(func.max(MalformedRow.id))).scalar_one() or 0
    session.execute(delete(MalformedRow).where(col(MalformedRow.id) <= newest - KEPT_MALFORMED))


def malformed(session: Session, *, limit: int = 100) -> list[MalformedRow]:
    """Return the newest messages that could not be read, newest first."""
    return list(session.execute(select(MalformedRow).order_by(col(MalformedRow.id).desc()).limit(limit)).scalars())


def prune(session: Session, *, received_before: float, limit: int = 10_000) -> int:
    """Delete the oldest windows received before an instant; ledgers and sums stay. Returns how many."""
    oldest = (
        select(col(WindowRow.id))
        .where(col(WindowRow.received_at) < bindparam("before"))
        .order_by(col(WindowRow.id))
        .limit(limit)
    )
    deleted = session.execute(delete(WindowRow).where(col(WindowRow.id).in_(oldest)), {"before": received_before})
    return int(deleted.rowcount)  # type: ignore[attr-defined]  # a CursorResult, which SQLModel's typing hides
