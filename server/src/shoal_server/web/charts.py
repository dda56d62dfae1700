"""Charts as plain geometry, which templates write as SVG: columns, segments of a stage. Pure.

Distributions and series are drawn by `report.plots`, as in reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH = 640.0
_FEWEST_PLACES = 24


@dataclass(frozen=True)
class Segment:
    """One part of a bar of the whole width 100."""

    kind: str
    x: float
    width: float
    count: int


@dataclass(frozen=True)
class Column:
    """One value of a series, in the chart's own units."""

    x: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Columns:
    """A series of values side by side; `most` is what the full height means."""

    columns: tuple[Column, ...]
    most: float
    width: float = WIDTH
    height: float = 80.0


def columns(values: Sequence[tuple[float, str]]) -> Columns:
    """Lay out values with their titles, the oldest first; few of them stay narrow, at the right."""
    most = max((value for value, _title in values), default=0.0)
    places = max(len(values), _FEWEST_PLACES)
    step, empty = WIDTH / places, places - len(values)
    shown = [
        Column(round((empty + place) * step, 2), round(step, 2), round(76.0 * value / most, 2) if most else 0.0, title)
        for place, (value, title) in enumerate(values)
    ]
    return Columns(tuple(shown), most)


def segments(counts: Mapping[str, int], kinds: Sequence[str], *, total: int) -> list[Segment]:
    """Lay counts out as parts of a bar; what is zero has no part."""
    found, x = [], 0.0
    for kind in kinds:
        width = 100.0 * counts.get(kind, 0) / total if total else 0.0
        if width:
            found.append(Segment(kind, round(x, 3), round(width, 3), counts[kind]))
            x += width
    return found
