"""Five looks at a stream, on counts of two samples: location, shape, cells, range, missing.

The view that fires is the explanation. Owns the tests of one window (or many merged) against a reference, and their
dispersion over devices; `drift test`, reports and explanations are made of them. Leaves change over time, and with it
every alarm, to the drift room. Everything is vectorised over devices (leading axes) and streams (last axis) on flat
vectors of counts.

Sources: location and shape, see `contrasts`; conditional binomial test of two rates, Przyborowski and Wilenski 1940
(Biometrika 31), with mid-p, Lancaster 1961 (JASA 56); effective sample sizes, Rao and Scott 1981 (JASA 76); no share of
the level for tests that can't fire, Tarone 1990 (Biometrics 46).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import special

from shoal_server.statistics.contrasts import Pair, contrasts, location_p
from shoal_server.statistics.layout import Flags, Floats, Layout, Numbers

MIN_EFFECTIVE_ROWS = 200.0
"""Fewer effective rows than this on either side, and the answer is "too few"."""

MIN_EXPECTED = 5.0
"""Cells that expect fewer rows in the smaller sample are pooled before the chi-square test (Cochran 1954)."""


class View(StrEnum):
    """What about a stream has changed."""

    LOCATION = "location"  # its values are larger or smaller
    SHAPE = "shape"  # location, spread, skewness or tails
    CELLS = "cells"  # any change of the mix of values or categories
    RANGE = "range"  # values outside of the training range, or unknown categories
    MISSING = "missing"  # the share of missing values


VIEWS = tuple(View)
_RANGE, _MISSING = VIEWS.index(View.RANGE), VIEWS.index(View.MISSING)

NUMERIC_SHARE = np.array([0.79, 0.06, 0.05, 0.05, 0.05])
CATEGORICAL_SHARE = np.array([0.0, 0.0, 0.7, 0.15, 0.15])
"""Of the level that each view gets, in the order of `VIEWS`: most for what drifts most often and is hardest to see."""

ABLE = 0.01
"""A rate whose p-value can't fall below this, so few are its hits in both samples together, is given no share."""


@dataclass(frozen=True, eq=False)
class Views:
    """The five views of each stream; F streams, any leading axes.

    Attributes:
        p: P-value of each view in the order of `VIEWS`, shape (..., F, 5); 1 where a view does not apply.
        share: Of the level that each view of a stream gets, same shape; they sum to 1, and are 0 where it has none.
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
    pair = Pair.of(layout, present_a, present_b)
    z, effect, degrees = contrasts(pair)
    p = np.stack(
        [
            np.where(layout.categorical, 1.0, location_p(pair)),
            np.where(layout.categorical, 1.0, _chi2_tail((z * z).sum(axis=-1), degrees)),
            _cells_p(layout, present_a, present_b),
            rate_p(outside_a, rows_a - missing_a, outside_b, rows_b - missing_b),
            rate_p(missing_a, rows_a, missing_b, rows_b),
        ],
        axis=-1,
    )
    enough = np.minimum(rows_a, rows_b) >= MIN_EFFECTIVE_ROWS
    able = np.ones(p.shape, dtype=np.bool_)
    able[..., _RANGE] = _able(outside_a, rows_a - missing_a, outside_b, rows_b - missing_b)
    able[..., _MISSING] = _able(missing_a, rows_a, missing_b, rows_b)
    return Views(p, shared_out(layout.categorical, able), z, effect, enough)


def shared_out(categorical: Flags, able: Flags) -> Floats:
    """Share the level out among the views of each stream that can fire at all.

    Which can is read off the two samples together, never off their difference, so the level holds (Tarone 1990).

    Args:
        categorical: Of the streams, shape (F,).
        able: Which views can fire, shape (..., F, 5).
    """
    share = np.where(able, np.where(categorical[:, None], CATEGORICAL_SHARE, NUMERIC_SHARE), 0.0)
    return np.asarray(share / share.sum(axis=-1, keepdims=True))


def rate_p(hits_a: Floats, rows_a: Floats, hits_b: Floats, rows_b: Floats) -> Floats:
    """Two-sided mid-p of the exact conditional test of two rates; hits may be fractions of effective rows."""
    upper = _upper_mid_p(hits_a, rows_a, hits_b, rows_b)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(upper, 1 - upper)))


def rate_z(hits_a: Floats, rows_a: Floats, hits_b: Floats, rows_b: Floats) -> Floats:
    """Return the normal score of the conditional mid-p, positive where the second rate is higher."""
    upper = _upper_mid_p(hits_a, rows_a, hits_b, rows_b)
    return np.asarray(-special.ndtri(np.clip(upper, 1e-300, 1 - 1e-16)))


def _able(hits_a: Floats, rows_a: Floats, hits_b: Floats, rows_b: Floats) -> Flags:
    """Tell whether the p-value of two rates falls below `ABLE` when all hits are where chance puts fewer."""
    total = hits_a + hits_b
    share = rows_b / np.maximum(rows_a + rows_b, 1e-300)
    return np.asarray(np.minimum(share, 1 - share) ** total < ABLE)


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
