"""What one window of one scope scores in each of six components, on a basis that the bundle fixes.

Owns the components that are watched over time: the means of four Legendre polynomials of the reference's mid-rank, the
share of missing values, the share outside of the range. Unlike the views, which are tests of two samples, scores are
plain means: linear in the counts, bounded, and so comparable between windows, devices and scopes. How much a score
varies by itself is learnt by `sequential`, so the polynomials need no orthonormalising here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal_server.statistics.layout import Floats, Layout, legendre
from shoal_server.statistics.views import View

CONTRASTS = 4
MISSING, OUTSIDE = 4, 5
COMPONENTS = 6
"""Streams of scores that are watched for each feature: z1 to z4, missing, range."""

_SMOOTHING = 0.5


@dataclass(frozen=True, eq=False)
class Basis:
    """The fixed polynomials of one bundle.

    Attributes:
        layout: Of the flat vectors of counts.
        polynomials: Value of each contrast in each cell, shape (4, size); zero in the cells of missing values.
        mean: Mean of each contrast over the reference, shape (F, 4).
        variance: Its variance over rows of the reference, shape (F, 4), never zero: cells are smoothed by half a row.
        third: Its third central moment, shape (F, 4).
        reach: Largest distance of a cell's value from the mean, shape (F, 4).
    """

    layout: Layout
    polynomials: Floats
    mean: Floats
    variance: Floats
    third: Floats
    reach: Floats

    @classmethod
    def of(cls, layout: Layout, reference: npt.NDArray[np.int64]) -> Basis:
        """Make the basis of a reference's counts, shape (size,)."""
        smooth = np.where(layout.missing, 0.0, reference + _SMOOTHING)
        weights = smooth / layout.spread(layout.sums(smooth))
        values = np.where(layout.missing, 0.0, legendre(layout.mid_ranks(smooth)))
        mean = layout.sums(weights * values)
        distance = np.where(layout.missing, 0.0, values - layout.spread(mean))
        reach = np.maximum.reduceat(np.abs(distance), layout.starts, axis=-1)
        variance, third = (layout.sums(weights * distance**power) for power in (2, 3))
        return cls(layout, values, mean.T, variance.T, third.T, reach.T)

    def scores(self, cells: npt.NDArray[np.int64]) -> Floats:
        """Score counts.

        Args:
            cells: Shape (W, size).

        Returns:
            Shape (W, F, 6): means of the contrasts over the rows that are not missing (the reference's mean where there
            are none), then the shares of missing values and of values out of range.
        """
        layout = self.layout
        rows = layout.sums(cells).astype(np.float64)
        scores = np.empty((len(cells), layout.streams, COMPONENTS))
        missing = layout.sums(np.where(layout.missing, cells, 0))
        present = rows - missing
        for at, polynomial in enumerate(self.polynomials):
            total = layout.sums(cells * polynomial)
            scores[..., at] = np.where(present > 0, total / np.maximum(present, 1), self.mean[:, at])
        scores[..., MISSING] = missing / np.maximum(rows, 1)
        scores[..., OUTSIDE] = layout.sums(np.where(layout.outside, cells, 0)) / np.maximum(rows, 1)
        return scores

    def counted(self, cells: npt.NDArray[np.int64], scores: Floats) -> Floats:
        """Return the rows that each score is made of.

        The contrasts know nothing of missing values; and a stream that a device could not count has no rows at all.

        Args:
            cells: Shape (W, size).
            scores: Of those, see `scores`.

        Returns:
            Shape (W, F, 6).
        """
        rows = np.repeat(self.layout.sums(cells).astype(np.float64)[..., None], COMPONENTS, axis=-1)
        rows[..., :CONTRASTS] *= 1 - scores[..., MISSING, None]
        return rows


def view_of(component: int, *, categorical: bool) -> View:
    """Return which view a component belongs to; contrasts of unordered categories are a look at their mix.

    >>> view_of(0, categorical=False), view_of(2, categorical=False), view_of(0, categorical=True)
    (<View.LOCATION: 'location'>, <View.SHAPE: 'shape'>, <View.CELLS: 'cells'>)
    """
    if component == MISSING:
        return View.MISSING
    if component == OUTSIDE:
        return View.RANGE
    if categorical:
        return View.CELLS
    return View.LOCATION if component == 0 else View.SHAPE
