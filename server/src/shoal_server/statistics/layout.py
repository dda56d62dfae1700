"""Arithmetic per stream on flat vectors of counts, for all streams and devices at once.

Owns the meaning of each coarse cell (missing, outside the range, inside) and sums, running sums and spreading within a
stream. Leaves the grids to `shoal_protocol.profile` and every statistic to the modules above. Streams differ in their
number of cells, so vectors stay flat, with the cells as their last axis: padding would multiply a fleet's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.grid import BELOW, MISSING, CategoricalGrid
from shoal_protocol.profile.profile import ProfileSpec

Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Numbers: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each stream's cells lie in a flat vector, and what they mean.

    Attributes:
        names: Of the streams, in order.
        starts: First cell of each stream, int64 of length F.
        lengths: Number of cells of each stream, int64 of length F, all at least 2.
        categorical: Which streams have no order among their cells.
        missing: Which cells count missing values, bool of the flat size.
        outside: Which cells count values below or above the range, or unknown categories.
        titles: Names of the streams for people, in order.
    """

    names: tuple[str, ...]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    categorical: Flags
    missing: Flags
    outside: Flags
    titles: tuple[str, ...]

    @classmethod
    def of(cls, spec: ProfileSpec) -> Layout:
        """Read the layout off a profile spec."""
        missing = np.zeros(spec.size, dtype=np.bool_)
        outside = np.zeros(spec.size, dtype=np.bool_)
        for at, stream in enumerate(spec.streams):
            start, end = int(spec.offsets[at]), int(spec.offsets[at + 1])
            missing[start + MISSING] = True
            outside[start + BELOW] = True  # of a categorical grid: the unknown categories
            grid = stream.grid
            if not isinstance(grid, CategoricalGrid) and grid.coarse[-1] == grid.cells - 1:
                outside[end - 1] = True
        return cls(
            tuple(stream.name for stream in spec.streams),
            spec.offsets[:-1],
            np.diff(spec.offsets),
            np.array([isinstance(stream.grid, CategoricalGrid) for stream in spec.streams], dtype=np.bool_),
            missing,
            outside,
            tuple(stream.title for stream in spec.streams),
        )

    def title(self, name: str) -> str:
        """Return a stream's name for people."""
        return self.titles[self.names.index(name)] if name in self.names else name

    @property
    def size(self) -> int:
        """Number of cells of all streams."""
        return int(self.missing.size)

    @property
    def streams(self) -> int:
        """Number of streams, F."""
        return len(self.names)

    def sums(self, cells: Numbers) -> Numbers:
        """Sum within each stream: shape (..., size) to (..., F)."""
        return np.asarray(np.add.reduceat(cells, self.starts, axis=-1))

    def spread(self, values: Numbers) -> Numbers:
        """Give each cell its stream's value: shape (..., F) to (..., size)."""
        return np.repeat(values, self.lengths, axis=-1)

    def running(self, cells: Floats) -> Floats:
        """Inclusive running sums within each stream, shape (..., size)."""
        total = np.cumsum(cells, axis=-1)
        before = total[..., self.starts] - cells[..., self.starts]
        return np.asarray(total - self.spread(before))

    def mid_ranks(self, cells: Floats) -> Floats:
        """Mid-rank of each cell among its stream's values that are not missing, from 0 to 1.

        Args:
            cells: Counts (or any weights), shape (..., size).
        """
        present = np.where(self.missing, 0.0, cells)
        total = np.maximum(self.sums(present), np.finfo(np.float64).tiny)
        return np.asarray((self.running(present) - present / 2) / self.spread(total))


def legendre(ranks: Floats) -> Floats:
    """Return the Legendre polynomials of degree 1 to 4, orthonormal on [0, 1].

    Args:
        ranks: From 0 to 1, any shape.

    Returns:
        Shape (4, ...). The mean of the first over a sample is its shift in standard deviations, nearly, when the values
        are normal and the ranks those of the unshifted distribution (0.977 per standard deviation).
    """
    x = 2 * ranks - 1
    x2 = x * x
    return np.stack(
        [
            np.sqrt(3) * x,
            np.sqrt(5) / 2 * (3 * x2 - 1),
            np.sqrt(7) / 2 * x * (5 * x2 - 3),
            3 / 8 * (35 * x2 * x2 - 30 * x2 + 3),
        ]
    )
