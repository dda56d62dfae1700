"""The coarse cells of a stream in its own units: names and bounds. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shoal_protocol.profile.grid import CategoricalGrid, Grid, NumericGrid, OpaqueGrid
from shoal_server.statistics.layout import Floats, Numbers


class Cell(NamedTuple):
    """One coarse cell; a bound that it lacks is none."""

    label: str
    low: float | None
    high: float | None


def cells_of(grid: Grid) -> list[Cell]:
    """Return a grid's coarse cells in order: missing, below (or other), then the range or the categories."""
    if isinstance(grid, CategoricalGrid):
        return [Cell(label, None, None) for label in ("missing", "other", *grid.categories)]
    if isinstance(grid, OpaqueGrid):
        return [Cell(f"cell {at}", None, None) for at in range(grid.size)]
    edges = [float(edge) for edge in grid.fine_edges()]
    found = [Cell("missing", None, None), Cell(f"below {short(edges[0])}", None, edges[0])]
    for place, start in enumerate(grid.coarse[2:], start=2):
        last = place + 1 == len(grid.coarse)
        if last and _ends_above(grid):
            found.append(Cell(f"{short(edges[-1])} and above", edges[-1], None))
            continue
        low, high = edges[start - 2], edges[-1] if last else edges[grid.coarse[place + 1] - 2]
        found.append(Cell(f"{short(low)} to {short(high)}", low, high))
    return found


def distribution(grid: Grid, reference: Floats | Numbers, live: Floats | Numbers) -> dict[str, Any]:
    """Return two samples of one stream as shares, cell by cell: what `report.plots` draws.

    Args:
        grid: Of the stream.
        reference: Counts on its coarse cells.
        live: The same of now.

    Returns:
        ``{kind, scale, cells: [{label, low, high, reference, live}]}``; bounds are none where a cell has none, `scale`
        is that of an asinh axis, none where it is linear.
    """
    shares = [np.asarray(counts, np.float64) / max(float(counts.sum()), 1e-300) for counts in (reference, live)]
    cells = [
        {**cell._asdict(), "reference": round(float(before), 6), "live": round(float(now), 6)}
        for cell, before, now in zip(cells_of(grid), *shares, strict=True)
    ]
    asinh = isinstance(grid, NumericGrid) and grid.transform == "asinh"
    return {
        "kind": "numeric" if isinstance(grid, NumericGrid) else "categorical",
        "scale": grid.scale if asinh and isinstance(grid, NumericGrid) else None,
        "cells": cells,
    }


def short(value: float) -> str:
    """Write a bound.

    >>> short(12.34567), short(123456.0)
    ('12.35', '1.235e+05')
    """
    return f"{value:.4g}"


def _ends_above(grid: NumericGrid) -> bool:
    return grid.coarse[-1] == grid.cells - 1
