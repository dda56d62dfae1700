"""How far confidence can be believed: the share of right answers by confidence, its table and its error. Pure.

Source: Naeini, Cooper and Hauskrecht, AAAI 2015 (expected calibration error); reliability diagrams, DeGroot and
Fienberg, The Statistician 32 (1983). The mean deviation of a binomial number is de Moivre's (Diaconis and Zabell,
Statistical Science 6 (1991)). The pool of adjacent violators is Ayer et al., Ann. Math. Statist. 26 (1955).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, xlog1py, xlogy

from shoal_server.statistics.proportions import share

Numbers = npt.NDArray[np.float64]

CLAIMED_ROWS = 0.25
"""What the model claims counts as so many labelled rows in each bin."""

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


def calibration_error_by_chance(answered: npt.ArrayLike) -> float:
    """Return the calibration error that a model shows on average whose confidences are exactly right; NaN without rows.

    Each bin's share of right answers is off by chance, and the error adds up how far without a sign: with a few rows in
    each of many bins it is large whatever the model. With n rows in a bin of confidence p the mean distance of the
    right ones from n p is 2 k (1 - p) P(k), where k is the least whole number above n p.

    Args:
        answered: Rows by bin of confidence on [0, 1], equal bins; independent of one another.
    """
    n = np.asarray(answered, np.float64)
    p, total = bin_centres(len(n)), n.sum()
    if not total:
        return float("nan")
    k = np.minimum(np.floor(n * p) + 1, n)
    chance = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + xlogy(k, p) + xlog1py(n - k, -p)
    return float((2 * k * (1 - p) * np.exp(chance)).sum() / total)


def reliability(answered: npt.ArrayLike, correct: npt.ArrayLike) -> list[dict[str, float | int]]:
    """Return the reliability table in `SHOWN_BINS` bins: confidence, share right with its interval, rows.

    Bins without rows are left out.

    Args:
        answered: Rows by device and bin of confidence, shape (devices, bins).
        correct: Of them, those that were right, same shape.
    """
    a, c = np.asarray(answered, np.float64), np.asarray(correct, np.float64)
    bins = a.shape[1]
    of, centres = np.arange(bins) * SHOWN_BINS // bins, bin_centres(bins)
    table = []
    for at in range(SHOWN_BINS):
        inside = of == at
        right = share(c[:, inside].sum(axis=1), a[:, inside].sum(axis=1))
        if right.n:
            confidence = float(a[:, inside].sum(axis=0) @ centres[inside] / right.n)
            row = {"right": right.value, "low": right.low, "high": right.high, "n": right.n}
            table.append({"confidence": confidence, **row})
    return table


def smoothed_shares(answered: npt.ArrayLike, correct: npt.ArrayLike, *, claimed_rows: float = CLAIMED_ROWS) -> Numbers:
    """Return P(right | bin) for every bin, also those without rows.

    The best non-decreasing fit (isotonic calibration, Zadrozny and Elkan, KDD 2002); bins without rows take it between
    their neighbours, below all of them in proportion to the confidence. For the fit each bin counts a part of a row
    more that is right as often as the model claims: a model that was never wrong on a few rows is no proof that it is
    never wrong where it is hardly sure.

    Args:
        answered: Rows by bin, shape (..., bins).
        correct: Of them, those that were right, same shape.
        claimed_rows: Rows that the model's claim counts for in each bin; 0 takes confidences for ranks only.
    """
    a, c = np.asarray(answered, np.float64), np.asarray(correct, np.float64)
    if a.ndim > 1:
        pairs = zip(a, c, strict=True)
        return np.stack([smoothed_shares(one, right, claimed_rows=claimed_rows) for one, right in pairs])
    seen, centres = np.flatnonzero(a), bin_centres(len(a))
    if not seen.size:
        return centres
    leaning = (c[seen] + claimed_rows * centres[seen]) / (a[seen] + claimed_rows)
    fitted = isotonic(leaning, a[seen] + claimed_rows)
    fit = np.interp(np.arange(len(a)), seen, fitted)
    if claimed_rows:
        lowest = int(seen[0])
        fit[:lowest] = fitted[0] * centres[:lowest] / centres[lowest]
    return np.asarray(fit)


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
