"""A stream's reference and live distribution, in the feature's own units: what a page draws. Pure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from shoal_protocol.profile.grid import CategoricalGrid, NumericGrid, OpaqueGrid
from shoal_protocol.profile.profile import Stream
from shoal_protocol.profile.reference import Reference
from shoal_server.statistics.layout import Floats


def distribution(reference: Reference, name: str, live: Floats) -> dict[str, Any]:
    """Return one stream's cells with their shares.

    Args:
        reference: Of the bundle.
        name: Of the stream.
        live: The fleet's recent counts of all streams, shape (size,).

    Returns:
        ``{kind, cells: [{label, low, high, reference, live}]}``; bounds are none where a cell has none.
    """
    stream = reference.spec.streams[reference.spec.index[name]]
    where = reference.spec.slice(name)
    shares = [_shares(counts[where]) for counts in (reference.profile.cells.astype(np.float64), live)]
    cells = [
        {"label": label, "low": low, "high": high, "reference": round(float(before), 6), "live": round(float(now), 6)}
        for (label, low, high), before, now in zip(cell_bounds(stream), *shares, strict=True)
    ]
    return {"kind": "categorical" if isinstance(stream.grid, CategoricalGrid) else "numeric", "cells": cells}


def cell_bounds(stream: Stream) -> list[tuple[str, float | None, float | None]]:
    """Return label, lower and upper bound of each of a stream's coarse cells."""
    if isinstance(stream.grid, CategoricalGrid):
        return [(label, None, None) for label in ("missing", "other", *stream.grid.categories)]
    if isinstance(stream.grid, OpaqueGrid):
        return [(f"cell {at}", None, None) for at in range(stream.grid.size)]
    return _numeric_bounds(stream.grid)


def _numeric_bounds(grid: NumericGrid) -> list[tuple[str, float | None, float | None]]:
    edges = [float(edge) for edge in grid.fine_edges()]
    found: list[tuple[str, float | None, float | None]] = [("missing", None, None), ("below", None, edges[0])]
    for place, start in enumerate(grid.coarse[2:], start=2):
        last = place + 1 == len(grid.coarse)
        if last and start == grid.cells - 1:
            found.append(("above", edges[-1], None))
            continue
        low, high = edges[start - 2], edges[-1] if last else edges[grid.coarse[place + 1] - 2]
        found.append((f"{_short(low)} to {_short(high)}", low, high))
    return found


def _short(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _shares(counts: Floats) -> Floats:
    return counts / max(float(counts.sum()), 1e-300)
