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

MEMORY = 0.95
"""Weight, from window to window, of the past when autocorrelations are summed: about twenty windows are looked back."""

LEAST_LAGGED = 12
"""Windows from which on autocorrelations are learnt."""

MOST_INFLATION = 20.0

_LONGEST_ROW = 1.5
_STRAIGHT = 1e-3


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


def moderated_sd(m2: Floats, windows: Numbers, *, prior: Floats, inflated: Floats | float = 1.0) -> Floats:
    """Standard deviation of a window's score, between-window variance shrunk a little to that of independent rows.

    Args:
        m2: Sums of squared deviations over the baseline.
        windows: Of the baseline.
        prior: Variance of the mean of as many independent rows.
        inflated: See `inflation`: deviations from a mean that follows them are too small by this over the windows.
    """
    degrees = np.maximum(windows - np.minimum(inflated, windows / 2), 0.0)
    return np.asarray(np.sqrt((m2 + PRIOR_WINDOWS * prior) / (degrees + PRIOR_WINDOWS)))


def bounded_sd(sd: Floats, *, reach: Floats, rows: Numbers) -> Floats:
    """Raise standard deviations so that one row alone stays within one and a half of them.

    Scores of few rows of a value that hardly ever differs are far from normal; without this bound two odd rows in a row
    would be an alarm.

    Args:
        sd: Of a window's score.
        reach: How far one row's value can be from the mean.
        rows: Of the window.
    """
    return np.asarray(np.maximum(sd, reach / (_LONGEST_ROW * np.maximum(rows, 1.0))))


def lagged(memory: Floats, total: Floats, score: Floats) -> tuple[Floats, Floats]:
    """Add one window to the running sum of a score's products with the windows before it.

    Args:
        memory: Sum of the scores before, the one k windows ago weighing `MEMORY` ** (k - 1).
        total: Sum of products so far.
        score: The window's.

    Returns:
        The new memory and sum of products.
    """
    return MEMORY * memory + score, total + score * memory


def persistence(lag: Floats, m2: Floats, windows: Numbers) -> Floats:
    """Sum of a score's autocorrelations over all lags, with the weights of `lagged`; about 0 for independent windows.

    Args:
        lag: Sums of products, see `lagged`.
        m2: Sums of squared deviations.
        windows: Over which both were learnt; of under `LEAST_LAGGED` nothing can be said, and 0 is returned.
    """
    told = (m2 > 0) & (windows >= LEAST_LAGGED)
    return np.asarray(np.where(told, lag / np.where(told, m2, 1.0), 0.0))


def inflation(own: Floats, usual: Floats, windows: Numbers) -> Floats:
    """How many times the sum of many windows' scores varies more than if they were independent.

    D = 1 + 2 (sum of autocorrelations), the variance inflation of a mean of a stationary series (Bartlett 1946,
    J. R. Stat. Soc. B 8). A baseline is too short to show the persistence of one score well: what is usual of the same
    feature over all devices is the least that is assumed, and its own counts as far as it exceeds its standard error,
    1 / sqrt(T (1 - MEMORY^2)).

    Args:
        own: Persistence of each score over its own baseline.
        usual: That of the same features and components on most devices, broadcastable.
        windows: Over which its own was learnt.
    """
    error = 1 / np.sqrt(np.maximum(windows, 1) * (1 - MEMORY * MEMORY))
    return np.asarray(np.clip(1 + 2 * np.maximum(own - error, usual), 1.0, MOST_INFLATION))


def normal_score(change: Floats, sd: Floats, windows: Numbers) -> Floats:
    """Standardise a change from the baseline's mean, as a normal score of its Student's t.

    Args:
        change: Score minus the mean of the baseline.
        sd: Moderated standard deviation of one window's score.
        windows: Of the baseline, as many as are independent, T0: its mean is uncertain too, hence the factor
            sqrt(1 + 1/T0).
    """
    degrees = np.maximum(windows - 1.0, 1.0) + PRIOR_WINDOWS
    t = change / (np.maximum(sd, 1e-300) * np.sqrt(1 + 1 / np.maximum(windows, 1)))
    size = np.sqrt(degrees * np.log1p(t * t / degrees)) * (8 * degrees + 1) / (8 * degrees + 3)
    return np.asarray(np.copysign(size, t))


def unskewed(z: Floats, skewness: Floats) -> Floats:
    """Return the normal score of a sum that is skewed, where that is the smaller: in its long tail.

    A category of which a window expects one row is there four times more often than a normal score of 3.5 says. By the
    cube root of Wilson and Hilferty 1931 (Proc. Natl. Acad. Sci. 17), which makes a gamma variable normal. In the short
    tail scores stay what they are.

    Args:
        z: Standardised sums.
        skewness: Of the sums.
    """
    safe = np.where(np.abs(skewness) > _STRAIGHT, skewness, 1.0)
    root = 6 / safe * (np.cbrt(1 + safe * z / 2) - 1) + safe / 6
    long = (skewness * z > 0) & (np.abs(skewness) > _STRAIGHT)
    return np.asarray(np.where(long, np.copysign(np.minimum(np.abs(root), np.abs(z)), z), z))


def tau(level: Level, windows: Numbers, *, user: float = 0.0) -> Floats:
    """Tolerance in standard deviations of a window's score; without it an imperfect baseline would alarm in time."""
    return np.asarray(level.tolerance / np.sqrt(np.maximum(windows, 1)) + user)


def e_value(z: Floats, *, tolerance: Floats | float, clip: float, inflated: Floats | float = 1.0) -> Floats:
    """Evidence of one window against "no change beyond the tolerance": its expectation is at most 1 without one.

    Args:
        z: Standardised scores.
        tolerance: tau.
        clip: Bound of |z / sqrt(D)|, so that no single window decides.
        inflated: D of `inflation`. Scores that follow each other are bet on as if they were smaller: sums of many
            z / sqrt(D) vary as those of independent ones do, sums of few vary less.

    Returns:
        Mean over both directions and `DELTAS` of exp(delta (z - tau) - delta^2 / 2), z and tau divided by sqrt(D).
    """
    shrink = 1 / np.sqrt(inflated)
    z, tolerance = np.clip(z * shrink, -clip, clip), tolerance * shrink
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
