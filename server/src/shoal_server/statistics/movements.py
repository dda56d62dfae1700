"""How the values of one feature moved from one sample to another: a gain, an offset, more or less spread. Pure.

A movement is believed when the reference's values, moved so, can't be told from the current ones: by Kolmogorov and
Smirnov's distance, which asks nothing of their distribution. Of movements that fit, the one that leaves least apart is
named. Leaves piles of equal values, units and missing ones to `causes`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_Numbers = npt.NDArray[np.float64]

MOST_POINTS = 2000
"""Larger samples are looked at by so many quantiles: enough to tell movements apart, and quick."""

FITS = 1.63
"""Kolmogorov's distribution exceeds this with probability 0.01."""

_DECILES = np.arange(0.1, 0.91, 0.1)
_PLAIN_GAIN = 0.05
_DOUBT = 0.3
"""A gain must fit better than an offset by this, as values far from zero look alike after either."""
_CLEAR = 2.6
"""Standard errors of a ratio of spreads, beyond which it is no chance."""


def distance(a: _Numbers, b: _Numbers) -> float:
    """Return Kolmogorov and Smirnov's distance in units of its own size by chance, about Kolmogorov distributed.

    >>> x = np.linspace(0.0, 1.0, 100)
    >>> distance(x, x) < FITS < distance(x, x + 0.5)
    True
    """
    x, y = _points(a), _points(b)
    at = np.concatenate([x, y])
    apart = np.abs(np.searchsorted(x, at, side="right") / x.size - np.searchsorted(y, at, side="right") / y.size).max()
    return float(apart) * math.sqrt(x.size * y.size / (x.size + y.size))


def gain_or_offset(a: _Numbers, b: _Numbers) -> tuple[str, float]:
    """Return ``gain`` and its factor or ``offset`` and its amount, whichever turns a into b; ("", 0) if neither does.

    Args:
        a: Finite values of the reference.
        b: Of the current sample.
    """
    before, now = np.quantile(a, _DECILES), np.quantile(b, _DECILES)
    spread = float(before[-1] - before[0])
    if min(a.size, b.size) < 30 or spread <= 0:
        return "", 0.0
    middle = float(np.median(now - before))
    told = [(distance(a + middle, b), "offset", middle)]
    usable = np.abs(before) > 0.05 * spread
    factor = float(np.median(now[usable] / before[usable])) if usable.any() else 0.0
    if factor > 0 and abs(factor - 1) > _PLAIN_GAIN:
        told.append((distance(a * factor, b) + _DOUBT, "gain", factor))
    fit, kind, amount = min(told)
    return (kind, amount) if fit < FITS else ("", 0.0)


def spread_ratio(a: _Numbers, b: _Numbers) -> float:
    """Return how many times as wide the current values are, 1 where chance explains the difference.

    The ratio of standard deviations must be clear, and that of the inner halves must not contradict it.
    """
    wide, narrow = float(a.std()), float(b.std())
    if min(wide, narrow) <= 0 or min(a.size, b.size) < 30:
        return 1.0
    ratio = narrow / wide
    tails = max(float(np.mean((x - x.mean()) ** 4)) / float(x.std()) ** 4 for x in (a, b))
    error = math.sqrt(max(tails - 1, 1.0) / 4 * (1 / a.size + 1 / b.size))
    inner = math.log(inner_ratio(a, b))
    against = abs(inner) > 0.1 and inner * math.log(ratio) < 0
    return 1.0 if abs(math.log(ratio)) < max(_CLEAR * error, 0.03) or against else ratio


def inner_ratio(a: _Numbers, b: _Numbers) -> float:
    """Return how many times as wide the inner half of the current values is, 1 where it has no width."""
    inner = [float(np.subtract(*np.quantile(x, [0.75, 0.25]))) for x in (a, b)]
    return inner[1] / inner[0] if min(inner) > 0 else 1.0


def _points(x: _Numbers) -> _Numbers:
    return np.sort(x) if x.size <= MOST_POINTS else np.quantile(x, (np.arange(MOST_POINTS) + 0.5) / MOST_POINTS)
