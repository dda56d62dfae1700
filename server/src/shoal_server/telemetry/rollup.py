"""Sums of windows by hour, kept longer than the windows.

A window is added in the transaction that stores it, so a late one is never missing and a duplicate never counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlmodel import Session, col, select

from shoal_server.telemetry import bulk
from shoal_server.telemetry.tables import HourRow

HOUR_MS = 3_600_000


_KEY = ("slot", "digest", "hour_ms")
_SUMS = ("windows", "n", "errors")


@dataclass
class Sums:
    """Windows of one batch, summed by slot, bundle and hour."""

    by_key: dict[tuple[str, str, int], tuple[int, int, int]] = field(default_factory=dict)

    def add(self, *, slot: str, digest: str, start_ms: int, n: int, errors: int) -> None:
        """Add one window."""
        key = (slot, digest, start_ms // HOUR_MS * HOUR_MS)
        windows, rows, failed = self.by_key.get(key, (0, 0, 0))
        self.by_key[key] = (windows + 1, rows + n, failed + errors)

    def save(self, session: Session) -> None:
        """Add everything to what is stored."""
        rows = [(*key, *self.by_key[key]) for key in sorted(self.by_key)]
        bulk.insert(session, HourRow, (*_KEY, *_SUMS), rows, conflict=bulk.adding(HourRow, _KEY, _SUMS))


def hours(session: Session, *, slot: str, start_ms: int, end_ms: int) -> list[HourRow]:
    """Return a slot's sums of the hours that begin in [start_ms, end_ms), by hour and bundle."""
    wanted = (
        select(HourRow)
        .where(HourRow.slot == slot, col(HourRow.hour_ms) >= start_ms, col(HourRow.hour_ms) < end_ms)
        .order_by(col(HourRow.hour_ms), HourRow.digest)
    )
    return list(session.exec(wanted))
