"""Rank scores of two samples' counts: how far their means lie apart, as normal scores and as effect sizes. Pure.

Owns the four orthonormal contrasts (location, spread, skewness, tails) and the test of location, which looks through
four scores at once. Leaves which of them is a view, and what share of the level it gets, to `views`.

Sources: Neyman's smooth test, J. Neyman 1937 (Skand. Aktuarietidskr. 20), in its two-sample form on pooled mid-ranks,
Janic-Wróblewska and Ledwina 2000 (Scand. J. Statist. 27); the joint level of correlated scores, see `location_p`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from shoal_server.statistics.layout import Flags, Floats, Layout, Numbers, legendre

LONGEST_ROW = 0.4
"""A contrast in which one row of the smaller sample moves the score by more standard deviations than this is left out.

Its score is far from normal. Contrasts that live on few rows of a value that hardly ever differs are such."""

MIDDLE = 0.1
"""Ranks further from the middle than this count alike in the second score of location.

Wilcoxon's score alone finds shifts of sharply peaked values (such as Laplace's) less often than Kolmogorov-Smirnov on
the raw rows; this one, close to the median test, finds them more often."""

STEPS, STEP = (-0.28, 0.28), 0.04
"""Places and half width of two scores that only ask how many rows lie beyond them, distances from the middle rank.

A few rows that move far within a sharply falling distribution open a gap in one place, which the largest distance of
two distribution functions sees, and means over all ranks hardly do."""

LOCATION_SHARE = (0.25, 0.55, 0.10, 0.10)
"""Weights of the four scores of location: Wilcoxon's, the middle's, the two steps'.

Chosen so that the least power over many shapes of values and changes, relative to Kolmogorov-Smirnov on the raw rows,
is largest: Wilcoxon's score has power to spare where values are normal, the middle's has none for Laplace's."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two samples of each stream, without missing values; F streams, any leading axes.

    Attributes:
        layout: Of the flat vectors.
        weights: Share of each cell in its stream's pooled rows, shape (..., size).
        difference: Share in the second sample less that in the first, same shape.
        ranks: Pooled mid-ranks, same shape.
        n: Rows of the first, shape (..., F); 2 where a sample has too few to compare.
        m: Of the second, likewise.
        comparable: Where both have more than one row.
    """

    layout: Layout
    weights: Floats
    difference: Floats
    ranks: Floats
    n: Floats
    m: Floats
    comparable: Flags

    @classmethod
    def of(cls, layout: Layout, a: Floats, b: Floats) -> Pair:
        """Make the pair of two samples' counts, shape (..., size)."""
        rows_a, rows_b = layout.sums(a), layout.sums(b)
        weights = (a + b) / layout.spread(np.maximum(rows_a + rows_b, 1e-300))
        share_a, share_b = (x / layout.spread(np.maximum(n, 1e-300)) for x, n in ((a, rows_a), (b, rows_b)))
        comparable = (rows_a > 1) & (rows_b > 1)
        n, m = np.where(comparable, rows_a, 2.0), np.where(comparable, rows_b, 2.0)
        return cls(layout, weights, share_b - share_a, layout.mid_ranks(a + b), n, m, np.asarray(comparable))

    def mean(self, score: Floats) -> Floats:
        """Mean of a score over the pooled rows, shape (..., F)."""
        return np.asarray(self.layout.sums(self.weights * score))

    def standard(self, score: Floats) -> tuple[Floats, Flags]:
        """Return a score with mean 0 and variance 1 over the pooled rows, zero where it does not vary; and where so."""
        q = score - self.layout.spread(self.mean(score))
        square = self.mean(q * q)
        varies = square > 1e-6
        scale = np.where(varies, 1 / np.sqrt(np.where(varies, square, 1.0)), 0.0)
        return np.asarray(q * self.layout.spread(scale)), np.asarray(varies)

    def apart(self, q: Floats) -> tuple[Floats, Floats]:
        """Return how far the samples' means of a standard score lie apart, and its normal score; shapes (..., F)."""
        n, m = self.n, self.m
        effect = np.asarray(self.layout.sums(self.difference * q))
        spread = np.sqrt((1 / n + 1 / m) * (n + m) / (n + m - 1))
        z = unskewed(effect / spread, _skewness(self.mean(q * q * q), n, m))
        return effect, np.asarray(np.where(self.comparable, z, 0.0))


def contrasts(pair: Pair) -> tuple[Floats, Floats, Numbers]:
    """Difference of two samples in four orthonormal contrasts: Legendre polynomials of the pooled mid-rank.

    Atoms make the polynomials of mid-ranks neither centred nor orthogonal, so they are made so under the pooled sample
    (Gram-Schmidt); contrasts that a stream with few occupied cells can't have are zero.

    Returns:
        Standardised differences, second less first, of shape (..., F, 4), plain differences of the same shape, and the
        number of contrasts of each stream, shape (..., F). The sum of squares of the first is chi-square of so many
        degrees.
    """
    layout = pair.layout
    basis: list[Floats] = []
    effects: list[Floats] = []
    scores: list[Floats] = []
    degrees = np.zeros(pair.n.shape, dtype=np.int64)
    for polynomial in legendre(pair.ranks):
        q = polynomial
        for earlier in basis:
            q = q - earlier * layout.spread(pair.mean(q * earlier))
        q, kept = pair.standard(q)
        if basis:  # the first is the view of location, and always there
            longest = np.maximum.reduceat(np.where(pair.weights > 0, np.abs(q), 0.0), layout.starts, axis=-1)
            kept = kept & (longest <= LONGEST_ROW * np.sqrt(np.minimum(pair.n, pair.m)))
            q = q * layout.spread(kept)
        degrees += kept
        basis.append(q)
        effect, z = pair.apart(q)
        effects.append(effect)
        scores.append(z)
    return np.stack(scores, axis=-1), np.stack(effects, axis=-1), np.asarray(np.where(pair.comparable, degrees, 0))


def location_p(pair: Pair) -> Floats:
    """P-value of "values are neither larger nor smaller", by four correlated scores at once, shape (..., F).

    The scores are Wilcoxon's (the pooled mid-rank), one that is flat beyond `MIDDLE` of the middle, and the two
    `STEPS`; each has its p-value p_j, its weight w_j of `LOCATION_SHARE`, and the statistic is T = min p_j / w_j. Were
    the scores independent, P(T <= t) would be about t times all weights. They correlate by 0.7 to 0.9, so it is far
    less: by Hunter's bound at most the sum of P(p_j <= w_j t) less P(p_1 <= w_1 t and p_j <= w_j t) for each j > 1.
    Under equal distributions the differences of two scores' means correlate as the scores do among the pooled rows,
    which is known: those probabilities are the bivariate normal's.

    Sources: Hunter 1976 (J. Appl. Prob. 13), Worsley 1982 (Biometrika 69); weights as in `views.corrected`.
    """
    middle = pair.ranks - 0.5
    clipped = (np.clip(middle, -MIDDLE, MIDDLE), *(np.clip(middle - place, -STEP, STEP) for place in STEPS))
    scores = [pair.standard(score) for score in (middle, *clipped)]
    weights = np.stack([np.where(kept, w, 0.0) for (_, kept), w in zip(scores, LOCATION_SHARE, strict=True)], axis=-1)
    z = np.stack([pair.apart(q)[1] for q, _ in scores], axis=-1)
    p = 2 * special.ndtr(-np.abs(z))
    least = np.where(weights > 0, p / np.where(weights > 0, weights, 1.0), np.inf).min(axis=-1, keepdims=True)
    tail = np.minimum(weights * np.where(np.isfinite(least), least, 0.0), 1.0)
    wilcoxon = scores[0][0]
    both = sum(
        both_beyond(tail[..., 0], tail[..., at], pair.mean(wilcoxon * q)) for at, (q, _) in enumerate(scores[1:], 1)
    )
    joint = np.clip(tail.sum(axis=-1) - both, tail.max(axis=-1), 1.0)
    return np.asarray(np.where(pair.comparable & (weights.max(axis=-1) > 0), joint, 1.0))


def both_beyond(first: Floats, second: Floats, correlation: Floats) -> Floats:
    """Return how often two correlated normal scores are both beyond their two-sided limits, on the same side.

    That they are beyond on opposite sides is left out, which is rare and makes a bound of it. The bivariate normal
    integral is Owen's (1956, Ann. Math. Statist. 27).

    Args:
        first: Two-sided tail probability of the first score's limit.
        second: Of the second's.
        correlation: Of the scores; its sign does not matter.

    >>> both_beyond(np.array([0.1]), np.array([0.1]), np.array([0.0])).round(4).tolist()
    [0.005]
    """
    h, k = (special.ndtri(np.clip(tail, 1e-300, 1 - 1e-9) / 2) for tail in (first, second))
    r = np.clip(np.abs(correlation), 0.0, 1 - 1e-9)
    s = np.sqrt(1 - r * r)
    one = (special.ndtr(h) + special.ndtr(k)) / 2
    owens = special.owens_t(h, (k / h - r) / s) + special.owens_t(k, (h / k - r) / s)
    return np.asarray(2 * np.clip(one - owens, 0.0, np.minimum(first, second) / 2))


def unskewed(z: Floats, skewness: Floats) -> Floats:
    """Return the normal score of a standardised sum that is skewed: a gamma's tail, Wilson and Hilferty 1931 (PNAS 17).

    Means of few rows of a value that hardly ever differs have a far longer tail than the normal, and of many features
    the smallest p-value lies deep in it.

    Args:
        z: Mean 0 and variance 1.
        skewness: Of it, same shape.

    >>> unskewed(np.array([3.0, 3.0, -3.0]), np.array([0.0, 0.5, -0.5])).round(2).tolist()
    [3.0, 2.53, -2.53]
    """
    size = np.abs(skewness)
    s = np.maximum(size, 1e-3)
    turned = z * np.where(skewness < 0, -1.0, 1.0)
    normal = 6 / s * (np.cbrt(1 + s * turned / 2) - 1) + s / 6
    return np.asarray(np.where(size < 1e-3, z, np.where(skewness < 0, -normal, normal)))


def _skewness(third: Floats, n: Floats, m: Floats) -> Floats:
    """Skewness of the mean of m of n + m rows drawn without replacement (Cochran 1977, Sampling Techniques, 2.15)."""
    rows = n + m
    return np.asarray(third * (n - m) / np.maximum(rows - 2, 1) * np.sqrt((rows - 1) / (n * m)))
