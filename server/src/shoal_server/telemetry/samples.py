"""Sampled raw rows that devices sent under a permission: kept for a while, within a size, and deleted on request.

One row a batch, compressed; a batch that comes twice is stored once. Leaves who may send, and when, to the assignments.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import delete, func
from sqlmodel import Session, col, select

from shoal_protocol.samples import SampleBatch
from shoal_server.telemetry.tables import SampleBatchRow

SAMPLES_KEPT_S = 30 * 86_400.0
MAX_BYTES = 256 << 20
"""Of all that is stored, compressed; beyond it the oldest go first."""

MAX_DEVICE_BATCHES_PER_HOUR = 720
"""A device has a batch at most every few seconds; more is refused."""


@dataclass(frozen=True)
class SampleSummary:
    """What is stored of one bundle in one slot.

    Attributes:
        slot: Where it answered.
        digest: Of the bundle.
        devices: That sent something.
        rows: Stored.
        seen: Rows that were answered meanwhile.
        dropped: Rows that the devices chose, but had no room for.
        size_bytes: Stored, compressed.
        newest_at: Seconds since the epoch, of the newest batch.
    """

    slot: str
    digest: str
    devices: int
    rows: int
    seen: int
    dropped: int
    size_bytes: int
    newest_at: float


def is_flooding(session: Session, device: str, *, now: float) -> bool:
    """Tell whether a device sends more than any device should."""
    lately = select(func.count()).select_from(SampleBatchRow).where(SampleBatchRow.device == device)
    return session.exec(lately.where(col(SampleBatchRow.received_at) > now - 3600)).one() >= MAX_DEVICE_BATCHES_PER_HOUR


def store(session: Session, device: str, batch: SampleBatch, *, now: float) -> bool:
    """Store a batch; returns whether it is new.

    Args:
        session: Of an open write transaction.
        device: Who sent it.
        batch: What came.
        now: Seconds since the epoch.
    """
    known = select(SampleBatchRow.id).where(SampleBatchRow.device == device, SampleBatchRow.batch == batch.batch)
    if session.exec(known).first() is not None:
        return False
    body = zlib.compress(msgspec.json.encode(batch.rows), level=6)
    session.add(
        SampleBatchRow(
            device=device,
            batch=batch.batch,
            slot=batch.slot,
            digest=batch.digest,
            received_at=now,
            rows=len(batch.rows),
            seen=batch.seen,
            dropped=batch.dropped,
            size_bytes=len(body),
            body=body,
        )
    )
    return True


def sample_summaries(session: Session, *, slot: str | None = None) -> list[SampleSummary]:
    """Return what is stored, by slot and bundle."""
    row = SampleBatchRow
    query = select(
        row.slot,
        row.digest,
        func.count(func.distinct(row.device)),
        func.sum(row.rows),
        func.sum(row.seen),
        func.sum(row.dropped),
        func.sum(row.size_bytes),
        func.max(row.received_at),
    ).group_by(col(row.slot), col(row.digest))  # type: ignore[call-overload]  # more columns than sqlmodel has types for
    if slot is not None:
        query = query.where(row.slot == slot)
    return [
        SampleSummary(name, digest, devices, int(rows), int(seen), int(dropped), int(size), float(newest))
        for name, digest, devices, rows, seen, dropped, size, newest in session.exec(
            query.order_by(row.slot, row.digest)
        )
    ]


def batches_after(
    session: Session, after: int, *, slot: str, device: str | None = None, limit: int
) -> list[tuple[int, dict[str, Any]]]:
    """Return stored batches with their numbers, in the order in which they came.

    Args:
        session: Of any transaction.
        after: Number of the last one that is known.
        slot: Of this slot.
        device: Only of this device.
        limit: So many at most.
    """
    query = select(SampleBatchRow).where(col(SampleBatchRow.id) > after, SampleBatchRow.slot == slot)
    if device is not None:
        query = query.where(SampleBatchRow.device == device)
    found = session.exec(query.order_by(col(SampleBatchRow.id)).limit(limit))
    return [
        (
            row.id or 0,
            {"device": row.device, "digest": row.digest, "rows": msgspec.json.decode(zlib.decompress(row.body))},
        )
        for row in found
    ]


def delete_samples(session: Session, *, slot: str, devices: Collection[str] | None = None) -> int:
    """Delete what is stored of a slot; returns the number of rows of raw input that are gone.

    Args:
        session: Of an open write transaction.
        slot: Which.
        devices: Only of these.
    """
    which = [col(SampleBatchRow.slot) == slot]
    if devices is not None:
        which.append(col(SampleBatchRow.device).in_(sorted(devices)))
    gone = session.exec(select(func.coalesce(func.sum(SampleBatchRow.rows), 0)).where(*which)).one()
    session.execute(delete(SampleBatchRow).where(*which))
    return int(gone)


def forget_samples(session: Session, *, received_before: float, max_bytes: int = MAX_BYTES) -> None:
    """Delete what is too old, and the oldest of what is too much."""
    session.execute(delete(SampleBatchRow).where(col(SampleBatchRow.received_at) < received_before))
    newest_first = select(SampleBatchRow.id, SampleBatchRow.size_bytes).order_by(col(SampleBatchRow.id).desc())
    size = 0
    for number, bytes_ in session.exec(newest_first):
        size += bytes_
        if size > max_bytes:
            session.execute(delete(SampleBatchRow).where(col(SampleBatchRow.id) <= number))
            return
