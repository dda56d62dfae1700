"""PSI and Jensen-Shannon divergence of two samples' counts, and how large they get by chance.

A fixed threshold on either means nothing without the number of rows: on equal data both grow as rows get fewer. They
are effect sizes; decisions are made by the tests of `views`.

Source: PSI as a scaled chi-square, Yurdakul and Naranjo 2020 (J. Risk Model Validation 14).
"""

from __future__ import annotations

import numpy as np
from scipy import special

from shoal_server.statistics.layout import Floats, Layout, Numbers

_SMOOTHING = 0.5


def psi(layout: Layout, a: Numbers, b: Numbers) -> Floats:
    """Population stability index, sum (p - q) ln(p / q) over cells smoothed by half a row, shape (..., F)."""
    p, q = _shares(layout, a), _shares(layout, b)
    return np.asarray(layout.sums((p - q) * np.log(p / q)))


def jensen_shannon(layout: Layout, a: Numbers, b: Numbers) -> Floats:
    """Jensen-Shannon divergence in nats over cells smoothed by half a row, shape (..., F); at most ln 2."""
    p, q = _shares(layout, a), _shares(layout, b)
    middle = (p + q) / 2
    return np.asarray(layout.sums(p * np.log(p / middle) + q * np.log(q / middle)) / 2)


def by_chance(layout: Layout, rows_a: Floats, rows_b: Floats, *, alpha: float = 0.01) -> Floats:
    """Return what PSI exceeds with probability alpha on equal data: (1/n + 1/m) chi2_{B-1, 1-alpha}, shape (..., F).

    JS is an eighth of PSI when both are small, and so is its threshold.
    """
    pairs = 1 / np.maximum(rows_a, 1) + 1 / np.maximum(rows_b, 1)
    return np.asarray(pairs * special.chdtri(layout.lengths - 1.0, alpha))


def _shares(layout: Layout, cells: Numbers) -> Floats:
    smooth = cells + _SMOOTHING
    return np.asarray(smooth / layout.spread(layout.sums(smooth)))
