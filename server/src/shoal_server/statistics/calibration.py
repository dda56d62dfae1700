"""How far confidence can be believed: the share of right answers by confidence, its table and its error. Pure.

Source: Naeini, Cooper and Hauskrecht, AAAI 2015 (expected calibration error); reliability diagrams, DeGroot and
Fienberg, The Statistician 32 (1983). The pool of adjacent violators is Ayer et al., Ann. Math. Statist. 26 (1955).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal_server.statistics.proportions import wilson

Numbers = npt.NDArray[np.float64]

PRIOR_ROWS = 4.0
"""A bin's own share counts as so many rows of the monotone fit more: few rows lean on their neighbours."""

SHOWN_BINS = 10


def expected_calibration_error(answered: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """Return the mean gap between confidence and the share of right answers, by rows; NaN without rows.

    Args:
        answered: Rows by bin of confidence on [0, 1], equal bins.
        correct: Of them, those that were right.
    """
    a, c = np.asarray(answered, np.float64), np.asarray(correct, np.float64)
    total = a.sum()
    if not total:
        return float("nan")
    return float(np.abs(c - a * bin_centres(len(a))).sum() / total)


def reliability(answered: npt.ArrayLike, correct: npt.ArrayLike) -> list[dict[str, float | int]]:
    """Return the reliability table in `SHOWN_BINS` bins: confidence, share right with its interval, rows.

    Bins without rows are left out.
    """
    a, c = np.asarray(answered, np.float64), np.asarray(correct, np.float64)
    of = np.arange(len(a)) * SHOWN_BINS // len(a)
    centres = bin_centres(len(a))
    table = []
    for at in range(SHOWN_BINS):
        inside = of == at
        n, hits = a[inside].sum(), c[inside].sum()
        if n:
            low, high = wilson(hits, n)
            confidence = float(a[inside] @ centres[inside] / n)
            table.append({"confidence": confidence, "right": float(hits / n), "low": low, "high": high, "n": int(n)})
    return table


def smoothed_shares(answered: npt.ArrayLike, correct: npt.ArrayLike) -> Numbers:
    """Return P(right | bin) for every bin, also those without rows.

    A bin's own share, pulled by `PRIOR_ROWS` rows towards the best non-decreasing fit; bins without rows take that fit
    between their neighbours.

    Args:
        answered: Rows by bin, shape (..., bins).
        correct: Of them, those that were right, same shape.
    """
    a, c = np.asarray(answered, np.float64), np.asarray(correct, np.float64)
    if a.ndim > 1:
        return np.stack([smoothed_shares(one, right) for one, right in zip(a, c, strict=True)])
    seen = np.flatnonzero(a)
    if not seen.size:
        return bin_centres(len(a))
    fit = np.interp(np.arange(len(a)), seen, isotonic(c[seen] / a[seen], a[seen]))
    return np.asarray((c + PRIOR_ROWS * fit) / (a + PRIOR_ROWS))


def isotonic(values: Numbers, weights: Numbers) -> Numbers:
    """Return the non-decreasing sequence nearest to the values by weighted squares (pool adjacent violators)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, mass, size = value, weight, 1
        while pools and pools[-1][0] >= mean:
            before, heavy, count = pools.pop()
            mean = (before * heavy + mean * mass) / (heavy + mass)
            mass, size = heavy + mass, count + size
        pools.append((mean, mass, size))
    return np.repeat([mean for mean, _, _ in pools], [size for _, _, size in pools])


def bin_centres(bins: int) -> Numbers:
    """Return the centres of equal bins on [0, 1]."""
    return (np.arange(bins) + 0.5) / bins
