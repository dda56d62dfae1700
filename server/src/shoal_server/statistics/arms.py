"""Two bundles compared while rows come in: intervals that may be looked at as often as one likes. Pure.

Devices are what is drawn for one bundle or the other, so a difference of arms has two errors, and they are kept apart:

    rows      what these devices will say in the long run is known from the rows so far. It gets better with every
              row, and everybody may look at any time: an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha,
              Kennedy and Ramdas, Ann. Statist. 52 (2024), arXiv 2103.06476, theorem 2.2) for the difference of two
              arms that run in the same hours, on rows that count as fewer where those of an hour are alike (Kish's
              design effect).
    devices   other devices could have been drawn. That happens once, however often anybody looks, and no number of
              rows mends it: Student's t on the devices' means, as for any experiment that is randomised by clusters
              (Donner and Klar, Design and Analysis of Cluster Randomization Trials, 2000). While the bundles may be
              alike so may be how their devices differ: an arm of few devices borrows what the other shows of that, and
              counts its own where it is more.

Each gets half of alpha, and their reaches add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
MIN_ROWS = 50
"""Rows of an arm below which nothing is told."""

MIN_DEVICES = 3
"""Devices of an arm below which a difference may be the devices', and nothing is told."""

_RHO = 0.1
"""Of the mixture of means: about where a thousand rows are told best."""

_WEIGHT_CAP = 2.0
"""A device weighs at most so many times the median one."""

_LEAST_BLOCKS = 4


@dataclass(frozen=True, eq=False)
class Arm:
    """What the devices of one bundle said, or how right it was; D devices, H hours.

    Attributes:
        n: Rows, shape (D, H).
        total: Sums of the rows' values, same shape.
        square: Sums of their squares, same shape.
        most: Largest distance between two rows' values: 1 for shares; 0: unknown.
        yardstick: Standard error that all devices of the arm share, such as of what its bundle was measured by.
    """

    n: Floats
    total: Floats
    square: Floats
    most: float = 1.0
    yardstick: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """Arm b against arm a.

    Attributes:
        verdict: ``b_higher``, ``a_higher``, ``none`` (no difference shown yet) or ``too_few``.
        difference: b minus a.
        low, high: Bounds that hold at all times together; infinite where nothing can be told.
        values: Mean of a and of b over their devices.
        n: Rows of a and of b.
        devices: Devices of a and of b.
        reason: Why it is ``too_few``, in words.
    """

    verdict: str
    difference: float
    low: float
    high: float
    values: tuple[float, float]
    n: tuple[float, float]
    devices: tuple[int, int]
    reason: str = ""


@dataclass(frozen=True)
class _Mean:
    """Mean of an arm.

    Attributes:
        value: The mean.
        deviation: Standard deviation of a row within its device.
        by_rows: Squared standard error by rows alone.
        apart: Variance between the devices' means.
        telling: Devices that weigh as much as these, were all weights equal.
        devices: How many they are.
    """

    value: float
    deviation: float
    by_rows: float
    apart: float
    telling: float
    devices: int


def mean_reach(deviation: float, n: float, *, alpha: float = ALPHA) -> float:
    """Return how far a mean can be from the truth at all times together, as rows become many.

    Args:
        deviation: Standard deviation of a row.
        n: Rows so far, divided by a design effect where they are alike.
        alpha: Probability that the mean is ever farther off.
    """
    if n < 2:
        return math.inf
    mixed = n * _RHO**2 + 1
    return deviation * math.sqrt(2 * mixed / (n * _RHO) ** 2 * math.log(math.sqrt(mixed) / alpha))


def compare(a: Arm, b: Arm, *, alpha: float = ALPHA) -> Comparison:
    """Compare the means of two arms over their devices.

    Args:
        a: One arm, in the same hours as the other.
        b: The other.
        alpha: Probability that the bounds are ever wrong, with devices drawn at random.
    """
    rows, devices = (float(a.n.sum()), float(b.n.sum())), (_devices(a), _devices(b))
    reason = _too_few(rows, devices)
    means = [_mean(arm) if arm.n.sum() else _Mean(math.nan, 0.0, 0.0, 0.0, 0.0, 0) for arm in (a, b)]
    values = (means[0].value, means[1].value)
    gap = values[1] - values[0]
    if reason:
        return Comparison("too_few", gap, -math.inf, math.inf, values, rows, devices, reason)
    by_rows = means[0].by_rows + means[1].by_rows
    deviation = max(means[0].deviation, means[1].deviation)
    reach = mean_reach(deviation, deviation**2 / by_rows, alpha=alpha / 2) if by_rows else 0.0
    reach += _drawn(means[0], means[1], yardsticks=a.yardstick**2 + b.yardstick**2, alpha=alpha / 2)
    low, high = gap - reach, gap + reach
    verdict = "b_higher" if low > 0 else "a_higher" if high < 0 else "none"
    return Comparison(verdict, gap, low, high, values, rows, devices)


def _too_few(rows: tuple[float, float], devices: tuple[int, int]) -> str:
    if not min(rows):
        return "an arm has no rows"
    if min(devices) < MIN_DEVICES:
        return f"fewer than {MIN_DEVICES} devices in an arm: a difference may be the devices'"
    return f"fewer than {MIN_ROWS} rows in an arm" if min(rows) < MIN_ROWS else ""


def _devices(arm: Arm) -> int:
    return int((arm.n.sum(axis=1) > 0).sum())


def _mean(arm: Arm) -> _Mean:
    """Return an arm's mean over devices; no device weighs more than twice the median one."""
    heard = arm.n.sum(axis=1) > 0
    n, total = arm.n[heard].sum(axis=1), arm.total[heard].sum(axis=1)
    means, rows, devices = total / n, float(n.sum()), len(n)
    weights = np.minimum(n, _WEIGHT_CAP * np.median(n))
    weights = weights / weights.sum()
    value = float(weights @ means)
    inside = max(float(arm.square[heard].sum() - (n * means**2).sum()), 0.0)
    spread = (inside + arm.most**2) / max(rows - devices + 1, 1.0)
    telling = 1 / float((weights**2 / n).sum()) / _alike(arm.n[heard], arm.total[heard], means, spread)
    off = means - value
    apart = float(weights @ off**2) * devices / max(devices - 1, 1)
    return _Mean(value, math.sqrt(spread), spread / telling, apart, 1 / float((weights**2).sum()), devices)


def _alike(n: Floats, total: Floats, means: Floats, spread: float) -> float:
    """Return how many rows of a device's hour tell as much as one independent row, at least 1.

    The squared deviations of the hours' sums from the device's own mean, over those that independent rows would have:
    n_h - n_h^2 / n of them for each hour.
    """
    off = float(((total - means[:, None] * n) ** 2).sum())
    usual = spread * float((n - n**2 / n.sum(axis=1, keepdims=True)).sum())
    blocks = int((n > 0).sum()) - len(n)
    return max(1.0, off / usual) if blocks >= _LEAST_BLOCKS and usual > 0 else 1.0


def _drawn(a: _Mean, b: _Mean, *, yardsticks: float, alpha: float) -> float:
    """Return how far the draw of the devices, and what measures each arm, can have moved the difference."""
    degrees = [a.devices - 1, b.devices - 1]
    usual = (degrees[0] * a.apart + degrees[1] * b.apart) / sum(degrees)
    variance = sum(max(one.apart, usual) / one.telling for one in (a, b)) + yardsticks
    return float(stdtrit(sum(degrees), 1 - alpha / 2)) * math.sqrt(variance)
