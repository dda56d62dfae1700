"""How devices are pooled, so that none of them can decide alone: capped weights, trimming, leaving outliers out.

Invariant: what one device reports moves a pooled value by a bounded amount, however many rows it claims: its weight is
at most twice the median device's, and of five or more devices the most extreme on either side do not count at all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal_server.statistics.layout import Flags, Floats, Numbers

WEIGHT_CAP = 2.0
"""A device weighs at most so many times the median device."""

TRIM = 0.1
"""Share of the devices that is left out on either side, at least one from three devices on."""

OUTLIER = 4.5
"""Distance from the median device, in standard deviations, from which on a device is no part of the bulk.

Far out, since leaving out one tail of skewed scores would bias the mean of the rest; nearer ones show as devices."""

_NOTHING = 1e-100
"""Stands for a weight of zero where it is divided by."""


def capped(rows: Numbers) -> Floats:
    """Return the devices' weights: their rows, at most `WEIGHT_CAP` times the median.

    >>> capped(np.array([20, 22, 10**12])).tolist()
    [20.0, 22.0, 44.0]
    """
    return np.minimum(rows.astype(np.float64), WEIGHT_CAP * np.median(rows)) if rows.size else rows.astype(np.float64)


def trimmed_mean(values: Floats, weights: Floats) -> Floats:
    """Weighted mean over devices without the extreme ones.

    Args:
        values: Shape (D, ...), D at least 1.
        weights: Shape (D,).

    Returns:
        Shape (...): each entry trimmed by itself. Under three devices nothing is trimmed.
    """
    devices = len(values)
    cut = max(1, int(TRIM * devices)) if devices >= 3 else 0
    if cut == 0:
        return np.asarray(np.tensordot(weights, values, axes=(0, 0)) / weights.sum())
    order = np.argsort(values, axis=0, kind="stable")[cut : devices - cut]
    kept = weights[order]
    return np.asarray((np.take_along_axis(values, order, axis=0) * kept).sum(axis=0) / kept.sum(axis=0))


def bulk(distance: Floats, excluded: Flags) -> Flags:
    """Tell which devices belong to the bulk of the fleet.

    Args:
        distance: Standardised changes of the devices, shape (D, ...).
        excluded: Who is known to differ, same shape; obeyed only while it is a minority.

    Returns:
        Within `OUTLIER` of the median device, same shape.
    """
    minority = excluded.sum(axis=0) * 2 < len(excluded)
    counted = ~(excluded & minority)
    return np.asarray(counted & (np.abs(distance - _median(distance, counted)) <= OUTLIER))


def weighted_mean(values: Floats, weights: Floats, chosen: Flags, *, least: int = 1) -> Floats:
    """Weighted mean over the chosen devices; zero where none is chosen.

    Args:
        values: Shape (D, ...).
        weights: Shape (D,), or that of the values.
        chosen: Same shape as the values.
        least: Where fewer devices weigh anything, chosen or not, there are too few to speak of a mean: zero.
    """
    weights = weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))
    counted = np.where(chosen, weights, 0.0)
    mean = (values * counted).sum(axis=0) / np.maximum(counted.sum(axis=0), _NOTHING)
    return np.where((weights > 0).sum(axis=0) >= least, mean, 0.0)


def residual_widening(weights: Floats, *, members: npt.NDArray[np.int64], inside: Flags, fleet: Flags) -> Floats:
    """Return how much wider a cohort's residual varies than in a baseline in which all devices were in the bulk.

    A residual is the cohort's mean less the fleet's. While the cohort is part of the fleet, part of it cancels; once
    its devices are left out of the bulk, nothing does. For devices of equal variance per weight::

        variance ~ 1/W_cohort + 1/W_fleet - 2 W_both / (W_cohort W_fleet)

    Args:
        weights: Of all devices, shape (D, ...).
        members: Places of the cohort's devices, M of them.
        inside: Which of those are the cohort's bulk, shape (M, ...).
        fleet: Which of all devices are the fleet's bulk, shape (D, ...).

    Returns:
        Ratio of standard deviations, at least 1, shape (...).
    """
    mine, all_of_mine, everybody = weights[members], weights[members].sum(axis=0), weights.sum(axis=0)
    cohort = np.maximum((mine * inside).sum(axis=0), _NOTHING)
    whole = np.maximum((weights * fleet).sum(axis=0), _NOTHING)
    both = (mine * (inside & fleet[members])).sum(axis=0)
    now = 1 / cohort + 1 / whole - 2 * both / (cohort * whole)
    usual = 1 / np.maximum(all_of_mine, _NOTHING) - 1 / np.maximum(everybody, _NOTHING)
    return np.asarray(np.sqrt(np.maximum(now / np.maximum(usual, _NOTHING), 1.0)))


def _median(values: Floats, counted: Flags) -> Floats:
    """Median over the counted entries of the first axis, of which there is at least one everywhere."""
    ordered = np.sort(np.where(counted, values, np.inf), axis=0)
    number = counted.sum(axis=0, keepdims=True)
    low = np.take_along_axis(ordered, (number - 1) // 2, axis=0)
    high = np.take_along_axis(ordered, number // 2, axis=0)
    return np.asarray((low + high)[0] / 2)
