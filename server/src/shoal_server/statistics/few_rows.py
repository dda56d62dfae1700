"""Whether a change is so plain that even few rows show it: bounds that hold at any number of rows. Pure.

The views rest on large samples, so under 200 effective rows they say nothing. A sensor that has gone wholly astray
shows in 150 all the same, and these bounds never say drift too often, whatever the values. They say no more than that:
few rows that look alike are still too few.

Sources: Dvoretzky, Kiefer and Wolfowitz 1956 in its two-sample form, Wei and Dudley 2012 (Statist. Probab. Lett. 82):
P(D > d) <= e exp(-2 d^2 nm / (n + m)); exact conditional binomial, see `views`.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_server.statistics.views import rate_p

LEAST_ROWS = 150.0
"""Fewer effective rows than this on either side show nothing."""


def plain_p(reference: npt.NDArray[Any], current: npt.NDArray[Any], *, effects: tuple[float, float]) -> float:
    """Return a bound of the p-value of "the samples are equal", over values and missing ones.

    Args:
        reference: Float64 with NaN for missing, or texts of dtype object with "" for missing.
        current: The same.
        effects: Design effect of each.
    """
    texts = reference.dtype.kind == "O"
    gone = [float(np.sum(x == "" if texts else np.isnan(x))) for x in (reference, current)]
    rows = [float(x.size) for x in (reference, current)]
    missing = _rate(gone[0] / effects[0], rows[0] / effects[0], gone[1] / effects[1], rows[1] / effects[1])
    present = [count - none for count, none in zip(rows, gone, strict=True)]
    if min(count / effect for count, effect in zip(present, effects, strict=True)) < LEAST_ROWS:
        return min(1.0, 2 * missing)
    if texts:
        values = _categories(reference, current, effects=effects)
    else:
        pairs = 1 / (effects[0] / present[0] + effects[1] / present[1])
        values = math.e * math.exp(-2 * pairs * _distance(reference, current) ** 2)
    return min(1.0, 2 * min(missing, values))


def _distance(reference: npt.NDArray[np.float64], current: npt.NDArray[np.float64]) -> float:
    """Kolmogorov-Smirnov distance of the values that are not missing."""
    a, b = (np.sort(x[~np.isnan(x)]) for x in (reference, current))
    at = np.concatenate([a, b])
    shares = [np.searchsorted(x, at, side="right") / x.size for x in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def _categories(reference: npt.NDArray[Any], current: npt.NDArray[Any], *, effects: tuple[float, float]) -> float:
    """Smallest p-value of any category's share, times their number."""
    counts = [Counter(x[x != ""].tolist()) for x in (reference, current)]
    names = list(counts[0] | counts[1])
    totals = [count.total() / effect for count, effect in zip(counts, effects, strict=True)]
    hits = [np.array([count[name] for name in names]) / effect for count, effect in zip(counts, effects, strict=True)]
    p = rate_p(hits[0], np.full(len(names), totals[0]), hits[1], np.full(len(names), totals[1]))
    return min(1.0, 2 * float(p.min()) * len(names))  # twice: the mid-p alone may be a little too small


def _rate(hits_a: float, rows_a: float, hits_b: float, rows_b: float) -> float:
    p = rate_p(np.array([hits_a]), np.array([rows_a]), np.array([hits_b]), np.array([rows_b]))
    return min(1.0, 2 * float(p[0]))
