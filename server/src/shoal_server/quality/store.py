"""Queries over what models said, by the hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sqlmodel import Session, col, delete, select

from shoal_protocol.profile.codec import decode_counts, encode_counts
from shoal_server.quality.tables import OutputHourRow, OutputScanRow
from shoal_server.telemetry import bulk

_KEY = ("slot", "digest", "device", "hour_ms")
_NO_MOMENTS = np.zeros((0, 2), np.int64)

Key: TypeAlias = tuple[str, str, str, int]
"""(slot, digest, device, hour)."""


@dataclass(frozen=True, eq=False)
class SaidHour:
    """What one device's model said in one hour.

    Attributes:
        cells: Counts of the output streams, as `OutputLayout.read` takes them.
    """

    digest: str
    device: str
    hour_ms: int
    n: int
    cells: npt.NDArray[np.int64]


def scan_row(session: Session) -> OutputScanRow:
    """Return how far the windows have been summed."""
    return session.get(OutputScanRow, 1) or OutputScanRow(id=1, read_through=0, watched_hour=0)


def said_hours(session: Session, *, slot: str, start_ms: int, end_ms: int, digest: str | None = None) -> list[SaidHour]:
    """Return what was said in a slot in the hours that begin in [start_ms, end_ms), in their order."""
    wanted = select(OutputHourRow).where(
        OutputHourRow.slot == slot, col(OutputHourRow.hour_ms) >= start_ms, col(OutputHourRow.hour_ms) < end_ms
    )
    if digest is not None:
        wanted = wanted.where(OutputHourRow.digest == digest)
    rows = session.exec(wanted.order_by(col(OutputHourRow.hour_ms), OutputHourRow.device))
    return [SaidHour(row.digest, row.device, row.hour_ms, row.n, decode_counts(row.cells)[0]) for row in rows]


def add_said(session: Session, sums: Mapping[Key, tuple[int, npt.NDArray[np.int64]]]) -> None:
    """Add counts to what is stored; the caller holds the scan's lock."""
    columns = (*_KEY, "n", "cells")
    rows = []
    for key in sorted(sums):
        n, cells = sums[key]
        old = session.get(OutputHourRow, key)
        if old is not None and len(before := decode_counts(old.cells)[0]) == len(cells):
            n, cells = n + old.n, cells + before
        rows.append((*key, n, encode_counts(cells, _NO_MOMENTS)))
    session.expire_all()
    bulk.insert(session, OutputHourRow, columns, rows, conflict=bulk.replacing(_KEY, columns[4:]))


def used(session: Session, *, start_ms: int) -> Sequence[tuple[str, str]]:
    """Return (slot, digest) of what has predicted since an instant."""
    wanted = (
        select(OutputHourRow.slot, OutputHourRow.digest)
        .where(col(OutputHourRow.hour_ms) >= start_ms)
        .distinct()
        .order_by(OutputHourRow.slot, OutputHourRow.digest)
    )
    return [(slot, digest) for slot, digest in session.exec(wanted)]


def forget_said(session: Session, *, before_ms: int) -> None:
    """Delete what was said before an instant."""
    session.execute(delete(OutputHourRow).where(col(OutputHourRow.hour_ms) < before_ms))
