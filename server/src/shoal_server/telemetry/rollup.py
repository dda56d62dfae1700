"""Sums of windows by hour, kept longer than the windows.

A window is added in the transaction that stores it, so a late one is never missing and a duplicate never counted.
Slots and bundles are what devices say; those that nobody was meant to run are summed together, or else a device could
invent rows that are kept for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeAlias

from sqlmodel import Session, col, select

from shoal_server.telemetry import bulk
from shoal_server.telemetry.tables import HourRow

HOUR_MS = 3_600_000


OTHER = ("", "")
"""Slot and digest under which all is summed that nobody was meant to run."""

Pair: TypeAlias = tuple[str, str]
"""Slot and digest."""

Meant: TypeAlias = Callable[[Session, Collection[Pair]], AbstractSet[Pair]]
"""(session, pairs): those among them that somebody may be meant to run."""

REFUSED_S = 30.0
"""So long a pair that nobody was meant to run is not asked about again."""

MOST_REFUSED = 1024

_KEY = ("slot", "digest", "hour_ms")
_SUMS = ("windows", "n", "errors")


class KnownPairs:
    """The pairs that have rows of their own; remembers them, and they are as few as bundles times slots.

    What has none is remembered for `REFUSED_S`, or else whoever sends it would have the fleet's assignments read for
    every batch. While that is `MOST_REFUSED` pairs, further strangers have none, and nobody is asked.

    Args:
        meant: Tells which new pairs may have some; none: all.
        clock: Seconds.
    """

    def __init__(self, meant: Meant | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._meant = meant
        self._clock = clock
        self._known: set[Pair] = set()
        self._refused: dict[Pair, float] = {}

    def among(self, session: Session, pairs: AbstractSet[Pair]) -> AbstractSet[Pair]:
        """Return those that have rows of their own."""
        if self._meant is None or pairs <= self._known:
            return pairs
        now = self._clock()
        self._refused = {pair: at for pair, at in self._refused.items() if abs(now - at) < REFUSED_S}
        new = sorted(pairs - self._known - self._refused.keys())[: MOST_REFUSED - len(self._refused)]
        for slot, digest in new:
            stored = select(HourRow.slot).where(HourRow.slot == slot, HourRow.digest == digest).limit(1)
            if session.exec(stored).first() is not None:
                self._known.add((slot, digest))
        if strangers := set(new) - self._known:
            self._known |= self._meant(session, strangers)
            self._refused |= dict.fromkeys(strangers - self._known, now)
        return pairs & self._known


@dataclass
class Sums:
    """Windows of one batch, summed by slot, bundle and hour."""

    by_key: dict[tuple[str, str, int], tuple[int, int, int]] = field(default_factory=dict)

    def add(self, *, slot: str, digest: str, start_ms: int, n: int, errors: int) -> None:
        """Add one window."""
        key = (slot, digest, start_ms // HOUR_MS * HOUR_MS)
        windows, rows, failed = self.by_key.get(key, (0, 0, 0))
        self.by_key[key] = (windows + 1, rows + n, failed + errors)

    def save(self, session: Session, known: KnownPairs) -> None:
        """Add everything to what is stored; what has no rows of its own to those of `OTHER`."""
        own = known.among(session, {key[:2] for key in self.by_key})
        sums: dict[tuple[str, str, int], tuple[int, int, int]] = {}
        for (slot, digest, hour_ms), (windows, n, errors) in self.by_key.items():
            key = (*((slot, digest) if (slot, digest) in own else OTHER), hour_ms)
            before = sums.get(key, (0, 0, 0))
            sums[key] = (before[0] + windows, before[1] + n, before[2] + errors)
        rows = [(*key, *sums[key]) for key in sorted(sums)]
        bulk.insert(session, HourRow, (*_KEY, *_SUMS), rows, conflict=bulk.adding(HourRow, _KEY, _SUMS))


def hours(session: Session, *, slot: str, start_ms: int, end_ms: int) -> list[HourRow]:
    """Return a slot's sums of the hours that begin in [start_ms, end_ms), by hour and bundle."""
    wanted = (
        select(HourRow)
        .where(HourRow.slot == slot, col(HourRow.hour_ms) >= start_ms, col(HourRow.hour_ms) < end_ms)
        .order_by(col(HourRow.hour_ms), HourRow.digest)
    )
    return list(session.exec(wanted))
