"""Grids: where a value is counted. Fixed by the bundle, inherited by later versions, so that counts stay comparable.

A numeric grid has K fine cells of equal width on a linear or asinh scale: cell 0 counts missing values, cell 1 all that
lies below the range, cell K-1 all above. Fine cells are what moments are summed over; only the coarse cells, unions of
fine ones, travel. A categorical grid has one cell for missing, one for unknown, then one for each category.

Invariant: for one grid and one value the cell is the same on every machine; arithmetic is float32 by one formula, which
the agent's vectorised observer uses too: ``cell = clip((t(x) - origin) * inverse_step, 1, K - 1)``, truncated.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_protocol.canonical import canonical_bytes, rounded, sha256_digest
from shoal_protocol.errors import ContentError

CELLS = 256
MISSING, BELOW = 0, 1
OTHER = 1
_WIDEN = 0.25
_TAIL = 0.0005
_COARSE = 32
_MOST_OPAQUE = 4096
_EXACT_INTEGERS = 2**22
_FEW_MARGIN = 2.0

FEW_VALUES = 50
"""Fewer values of a feature than this don't show how it is distributed."""

Cells: TypeAlias = npt.NDArray[np.int32]


class NumericGrid(msgspec.Struct, frozen=True):
    """Fine cells of equal width.

    Attributes:
        origin: In transformed units; a value at the lower end of the range falls into cell 2.
        inverse_step: Cells per transformed unit, float32.
        transform: ``linear``, or ``asinh`` of the value divided by `scale`.
        coarse: First fine cell of each coarse cell, ascending, beginning 0, 1, 2.
    """

    origin: float
    inverse_step: float
    transform: Literal["linear", "asinh"] = "linear"
    scale: float = 1.0
    cells: int = CELLS
    coarse: tuple[int, ...] = (0, 1, 2)

    def as_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {
            "kind": "numeric",
            "origin": self.origin,
            "inverse_step": self.inverse_step,
            "transform": self.transform,
            "scale": self.scale,
            "cells": self.cells,
            "coarse": list(self.coarse),
        }

    @property
    def size(self) -> int:
        """Number of coarse cells."""
        return len(self.coarse)

    def cells_of(self, values: npt.ArrayLike) -> Cells:
        """Return the fine cell of each value, int32 of the same shape."""
        with np.errstate(over="ignore"):  # what is too large for float32 is counted as above or below
            x = np.array(values, dtype=np.float32)
            missing = np.isnan(x)
            if self.transform == "asinh":
                x = np.arcsinh(x / np.float32(self.scale))
            x = (x - np.float32(self.origin)) * np.float32(self.inverse_step)
        np.clip(x, np.float32(BELOW), np.float32(self.cells - 1), out=x)
        x[missing] = MISSING
        return x.astype(np.int32)

    def fine_edges(self) -> npt.NDArray[np.float64]:
        """Return the lower edges of the fine cells 2 to K-1 in the feature's own units, float64 of length K-2."""
        at = np.arange(2, self.cells, dtype=np.float64) / self.inverse_step + self.origin
        return np.sinh(at) * self.scale if self.transform == "asinh" else at


class CategoricalGrid(msgspec.Struct, frozen=True):
    """One cell a category, after missing and other."""

    categories: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {"kind": "categorical", "categories": list(self.categories)}

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.categories) + 2

    @property
    def cells(self) -> int:
        """Number of fine cells, the same as the coarse ones."""
        return self.size

    @property
    def coarse(self) -> tuple[int, ...]:
        """First fine cell of each coarse cell: every one."""
        return tuple(range(self.size))

    def cells_of(self, values: npt.ArrayLike) -> Cells:
        """Return the cell of each value, int32 of the same shape; None, NaN and the empty text are missing."""
        index = {category: at + 2 for at, category in enumerate(self.categories)}
        array = np.asarray(values)
        texts = [category_text(value) for value in array.ravel().tolist()]
        cells = [MISSING if text == "" else index.get(text, OTHER) for text in texts]
        return np.array(cells, dtype=np.int32).reshape(array.shape)


class OpaqueGrid(msgspec.Struct, frozen=True):
    """A grid of a kind that this version doesn't know: a stream on it keeps its place, and stays uncounted."""

    size: int
    document: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the wire form, as it came."""
        return self.document

    @property
    def cells(self) -> int:
        """Number of fine cells, the same as the coarse ones."""
        return self.size

    @property
    def coarse(self) -> tuple[int, ...]:
        """First fine cell of each coarse cell: every one."""
        return tuple(range(self.size))

    def cells_of(self, values: npt.ArrayLike) -> Cells:  # noqa: ARG002 - as other grids have it
        """Raise: how values are counted here is not known.

        Raises:
            ContentError: Always.
        """
        raise ContentError(f"a grid of kind {self.document.get('kind')!r:.40} can't be counted by this version")


Grid: TypeAlias = NumericGrid | CategoricalGrid | OpaqueGrid


def category_text(value: object) -> str:
    """Return the text under which a value is counted; missing values give the empty text.

    >>> [category_text(v) for v in (True, 3, 3.0, "a", None, float("nan"))]
    ['true', '3', '3', 'a', '', '']
    """
    if value is None:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        if np.isnan(value):
            return ""
        return str(int(value)) if float(value).is_integer() else repr(rounded(float(value)))
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def grid_hash(grid: Grid) -> str:
    """Return 16 hexadecimal digits that are equal exactly when two grids count alike."""
    return sha256_digest(canonical_bytes(grid.as_json()))[7:23]


def parse_grid(document: dict[str, Any]) -> Grid:
    """Parse the wire form; of a kind from the future the number of cells, which it says as ``size``.

    Raises:
        ContentError: A field is missing, of another type, or out of range.
    """
    try:
        if document["kind"] == "categorical":
            return CategoricalGrid(tuple(str(c) for c in document["categories"]))
        if document["kind"] == "numeric":
            return _checked(
                NumericGrid(
                    float(document["origin"]),
                    float(document["inverse_step"]),
                    document["transform"],
                    float(document["scale"]),
                    int(document["cells"]),
                    tuple(int(c) for c in document["coarse"]),
                )
            )
        size = int(document["size"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ContentError(f"this is no grid: {error!r}") from error
    if not 2 <= size <= _MOST_OPAQUE:
        raise ContentError(f"this is no grid: kind {document['kind']!r:.40} is unknown, and it has {size} cells")
    return OpaqueGrid(size, document)


def _checked(grid: NumericGrid) -> NumericGrid:
    starts = np.array(grid.coarse)
    if grid.transform not in {"linear", "asinh"} or not 8 <= grid.cells <= 4096:
        raise ContentError(f"a numeric grid has transform {grid.transform!r:.40} and {grid.cells} cells")
    with np.errstate(over="ignore", under="ignore"):  # counting is float32, where 1e39 is infinite and 1e-50 is zero
        origin, inverse_step, scale = np.array([grid.origin, grid.inverse_step, grid.scale], dtype=np.float32)
    if not (np.isfinite([origin, inverse_step, scale]).all() and inverse_step > 0 and scale > 0):
        raise ContentError("a numeric grid has an origin, step or scale that is not finite and positive in float32")
    if len(starts) < 3 or tuple(starts[:3]) != (0, 1, 2) or (np.diff(starts) <= 0).any() or starts[-1] >= grid.cells:
        raise ContentError("a numeric grid's coarse cells must begin 0, 1, 2 and ascend within its cells")
    return grid


def fit_numeric(values: npt.ArrayLike) -> NumericGrid:
    """Fit a grid to training values: the range [0.05 %, 99.95 %] widened by a quarter.

    The scale is asinh where a linear fine cell, other than an atom, would hold more than 1/32 of the values. Coarse
    cells are cut at the reference's quantiles; an atom (one fine cell with at least 1/64 of the values, such as zeros)
    gets a coarse cell of its own.
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    x = x[np.isfinite(x)]
    if x.size == 0:
        return NumericGrid(origin=-1.0, inverse_step=1.0)
    grid = _ranged(x, "linear", 1.0)
    counts = np.bincount(grid.cells_of(x), minlength=CELLS)
    if _crowded(x, counts, grid):
        magnitude = np.abs(x[x != 0])
        scale = _f32(np.quantile(magnitude, 0.25)) if magnitude.size else 1.0
        grid = _ranged(x, "asinh", scale if scale > 0 else 1.0)
        counts = np.bincount(grid.cells_of(x), minlength=CELLS)
    return NumericGrid(grid.origin, grid.inverse_step, grid.transform, grid.scale, CELLS, coarse_cells(counts))


def fit_few(values: npt.ArrayLike) -> NumericGrid:
    """Fit a grid to fewer than `FEW_VALUES` values, which show neither range nor quantiles.

    It reaches twice their span beyond either end, and its coarse cells are equal, four fine ones each: so the fleet's
    own first windows can be what later ones are compared with. Without any value it is that of `fit_numeric`.
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    x = x[np.isfinite(x)]
    if x.size == 0:
        return fit_numeric(x)
    low, high = float(x.min()), float(x.max())
    span = high - low
    if span <= 1e-6 * max(abs(low), abs(high)):
        span = max(abs(high), 1.0)
    inverse_step = _f32((CELLS - 3) / (span * (1 + 2 * _FEW_MARGIN)))
    origin = _f32(low - _FEW_MARGIN * span - 2 / inverse_step)
    return NumericGrid(origin, inverse_step, coarse=(0, 1, *range(2, CELLS - 1, 4), CELLS - 1))


def fit_integer(values: npt.ArrayLike) -> NumericGrid:
    """Fit a grid to whole numbers: one fine cell each if few enough, frequent ones a coarse cell of their own.

    A wider range is cut as by `fit_numeric`; so is one without any value.
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    x = x[np.isfinite(x)]
    if x.size == 0:
        return fit_numeric(x)
    low, high = (float(at) for at in np.quantile(x, [_TAIL, 1 - _TAIL], method="inverted_cdf"))
    margin = max(1.0, np.ceil(_WIDEN * (high - low)))
    low, high = np.floor(low - margin), np.ceil(high + margin)
    numbers = high - low + 1
    if numbers > CELLS - 3 or max(abs(low), abs(high)) > _EXACT_INTEGERS:
        return fit_numeric(x)
    grid = NumericGrid(float(low) - 2.5, 1.0)  # each number in the middle of its cell
    if numbers + 3 <= _COARSE:
        cells = max(8, int(numbers) + 3)
        return NumericGrid(grid.origin, 1.0, cells=cells, coarse=tuple(range(cells)))
    return NumericGrid(grid.origin, 1.0, coarse=coarse_cells(np.bincount(grid.cells_of(x), minlength=CELLS)))


def fit_categorical(values: npt.ArrayLike, *, most: int = 64) -> CategoricalGrid:
    """Fit a grid to training values: the `most` frequent categories, in the order of their text."""
    texts = [category_text(v) for v in np.asarray(values).ravel()]
    unique, counts = np.unique(np.array([t for t in texts if t] or [""], dtype=object), return_counts=True)
    ranked = sorted(zip(-counts, unique, strict=True))[:most]
    return CategoricalGrid(tuple(sorted(str(text) for _, text in ranked if text)))


def unit_interval_grid(*, bins: int = 64) -> NumericGrid:
    """Return the grid of scores and confidences: equal bins on [0, 1], every one of them reported.

    All bins travel, since accuracy is estimated from them; exactly 1.0 belongs to the last bin's own cell.
    """
    cells = bins + 4
    coarse = tuple(cell for cell in range(cells) if cell != bins + 2)
    return NumericGrid(-2.0 / bins, float(bins), "linear", 1.0, cells, coarse)


def _f32(value: float) -> float:
    return rounded(float(np.float32(value)))


def _ranged(x: npt.NDArray[np.float64], transform: Literal["linear", "asinh"], scale: float) -> NumericGrid:
    t = np.arcsinh(x / scale) if transform == "asinh" else x
    low, high = np.quantile(t, [_TAIL, 1 - _TAIL])
    width = high - low
    if width <= max(abs(high), abs(low), 1e-30) * 1e-6:
        width = max(abs(high), 1.0)
    low, width = low - _WIDEN * width, width * (1 + 2 * _WIDEN)
    inverse_step = _f32((CELLS - 3) / width)
    return NumericGrid(_f32(low - 2 / inverse_step), inverse_step, transform, scale)


def _crowded(x: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], grid: NumericGrid) -> bool:
    """Tell whether a linear fine cell that is no atom holds more than 1/32 of the values."""
    cells = grid.cells_of(x)
    for cell in np.flatnonzero(counts > x.size / 32):
        inside = x[cells == cell]
        _, repeats = np.unique(inside, return_counts=True)
        if inside.size - repeats.max() > x.size / 32:
            return True
    return False


def coarse_cells(counts: npt.NDArray[np.int64]) -> tuple[int, ...]:
    """Return the first fine cell of each coarse cell: cut at quantiles, atoms apart.

    Args:
        counts: Of the fine cells, int64 of length `CELLS`.
    """
    total = counts[2:-1].sum()
    starts = {0, 1, 2, CELLS - 1}
    if total:
        atoms = 2 + np.flatnonzero(counts[2:-1] >= total / 64)
        largest = sorted(atoms, key=lambda cell: (-counts[cell], cell))[: _COARSE // 4]
        for cell in largest:
            starts |= {int(cell), int(cell) + 1}
        spread = np.cumsum(counts[2:-1])
        room = max(2, _COARSE - len(starts))
        for part in range(1, room):
            cut = 3 + int(np.searchsorted(spread, total * part / room))
            if len(starts) < _COARSE:
                starts.add(min(cut, CELLS - 1))
    return tuple(sorted(starts))
