"""Five looks at a stream, on counts of two samples: location, shape, cells, range, missing.

The view that fires is the explanation. Owns the tests of one window (or many merged) against a reference, and their
dispersion over devices; `drift test`, reports and explanations are made of them. Leaves change over time, and with it
every alarm, to the drift room. Everything is vectorised over devices (leading axes) and streams (last axis) on flat
vectors of counts.

Sources: Neyman's smooth test, J. Neyman 1937 (Skand. Aktuarietidskr. 20), in its two-sample form on pooled mid-ranks,
Janic-Wróblewska and Ledwina 2000 (Scand. J. Statist. 27); conditional binomial test of two rates, Przyborowski and
Wilenski 1940 (Biometrika 31), with mid-p, Lancaster 1961 (JASA 56); effective sample sizes, Rao and Scott 1981
(JASA 76).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import special

from shoal_server.statistics.layout import Flags, Floats, Layout, Numbers, legendre

MIN_EFFECTIVE_ROWS = 200.0
"""Fewer effective rows than this on either side, and the answer is "too few"."""

MIN_EXPECTED = 5.0
"""Cells that expect fewer rows in the smaller sample are pooled before the chi-square test (Cochran 1954)."""


LONGEST_ROW = 0.4
"""A contrast in which one row of the smaller sample moves the score by more standard deviations than this is left out.

Its score is far from normal. Contrasts that live on few rows of a value that hardly ever differs are such."""


class View(StrEnum):
    """What about a stream has changed."""

    LOCATION = "location"  # its values are larger or smaller
    SHAPE = "shape"  # location, spread, skewness or tails
    CELLS = "cells"  # any change of the mix of values or categories
    RANGE = "range"  # values outside of the training range, or unknown categories
    MISSING = "missing"  # the share of missing values


VIEWS = tuple(View)

NUMERIC_SHARE = np.array([0.5, 0.125, 0.125, 0.125, 0.125])
CATEGORICAL_SHARE = np.array([0.0, 0.0, 0.5, 0.25, 0.25])
"""Of the level that each view gets, in the order of `VIEWS`: half for what drifts most often and is hardest to see."""


@dataclass(frozen=True, eq=False)
class Views:
    """The five views of each stream; F streams, any leading axes.

    Attributes:
        p: P-value of each view in the order of `VIEWS`, shape (..., F, 5); 1 where a view does not apply.
        share: Of the level that each view of a stream gets, shape (F, 5); they sum to 1, and are 0 where it has none.
        z: Standardised difference of the four orthonormal contrasts, shape (..., F, 4); ~N(0, 1) each without a change.
        effect: Difference of those contrasts, not standardised: the first is about a shift in standard deviations.
        enough: Whether both samples have `MIN_EFFECTIVE_ROWS`, shape (..., F).
    """

    p: Floats
    share: Floats
    z: Floats
    effect: Floats
    enough: Flags

    @property
    def p_value(self) -> Floats:
        """Smallest p-value, weighted Bonferroni over the views, shape (..., F)."""
        return np.asarray(corrected(self.p, self.share))

    @property
    def firing(self) -> Numbers:
        """Index into `VIEWS` of the view with the smallest p-value, shape (..., F)."""
        return np.asarray(self.p.argmin(axis=-1))


def corrected(p: Floats, share: Floats) -> Floats:
    """Return the smallest p-value, each divided by its share of the level, at most 1.

    Weighted Bonferroni, Genovese, Roeder and Wasserman 2006 (Biometrika 93).

    Args:
        p: P-values of the views, shape (..., 5).
        share: Of the level, the same or broadcastable; 0 takes a view out.
    """
    divided = np.where(share > 0, p / np.where(share > 0, share, 1.0), 1.0)
    return np.asarray(np.minimum(1.0, divided.min(axis=-1)))


def five_views(
    layout: Layout,
    reference: Numbers,
    current: Numbers,
    *,
    reference_effect: Floats | float = 1.0,
    current_effect: Floats | float = 1.0,
) -> Views:
    """Compare two samples stream by stream.

    Args:
        layout: Of the flat vectors.
        reference: Counts of shape (size,) or (..., size).
        current: Counts of shape (..., size).
        reference_effect: Design effect of the reference, shape (..., F) or a number: variance of its means over that of
            independent rows; counts are divided by it (Rao-Scott).
        current_effect: The same of the current sample.
    """
    a, b = np.broadcast_arrays(
        reference / _spread_effect(layout, reference_effect),
        current / _spread_effect(layout, current_effect),
    )
    rows_a, rows_b = layout.sums(a), layout.sums(b)
    missing_a, missing_b = layout.sums(a * layout.missing), layout.sums(b * layout.missing)
    outside_a, outside_b = layout.sums(a * layout.outside), layout.sums(b * layout.outside)
    present_a, present_b = np.where(layout.missing, 0.0, a), np.where(layout.missing, 0.0, b)
    z, effect, degrees = contrasts(layout, present_a, present_b)
    p = np.stack(
        [
            np.where(layout.categorical, 1.0, 2 * special.ndtr(-np.abs(z[..., 0]))),
            np.where(layout.categorical, 1.0, _chi2_tail((z * z).sum(axis=-1), degrees)),
            _cells_p(layout, present_a, present_b),
            rate_p(outside_a, rows_a - missing_a, outside_b, rows_b - missing_b),
            rate_p(missing_a, rows_a, missing_b, rows_b),
        ],
        axis=-1,
    )
    enough = np.minimum(rows_a, rows_b) >= MIN_EFFECTIVE_ROWS
    return Views(p, np.where(layout.categorical[:, None], CATEGORICAL_SHARE, NUMERIC_SHARE), z, effect, enough)


def contrasts(layout: Layout, a: Floats, b: Floats) -> tuple[Floats, Floats, Numbers]:
    """Difference of two samples in four orthonormal contrasts: Legendre polynomials of the pooled mid-rank.

    Atoms make the polynomials of mid-ranks neither centred nor orthogonal, so they are made so under the pooled sample
    (Gram-Schmidt); contrasts that a stream with few occupied cells can't have are zero.

    Args:
        layout: Of the flat vectors.
        a: Counts without missing values, shape (..., size).
        b: The same of the other sample.

    Returns:
        Standardised differences b - a of shape (..., F, 4), plain differences of the same shape, and the number of
        contrasts of each stream, shape (..., F). The sum of squares of the first is chi-square of so many degrees.
    """
    rows_a, rows_b = layout.sums(a), layout.sums(b)
    rows = np.maximum(rows_a + rows_b, 1e-300)
    weights = (a + b) / layout.spread(rows)
    share_a, share_b = (x / layout.spread(np.maximum(n, 1e-300)) for x, n in ((a, rows_a), (b, rows_b)))
    comparable = (rows_a > 1) & (rows_b > 1)
    n, m = np.where(comparable, rows_a, 2.0), np.where(comparable, rows_b, 2.0)
    spread = np.sqrt((1 / n + 1 / m) * (n + m) / (n + m - 1))
    basis: list[Floats] = []
    effects: list[Floats] = []
    scores: list[Floats] = []
    degrees = np.zeros(rows.shape, dtype=np.int64)
    for polynomial in legendre(layout.mid_ranks(a + b)):
        q = polynomial - layout.spread(layout.sums(weights * polynomial))
        for earlier in basis:
            q = q - earlier * layout.spread(layout.sums(weights * q * earlier))
        square = layout.sums(weights * q * q)
        kept = square > 1e-6
        q = q * layout.spread(np.where(kept, 1 / np.sqrt(np.where(kept, square, 1.0)), 0.0))
        if basis:  # the first is the view of location, and always there
            longest = np.maximum.reduceat(np.where(weights > 0, np.abs(q), 0.0), layout.starts, axis=-1)
            kept = kept & (longest <= LONGEST_ROW * np.sqrt(np.minimum(n, m)))
            q = q * layout.spread(kept)
        degrees += kept
        basis.append(q)
        effects.append(layout.sums((share_b - share_a) * q))
        scores.append(unskewed(effects[-1] / spread, _skewness(layout.sums(weights * q**3), n, m)))
    z = np.where(comparable[..., None], np.stack(scores, axis=-1), 0.0)
    return z, np.stack(effects, axis=-1), np.asarray(np.where(comparable, degrees, 0))


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


def rate_p(hits_a: Floats, rows_a: Floats, hits_b: Floats, rows_b: Floats) -> Floats:
    """Two-sided mid-p of the exact conditional test of two rates; hits may be fractions of effective rows."""
    upper = _upper_mid_p(hits_a, rows_a, hits_b, rows_b)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(upper, 1 - upper)))


def rate_z(hits_a: Floats, rows_a: Floats, hits_b: Floats, rows_b: Floats) -> Floats:
    """Return the normal score of the conditional mid-p, positive where the second rate is higher."""
    upper = _upper_mid_p(hits_a, rows_a, hits_b, rows_b)
    return np.asarray(-special.ndtri(np.clip(upper, 1e-300, 1 - 1e-16)))


def dispersion(z: Floats) -> Floats:
    """P-value of "some devices differ": their z over devices has variance 1 without it.

    Drift on a few devices is diluted by merging, but not here.

    Args:
        z: Standardised differences of each device, shape (D, F).

    Returns:
        Upper tail of chi-square with D - 1 degrees, shape (F,).
    """
    devices = z.shape[0]
    if devices < 2:
        return np.ones(z.shape[1:])
    return np.asarray(_chi2_tail(((z - z.mean(axis=0)) ** 2).sum(axis=0), np.full(z.shape[1:], devices - 1)))


def _spread_effect(layout: Layout, effect: Floats | float) -> Numbers:
    whole = np.asarray(effect, dtype=np.float64)
    return whole if whole.ndim == 0 else layout.spread(whole)


def _upper_mid_p(hits_a: Floats, rows_a: Floats, hits_b: Floats, rows_b: Floats) -> Floats:
    """P(X > k) + P(X = k) / 2 for X ~ Binomial(all hits, share of rows), continuous in k by the beta function."""
    total = hits_a + hits_b
    share = rows_b / np.maximum(rows_a + rows_b, 1e-300)
    hit = (total > 0) & (rows_a > 0) & (rows_b > 0)
    upper = np.full(np.broadcast(hits_a, rows_a, hits_b, rows_b).shape, 0.5)
    if not hit.any():
        return upper
    k, t, s = (np.broadcast_to(x, upper.shape)[hit] for x in (hits_b, total, share))
    at_least = np.where(k > 0, special.betainc(np.maximum(k, 1e-12), t - k + 1, s), 1.0)
    above = np.where(t > k, special.betainc(k + 1, np.maximum(t - k, 1e-12), s), 0.0)
    upper[hit] = (at_least + above) / 2
    return upper


def _cells_p(layout: Layout, a: Floats, b: Floats) -> Floats:
    """P-value of the two-sample chi-square test, cells with few expected rows pooled into one."""
    rows_a, rows_b = layout.sums(a), layout.sums(b)
    both = a + b
    smaller = np.minimum(rows_a, rows_b) / np.maximum(rows_a + rows_b, 1e-300)
    kept = both * layout.spread(smaller) >= MIN_EXPECTED
    rest_a, rest_b = layout.sums(np.where(kept, 0.0, a)), layout.sums(np.where(kept, 0.0, b))
    pooled = (rest_a + rest_b) * smaller >= MIN_EXPECTED
    # rows of a pooled cell that is still too small are left out: the range view looks at the tails
    counted_a, counted_b = rows_a - np.where(pooled, 0.0, rest_a), rows_b - np.where(pooled, 0.0, rest_b)
    usable = (counted_a > 0) & (counted_b > 0)
    ratio = np.sqrt(np.where(usable, counted_b, 1.0) / np.where(usable, counted_a, 1.0))
    spread = layout.spread(ratio)
    terms = np.where(kept, (a * spread - b / spread) ** 2 / np.where(kept, both, 1.0), 0.0)
    rest = np.where(pooled, rest_a + rest_b, 1.0)
    statistic = layout.sums(terms) + np.where(pooled, (rest_a * ratio - rest_b / ratio) ** 2 / rest, 0.0)
    degrees = layout.sums(kept.astype(np.int64)) + pooled - 1
    return _chi2_tail(statistic, np.where(usable, degrees, 0))


def _chi2_tail(statistic: Floats, degrees: Numbers) -> Floats:
    return np.asarray(np.where(degrees > 0, special.chdtrc(np.maximum(degrees, 1), statistic), 1.0))
