"""Agreement of shadow models with the active ones, added up by hour, slot, pair of bundles and device.

Added in the transaction that stores the window which brought it, so it counts once. Summaries are over any span and any
devices: sums add up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sqlmodel import Session, col, delete, select

from shoal_protocol.profile.codec import LATENCY_EDGES_US, ProfileMessage
from shoal_protocol.profile.shadow import DIFFERENCE_EDGES, DIFFERENCES
from shoal_server.telemetry import bulk
from shoal_server.telemetry.rollup import HOUR_MS
from shoal_server.telemetry.tables import ShadowCellRow, ShadowRow

SHADOWS_KEPT_S = 90 * 86_400.0

_KEY = ("slot", "digest", "shadow", "device", "hour_ms")
_CELL = (*_KEY, "kind", "first", "second")
_SUMS = ("compared", "agreed", "dropped", "errors", "n", "difference", "absolute", "square")
_NO_DIFFERENCES = (0, 0.0, 0.0, 0.0)

Key: TypeAlias = tuple[str, str, str, str, int]


@dataclass
class ShadowHours:
    """What one batch of messages brought."""

    sums: dict[Key, tuple[float, ...]] = field(default_factory=dict)
    cells: dict[tuple[str, str, str, str, int, str, str, str], int] = field(default_factory=lambda: defaultdict(int))

    def add(self, device: str, message: ProfileMessage, *, start_ms: int) -> None:
        """Add the shadows of one window."""
        for told in message.shadows:
            key = (message.slot, message.digest, told.digest, device, start_ms // HOUR_MS * HOUR_MS)
            gaps = told.differences
            moments = _NO_DIFFERENCES if gaps is None else (gaps.n, gaps.sum, gaps.absolute, gaps.square)
            new = (told.rows, told.agreed, told.dropped, told.errors, *moments)
            old = self.sums.get(key, (0,) * len(_SUMS))
            self.sums[key] = tuple(a + b for a, b in zip(old, new, strict=True))
            for first, second, count in told.pairs:
                self.cells[(*key, "pair", first, second)] += count
            self._count(key, "difference", () if gaps is None else gaps.counts)
            self._count(key, "active_latency", told.active_latency)
            self._count(key, "shadow_latency", told.shadow_latency)

    def save(self, session: Session) -> None:
        """Add everything to what is stored."""
        sums = [(*key, *self.sums[key]) for key in sorted(self.sums)]
        bulk.insert(session, ShadowRow, (*_KEY, *_SUMS), sums, conflict=bulk.adding(ShadowRow, _KEY, _SUMS))
        cells = [(*key, self.cells[key]) for key in sorted(self.cells)]
        bulk.insert(session, ShadowCellRow, (*_CELL, "n"), cells, conflict=bulk.adding(ShadowCellRow, _CELL, ("n",)))

    def _count(self, key: Key, kind: str, counts: Iterable[int]) -> None:
        for at, count in enumerate(counts):
            if count:
                self.cells[(*key, kind, str(at), "")] += count


@dataclass(frozen=True)
class ShadowSummary:
    """A shadow beside one active model, over a span of time and some devices.

    Attributes:
        slot: Where both run.
        digest: Of the active bundle.
        shadow: Of the shadow.
        devices: That have compared them.
        rows: Compared.
        agreed: Of those, rows with the same class or the same number.
        dropped: Rows that shadows had no time for.
        errors: Calls on which the shadow failed.
        n: Rows with a finite difference.
        difference, absolute, square: Sums over those.
        pairs: (class of the active model, class of the shadow, rows), the most frequent first.
        differences: Rows by `DIFFERENCE_EDGES`.
        latency_us: By ``active`` and ``shadow`` the median and the 95th percentile, upper edges in microseconds.
    """

    slot: str
    digest: str
    shadow: str
    devices: int
    rows: int
    agreed: int
    dropped: int
    errors: int
    n: int
    difference: float
    absolute: float
    square: float
    pairs: tuple[tuple[str, str, int], ...]
    differences: tuple[int, ...]
    latency_us: dict[str, tuple[float | None, float | None]]

    @property
    def agreement(self) -> float | None:
        """Share of the rows on which both said the same; None where nothing can be the same."""
        return self.agreed / self.rows if self.rows and (self.pairs or self.n) else None

    @property
    def mean_absolute(self) -> float | None:
        """Mean absolute difference of the number, or of the class probabilities (largest of a row)."""
        return self.absolute / self.n if self.n else None


def summaries(
    session: Session, *, since_ms: int, slot: str | None = None, device: str | None = None
) -> list[ShadowSummary]:
    """Return what shadows did in the hours that begin from an instant on, by slot, active bundle and shadow.

    Args:
        session: Of any transaction.
        since_ms: Milliseconds since the epoch; its hour counts whole.
        slot: Only of this slot.
        device: Only on this device.
    """
    found: dict[tuple[str, str, str], list[ShadowRow]] = defaultdict(list)
    for row in session.exec(_wanted(ShadowRow, since_ms, slot, device)):
        found[row.slot, row.digest, row.shadow].append(row)
    cells: dict[tuple[str, str, str], list[ShadowCellRow]] = defaultdict(list)
    for cell in session.exec(_wanted(ShadowCellRow, since_ms, slot, device)):
        cells[cell.slot, cell.digest, cell.shadow].append(cell)
    return [_summary(key, found[key], cells[key]) for key in sorted(found)]


def forget_shadows(session: Session, *, before_ms: int) -> None:
    """Delete what is older than an instant."""
    for table in (ShadowRow, ShadowCellRow):
        session.execute(delete(table).where(col(table.hour_ms) < before_ms))


def _wanted(table, since_ms: int, slot: str | None, device: str | None):  # type: ignore[no-untyped-def]  # of either table
    query = select(table).where(col(table.hour_ms) >= since_ms // HOUR_MS * HOUR_MS)
    if slot is not None:
        query = query.where(table.slot == slot)
    return query if device is None else query.where(table.device == device)


def _summary(key: tuple[str, str, str], rows: Sequence[ShadowRow], cells: Sequence[ShadowCellRow]) -> ShadowSummary:
    counts: dict[str, dict[tuple[str, str], int]] = defaultdict(lambda: defaultdict(int))
    for cell in cells:
        counts[cell.kind][cell.first, cell.second] += cell.n
    pairs = sorted(counts["pair"].items(), key=lambda item: (-item[1], item[0]))
    gaps = counts["difference"]
    return ShadowSummary(
        *key,
        devices=len({row.device for row in rows}),
        rows=sum(row.compared for row in rows),
        agreed=sum(row.agreed for row in rows),
        dropped=sum(row.dropped for row in rows),
        errors=sum(row.errors for row in rows),
        n=sum(row.n for row in rows),
        difference=sum(row.difference for row in rows),
        absolute=sum(row.absolute for row in rows),
        square=sum(row.square for row in rows),
        pairs=tuple((first, second, n) for (first, second), n in pairs),
        differences=tuple(gaps.get((str(at), ""), 0) for at in range(DIFFERENCES)) if gaps else (),
        latency_us={who: _quantiles(counts[f"{who}_latency"]) for who in ("active", "shadow")},
    )


def _quantiles(counts: dict[tuple[str, str], int]) -> tuple[float | None, float | None]:
    """Return the upper edges of the median's and the 95th percentile's cell; None: nothing there, or beyond all."""
    total, found = sum(counts.values()), []
    for share in (0.5, 0.95):
        left, edge = share * total, None
        for at in sorted(int(first) for first, _ in counts):
            left -= counts[str(at), ""]
            if left <= 0:
                edge = float(LATENCY_EDGES_US[at]) if at < len(LATENCY_EDGES_US) else None
                break
        found.append(edge)
    return found[0], found[1]


EDGES = DIFFERENCE_EDGES
"""Of `ShadowSummary.differences`; one more count is for all beyond, the last for NaN."""
