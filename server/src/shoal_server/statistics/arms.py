"""Two bundles compared while rows come in: intervals that may be looked at as often as one likes. Pure.

Shares: the mixture likelihood ratio of Robbins, Ann. Math. Statist. 41 (1970) with a uniform mixture over p: for hits s
of n, {p : Beta(s + 1, n - s + 1) / (p^s (1 - p)^(n - s)) < 1 / alpha} holds at all times together with probability 1 -
alpha (Ville's inequality), whatever the number of rows. Means: the asymptotic confidence sequence of Waudby-Smith,
Arbour, Sinha, Kennedy and Ramdas, Ann. Statist. 52 (2024), arXiv 2103.06476, theorem 2.2. The difference of two arms
takes each arm's at alpha / 2, so arms may fill at any pace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import betaln

ALPHA = 0.05
MIN_ROWS = 50
"""Rows of an arm below which nothing is told."""

_EDGE = 1e-12
_RHO = 0.05
"""Of the mixture of means: about where a few thousand rows are told best."""


@dataclass(frozen=True)
class Comparison:
    """Arm b against arm a.

    Attributes:
        verdict: ``b_higher``, ``a_higher``, ``none`` (no difference shown yet) or ``too_few``.
        difference: b minus a.
        low, high: Bounds that hold at all times together.
        n: Rows of a and of b.
    """

    verdict: str
    difference: float
    low: float
    high: float
    n: tuple[float, float]


def share_sequence(hits: float, n: float, *, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the bounds of a share that hold at all times together.

    Args:
        hits: Right ones so far.
        n: Rows so far; both may be divided by a design effect where rows of a device are alike.
        alpha: Probability that the bounds are ever wrong.
    """
    if n <= 0:
        return 0.0, 1.0
    miss = n - hits
    top = float(betaln(hits + 1, miss + 1)) - math.log(1 / alpha)

    def beyond(p: float) -> float:
        """Return the log of the mixture's likelihood ratio against p over 1 / alpha: p is out where it is positive."""
        return top - (hits * math.log(p) if hits else 0.0) - (miss * math.log1p(-p) if miss else 0.0)

    best = min(max(hits / n, _EDGE), 1 - _EDGE)
    low = 0.0 if not hits or beyond(_EDGE) <= 0 else float(brentq(beyond, _EDGE, best))
    high = 1.0 if not miss or beyond(1 - _EDGE) <= 0 else float(brentq(beyond, best, 1 - _EDGE))
    return low, high


def mean_sequence(total: float, square: float, n: float, *, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the bounds of a mean that hold at all times together, as rows become many.

    Args:
        total: Sum of the values.
        square: Sum of their squares.
        n: Rows so far, as in `share_sequence`.
        alpha: Probability that the bounds are ever wrong.
    """
    if n < 2:
        return -math.inf, math.inf
    mean = total / n
    deviation = math.sqrt(max(square / n - mean * mean, 0.0) * n / (n - 1))
    mixed = n * _RHO**2 + 1
    reach = deviation * math.sqrt(2 * mixed / (n * _RHO) ** 2 * math.log(math.sqrt(mixed) / alpha))
    return mean - reach, mean + reach


def compare_shares(
    hits: tuple[float, float], n: tuple[float, float], *, effect: tuple[float, float] = (1.0, 1.0), alpha: float = ALPHA
) -> Comparison:
    """Compare the shares of two arms.

    Args:
        hits: Of arm a and of arm b.
        n: Rows of each.
        effect: Design effect of each, at least 1: how many rows of a device tell as much as one independent row.
        alpha: Probability that a difference is ever told where there is none.
    """
    bounds = [share_sequence(k / d, m / d, alpha=alpha / 2) for k, m, d in zip(hits, n, effect, strict=True)]
    return _compared([k / m if m else math.nan for k, m in zip(hits, n, strict=True)], bounds, n)


def compare_means(
    total: tuple[float, float],
    square: tuple[float, float],
    n: tuple[float, float],
    *,
    effect: tuple[float, float] = (1.0, 1.0),
    alpha: float = ALPHA,
) -> Comparison:
    """Compare the means of two arms; arguments as in `compare_shares`, with sums and sums of squares."""
    bounds = [
        mean_sequence(s / d, q / d, m / d, alpha=alpha / 2) for s, q, m, d in zip(total, square, n, effect, strict=True)
    ]
    return _compared([s / m if m else math.nan for s, m in zip(total, n, strict=True)], bounds, n)


def _compared(values: list[float], bounds: list[tuple[float, float]], n: tuple[float, float]) -> Comparison:
    (low_a, high_a), (low_b, high_b) = bounds
    low, high = low_b - high_a, high_b - low_a
    verdict = "b_higher" if low > 0 else "a_higher" if high < 0 else "none"
    if min(n) < MIN_ROWS:
        verdict = "too_few"
    return Comparison(verdict, values[1] - values[0], low, high, n)
