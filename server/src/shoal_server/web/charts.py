"""Charts as plain geometry, which templates write as SVG: bars of two distributions, segments of a stage. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.grid import CategoricalGrid, Grid, NumericGrid, OpaqueGrid
from shoal_server.web.words import percent

WIDTH, HEIGHT = 640.0, 190.0
_BOTTOM, _TOP = 26.0, 8.0
_MOST_TICKS = 7
_FEWEST_PLACES = 24


@dataclass(frozen=True)
class Bar:
    """One cell of a distribution: two bars above one place, in the chart's own units."""

    x: float
    width: float
    reference: float
    live: float
    label: str
    title: str


@dataclass(frozen=True)
class Distribution:
    """Reference and live shares of one stream, cell by cell."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    reference_rows: int
    live_rows: int
    width: float = WIDTH
    height: float = HEIGHT
    base: float = HEIGHT - _BOTTOM


@dataclass(frozen=True)
class Segment:
    """One part of a bar of the whole width 100."""

    kind: str
    x: float
    width: float
    count: int


def distribution(grid: Grid, reference: npt.NDArray[np.int64], live: npt.NDArray[np.int64]) -> Distribution:
    """Lay out two samples of one stream.

    Args:
        grid: Of the stream.
        reference: Counts on its coarse cells.
        live: The same of now.
    """
    labels = cell_labels(grid)
    shown = [i for i in range(grid.size) if i > 1 or reference[i] or live[i]]
    totals = [max(int(counts.sum()), 1) for counts in (reference, live)]
    shares = [(int(reference[i]) / totals[0], int(live[i]) / totals[1]) for i in shown]
    most = max((share for pair in shares for share in pair), default=0.0) or 1.0
    room, step = HEIGHT - _BOTTOM - _TOP, WIDTH / max(len(shown), 1)
    bars = tuple(
        Bar(
            x=round(place * step, 2),
            width=round(step, 2),
            reference=round(before / most * room, 2),
            live=round(now / most * room, 2),
            label=labels[cell],
            title=f"{labels[cell]}: reference {percent(before)}, live {percent(now)}",
        )
        for place, (cell, (before, now)) in enumerate(zip(shown, shares, strict=True))
    )
    return Distribution(bars, _ticks(bars), int(reference.sum()), int(live.sum()))


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


def cell_labels(grid: Grid) -> list[str]:
    """Name each coarse cell of a grid: the category, or the range of values."""
    if isinstance(grid, CategoricalGrid):
        return ["missing", "other", *grid.categories]
    if isinstance(grid, OpaqueGrid):
        return [f"cell {at}" for at in range(grid.size)]
    edges = _coarse_edges(grid)
    inner = [f"{_short(low)} to {_short(high)}" for low, high in pairwise(edges)]
    labels = ["missing", f"below {_short(edges[0])}", *inner]
    return [*labels, f"{_short(edges[-1])} and above"][: grid.size]


def segments(counts: Mapping[str, int], kinds: Sequence[str], *, total: int) -> list[Segment]:
    """Lay counts out as parts of a bar; what is zero has no part."""
    found, x = [], 0.0
    for kind in kinds:
        width = 100.0 * counts.get(kind, 0) / total if total else 0.0
        if width:
            found.append(Segment(kind, round(x, 3), round(width, 3), counts[kind]))
            x += width
    return found


def _coarse_edges(grid: NumericGrid) -> list[float]:
    """Return the lower edges of the coarse cells inside the range and above it."""
    fine = grid.fine_edges()
    return [float(fine[start - 2]) for start in grid.coarse[2:]]


def _ticks(bars: Sequence[Bar]) -> tuple[tuple[float, str], ...]:
    every = max(1, -(-len(bars) // _MOST_TICKS))
    return tuple((round(bar.x + bar.width / 2, 1), bar.label.split(" to ")[0][:14]) for bar in bars[::every])


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.2e}"
