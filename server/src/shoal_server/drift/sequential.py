"""The sequential rule: when the evidence for a change is enough for an alarm, without a fixed sample size.

Owns the standardising of scores by a learnt baseline, the e-value of one window, and the Shiryaev-Roberts recursion
over windows. Knows no devices and no features: arrays of any shape in, arrays of the same shape out.

Sources: e-detectors, Shin, Ramdas and Rinaldo 2022 (arXiv 2203.03532): with E[e | past] <= 1 the mean time to a false
alarm of R >= A is at least A windows, and likewise for the mean of many R. Running moments, Welford 1962
(Technometrics 4). Moderated variance, Smyth 2004 (SAGMB 3). Normal score of Student's t, Wallace 1959 (Ann. Math.
Stat. 30).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shoal_server.statistics.layout import Floats, Numbers

DELTAS = (1.0, 2.0, 4.0)
"""Shifts, in standard deviations of one window's score, that the e-value bets on."""

PRIOR_WINDOWS = 4.0
"""Weight, in windows, of the variance that independent rows would have."""

_LONGEST_ROW = 3.0


@dataclass(frozen=True, kw_only=True)
class Level:
    """How one level (fleet, cohort or device) is watched.

    Attributes:
        tolerance: In standard errors of the baseline's mean: tau is this over the root of its windows, plus the user's.
        clip: Largest absolute standardised score that one window can contribute.
    """

    tolerance: float
    clip: float


FLEET = Level(tolerance=3.0, clip=8.0)
COHORT = Level(tolerance=4.0, clip=6.0)
DEVICE = Level(tolerance=5.0, clip=6.0)

BASELINE_WINDOWS = 48
"""Windows of a baseline, counted from the first one of the active digest."""

MEAN_TIME_TO_FALSE_ALARM = 10_000.0
"""A, in windows, of each level."""


def absorb(mean: Floats, m2: Floats, windows: Numbers, score: Floats) -> tuple[Floats, Floats]:
    """Add one window to running moments (Welford).

    Args:
        mean: Means so far.
        m2: Sums of squared deviations so far.
        windows: Number of windows *with* this one, shape broadcastable to the means.
        score: The window's.

    Returns:
        The new means and sums of squared deviations.
    """
    step = score - mean
    new = mean + step / windows
    return new, m2 + step * (score - new)


def moderated_sd(m2: Floats, windows: Numbers, *, prior: Floats) -> Floats:
    """Standard deviation of a window's score, between-window variance shrunk a little to that of independent rows.

    Args:
        m2: Sums of squared deviations over the baseline.
        windows: Of the baseline.
        prior: Variance of the mean of as many independent rows.
    """
    degrees = np.maximum(windows - 1.0, 0.0)
    return np.asarray(np.sqrt((m2 + PRIOR_WINDOWS * prior) / (degrees + PRIOR_WINDOWS)))


def bounded_sd(sd: Floats, *, reach: Floats, rows: Numbers) -> Floats:
    """Raise standard deviations so that one row alone stays within three of them.

    Scores of few rows of a value that hardly ever differs are far from normal; without this bound two odd rows in a row
    would be an alarm.

    Args:
        sd: Of a window's score.
        reach: How far one row's value can be from the mean.
        rows: Of the window.
    """
    return np.asarray(np.maximum(sd, reach / (_LONGEST_ROW * np.maximum(rows, 1.0))))


def effective_windows(windows: int, *, lag: Floats, m2: Floats) -> Floats:
    """Number of independent windows that tell as much of a mean as a baseline of neighbours that resemble each other.

    Args:
        windows: Of the baseline.
        lag: Sum of products of neighbouring deviations.
        m2: Sum of squared deviations.

    Returns:
        T (1 - r) / (1 + r), the variance of a mean of a first-order autoregression with autocorrelation r >= 0.
    """
    r = np.clip(lag / np.maximum(m2, 1e-300), 0.0, 0.9)
    return np.asarray(windows * (1 - r) / (1 + r))


def normal_score(change: Floats, sd: Floats, windows: Numbers) -> Floats:
    """Standardise a change from the baseline's mean, as a normal score of its Student's t.

    Args:
        change: Score minus the mean of the baseline.
        sd: Moderated standard deviation of one window's score.
        windows: Of the baseline, T0: its mean is uncertain too, hence the factor sqrt(1 + 1/T0).
    """
    degrees = np.maximum(windows - 1.0, 1.0) + PRIOR_WINDOWS
    t = change / (np.maximum(sd, 1e-300) * np.sqrt(1 + 1 / np.maximum(windows, 1)))
    size = np.sqrt(degrees * np.log1p(t * t / degrees)) * (8 * degrees + 1) / (8 * degrees + 3)
    return np.asarray(np.copysign(size, t))


def tau(level: Level, windows: Numbers, *, user: float = 0.0) -> Floats:
    """Tolerance in standard deviations of a window's score; without it an imperfect baseline would alarm in time."""
    return np.asarray(level.tolerance / np.sqrt(np.maximum(windows, 1)) + user)


def e_value(z: Floats, *, tolerance: Floats | float, clip: float) -> Floats:
    """Evidence of one window against "no change beyond the tolerance": its expectation is at most 1 without one.

    Args:
        z: Standardised scores.
        tolerance: tau.
        clip: Bound of |z|, so that no single window decides.

    Returns:
        Mean over both directions and `DELTAS` of exp(delta (z - tau) - delta^2 / 2).
    """
    z = np.clip(z, -clip, clip)
    total = np.zeros_like(z)
    for delta in DELTAS:
        shared = np.exp(-delta * tolerance - delta * delta / 2)
        up = np.exp(delta * z)
        total += shared * (up + 1 / up) / 2
    return total / len(DELTAS)


def shiryaev_roberts(r: Floats, e: Floats, *, most: float) -> Floats:
    """One step of the recursion R <- (1 + R) e.

    Args:
        r: Before the window.
        e: The window's e-value.
        most: Bound of R, far above the threshold; it only lets an alarm end within some windows of its cause.
    """
    return np.asarray(np.minimum((1 + r) * e, most))
