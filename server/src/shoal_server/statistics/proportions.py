"""Shares and means with honest intervals: by rows, or by devices where rows of one device are alike. Pure.

Sources: Wilson, JASA 22 (1927); Clopper and Pearson, Biometrika 26 (1934); the design effect and its use in a share's
interval, Korn and Graubard, Survey Methodology 24 (1998); the ratio estimator's variance, Cochran, Sampling Techniques
(1977), 6.3.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtri, stdtrit

CONFIDENCE = 0.95
Z_95 = 1.959963984540054
"""Half width of a two-sided 95 % normal interval, in standard errors."""

Z_ONE_SIDED_95 = 1.6448536269514722
"""Distance of a one-sided 95 % normal bound, in standard errors."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: The figure.
        low, high: Two-sided bounds at the confidence that was asked for.
        n: Rows behind it.
        devices: Devices behind it; 0: not counted by devices.
    """

    value: float
    low: float
    high: float
    n: int
    devices: int = 0

    def as_json(self) -> dict[str, float | int]:
        """Return the fields, rounded as people read them."""
        return {name: round(x, 6) if isinstance(x, float) else x for name, x in asdict(self).items()}


def wilson(hits: float, n: float, *, confidence: float = CONFIDENCE, z: float | None = None) -> tuple[float, float]:
    """Return Wilson's score interval of a share.

    Args:
        hits: Of `n`; both may be effective counts and need not be whole.
        n: Above 0, else nothing is known: (0, 1).
        confidence: Two-sided.
        z: Instead of the normal quantile, for example Student's.
    """
    if n <= 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + confidence / 2)) if z is None else z
    share = hits / n
    middle = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def exact(hits: int, n: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the Clopper–Pearson interval of a share, never too narrow."""
    if n == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, 1 - tail))
    return low, high


def share(
    hits: npt.ArrayLike, n: npt.ArrayLike, *, confidence: float = CONFIDENCE, cap: float | None = None
) -> Estimate:
    """Return a share over devices, its interval widened by what devices differ beyond chance.

    The variance is that of the ratio estimator over devices, but at least the binomial one; Wilson's interval is then
    taken at the effective number of rows, with Student's quantile at devices - 1 degrees of freedom. With one device
    the binomial interval stands: nothing else is known.

    Args:
        hits: Of each device, shape (devices,).
        n: Rows of each device, shape (devices,).
        confidence: Two-sided.
        cap: A device weighs at most so many times the median device; None: each row weighs the same.
    """
    k, m = np.asarray(hits, np.float64), np.asarray(n, np.float64)
    k, m = k[m > 0], m[m > 0]
    if not m.size:
        return Estimate(math.nan, 0.0, 1.0, 0)
    weight = np.ones_like(m) if cap is None else np.minimum(1.0, cap * np.median(m) / m)
    kw, mw = k * weight, m * weight
    total = mw.sum()
    value = float(kw.sum() / total)
    binomial = value * (1 - value) * float((weight * mw).sum()) / total**2
    variance, z = binomial, None
    if m.size > 1:
        residual = kw - value * mw
        clustered = m.size / (m.size - 1) * float(residual @ residual) / total**2
        variance = max(binomial, clustered)
        z = float(stdtrit(m.size - 1, 0.5 + confidence / 2)) if clustered > binomial else None
    effective = value * (1 - value) / variance if variance > 0 else float(total)
    effective = min(effective, float(total))
    low, high = wilson(value * effective, effective, confidence=confidence, z=z)
    return Estimate(value, low, high, int(m.sum()), int(m.size))


def design_effect(hits: npt.ArrayLike, n: npt.ArrayLike) -> float:
    """Return how many rows of a device tell as much as one independent row, at least 1; as `share` counts them."""
    k, m = np.asarray(hits, np.float64), np.asarray(n, np.float64)
    k, m = k[m > 0], m[m > 0]
    if m.size < 2:
        return 1.0
    value = float(k.sum() / m.sum())
    residual = k - value * m
    binomial = value * (1 - value) * float(m.sum())
    return max(1.0, m.size / (m.size - 1) * float(residual @ residual) / binomial) if binomial else 1.0


def difference(a: Estimate, b: Estimate) -> tuple[float, float, float]:
    """Return b - a and its bounds from the two intervals (Newcombe, Statistics in Medicine 17 (1998), method 10)."""
    value = b.value - a.value
    low = value - math.hypot(b.value - b.low, a.high - a.value)
    high = value + math.hypot(b.high - b.value, a.value - a.low)
    return value, low, high


def mean(total: npt.ArrayLike, square: npt.ArrayLike, n: npt.ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """Return a mean over devices from their sums, its interval by devices as in `share`.

    Args:
        total: Sum of each device, shape (devices,).
        square: Sum of squares of each device.
        n: Rows of each device.
        confidence: Two-sided.
    """
    s, q, m = (np.asarray(x, np.float64) for x in (total, square, n))
    s, q, m = s[m > 0], q[m > 0], m[m > 0]
    rows = m.sum()
    if rows < 2:
        return Estimate(float(s.sum()) if rows else math.nan, -math.inf, math.inf, int(rows), int(m.size))
    value = float(s.sum() / rows)
    variance = max(float(q.sum()) / rows - value**2, 0.0) / (rows - 1)
    freedom = rows - 1
    if m.size > 1:
        residual = s - value * m
        clustered = m.size / (m.size - 1) * float(residual @ residual) / rows**2
        if clustered > variance:
            variance, freedom = clustered, m.size - 1
    reach = float(stdtrit(freedom, 0.5 + confidence / 2)) * math.sqrt(variance)
    return Estimate(value, value - reach, value + reach, int(rows), int(m.size))
