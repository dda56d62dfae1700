"""The season of a device's scores: what the time of day and of the week do to them, learnt and taken off.

Owns the regression of scores on a few harmonics of the day or the week, in running sums. Pure. A day has 24 hours and
people follow them: without this a fleet whose nights differ from its days would alarm each evening. Only devices carry
a season; fleet and cohorts are made of their changes, which have none left.

Invariant: sums are linear in the windows, so the fit is that of all windows of the baseline in any order.

Sources: harmonic regression, Bloomfield 2000 (Fourier Analysis of Time Series, 2nd ed., chapter 4); running sums of
products, Welford 1962 (Technometrics 4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from shoal_protocol.errors import CallerError
from shoal_server.statistics.layout import Floats, Numbers

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS

SEASONAL_FROM_MS = 60_000
"""Windows shorter than this are for trying things out: left to itself, a fleet with such has no season."""

_RIDGE = 1e-3


class Season(StrEnum):
    """After what time things repeat themselves."""

    NONE = "none"  # all windows are alike
    DAY = "day"  # the same hour of the day is
    WEEK = "week"  # the same hour of the same weekday is


def parse_season(text: str) -> Season:
    """Return the season of this name.

    Raises:
        CallerError: There is none.
    """
    try:
        return Season(text)
    except ValueError as error:
        raise CallerError(f"expected a season among auto, {', '.join(Season)}, got {text!r:.40}") from error


_PERIOD_MS: Mapping[Season, int] = {Season.DAY: DAY_MS, Season.WEEK: WEEK_MS}
_HARMONICS: Mapping[Season, tuple[int, ...]] = {
    Season.NONE: (),
    Season.DAY: (1, 2, 3),
    Season.WEEK: (1, 2, 3, 7, 14, 21),
}


def usual(bucket_ms: int) -> Season:
    """Return the season of a fleet that nobody has said anything about.

    >>> str(usual(1000)), str(usual(300_000))
    ('none', 'day')
    """
    return Season.DAY if bucket_ms >= SEASONAL_FROM_MS else Season.NONE


def terms(season: Season) -> int:
    """Return the number of regressors, P: a cosine and a sine of each harmonic."""
    return 2 * len(_HARMONICS[season])


def period_windows(season: Season, bucket_ms: int) -> int:
    """Return how many windows a whole season has, 0 without one."""
    return math.ceil(_PERIOD_MS[season] / bucket_ms) if season in _PERIOD_MS else 0


def regressors(season: Season, at_ms: float) -> Floats:
    """Return the harmonics at an instant, shape (P,).

    Args:
        season: Which.
        at_ms: Milliseconds since the epoch, UTC.
    """
    if season not in _PERIOD_MS:
        return np.zeros(0)
    angle = 2 * np.pi * (at_ms % _PERIOD_MS[season]) / _PERIOD_MS[season]
    angles = angle * np.array(_HARMONICS[season], dtype=np.float64)
    return np.concatenate([np.cos(angles), np.sin(angles)])


@dataclass(eq=False)
class Harmonics:
    """Running sums of the regression of S devices; P regressors, F features.

    Attributes:
        mean: Of the regressors, shape (S, P).
        gram: Sums of products of their deviations, shape (S, P, P).
        cross: Sums of products of their deviations with those of the scores, shape (S, P, F, 6).
    """

    mean: Floats
    gram: Floats
    cross: Floats

    @classmethod
    def empty(cls, devices: int, terms: int, shape: tuple[int, ...]) -> Harmonics:
        """Nothing learnt yet; `shape` is that of a window's scores."""
        return cls(np.zeros((devices, terms)), np.zeros((devices, terms, terms)), np.zeros((devices, terms, *shape)))

    @property
    def terms(self) -> int:
        """P."""
        return int(self.mean.shape[1])

    def extended(self, other: Harmonics) -> Harmonics:
        """Return these with others behind them."""
        return Harmonics(
            np.concatenate([self.mean, other.mean]),
            np.concatenate([self.gram, other.gram]),
            np.concatenate([self.cross, other.cross]),
        )

    def copy(self) -> Harmonics:
        """Return a deep copy."""
        return Harmonics(self.mean.copy(), self.gram.copy(), self.cross.copy())

    def forget(self, at: int) -> None:
        """Let a device begin anew."""
        self.mean[at], self.gram[at], self.cross[at] = 0, 0, 0

    def absorb(self, at: Numbers, windows: Floats, regressors: Floats, deviation: Floats) -> None:
        """Add a window.

        Args:
            at: Places of the devices, D of them.
            windows: Of each, this one counted, shape (D,).
            regressors: At the window, shape (P,).
            deviation: Scores less their mean over all windows, this one counted, shape (D, F, 6).
        """
        if not self.terms:
            return
        before = regressors - self.mean[at]
        self.mean[at] += before / windows[:, None]
        self.gram[at] += before[:, :, None] * (regressors - self.mean[at])[:, None, :]
        self.cross[at] += before[:, :, None, None] * deviation[:, None]

    def fit(self, at: Numbers, windows: Floats, regressors: Floats) -> tuple[Floats, Floats]:
        """Return what the season adds to the means of some devices at an instant, and what it explains.

        Args:
            at: Places of the devices, D of them.
            windows: Of each, shape (D,).
            regressors: At the instant, shape (P,).

        Returns:
            The addition, shape (D, F, 6), and the part of the summed squared deviations that the fit takes off, of the
            same shape and never negative.
        """
        shape = (len(at), *self.cross.shape[2:])
        if not self.terms:
            return np.zeros(shape), np.zeros(shape)
        ridge = _RIDGE * np.maximum(windows, 1.0)[:, None, None] * np.eye(self.terms)
        cross = self.cross[at].reshape(len(at), self.terms, -1)
        weights = np.linalg.solve(self.gram[at] + ridge, cross)
        addition = np.einsum("dp,dpk->dk", regressors - self.mean[at], weights)
        explained = np.einsum("dpk,dpk->dk", weights, cross)
        return addition.reshape(shape), np.maximum(explained, 0.0).reshape(shape)
