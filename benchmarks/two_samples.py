"""Many repeats of two-sample tests at once: rows of many shapes and changes, the five views on counts, KS on raw rows.

Repeats come in blocks that share one reference, so that its grid is fitted and its rows are sorted once; intervals are
made of the blocks, which are independent. Everything is vectorised over the repeats of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from shoal_protocol.profile.grid import fit_numeric
from shoal_protocol.profile.profile import ProfileSpec, Stream
from shoal_server.statistics.layout import Layout
from shoal_server.statistics.views import five_views

Rows = npt.NDArray[np.float64]
Shape = Callable[[np.random.Generator, tuple[int, ...]], Rows]
Change = Callable[[np.random.Generator, Rows, float], Rows]

ALPHA = 0.01
REFERENCE = 10_000
EACH = 25
"""Repeats of a block."""

SHAPES: dict[str, Shape] = {
    "normal": lambda r, size: r.normal(size=size),
    "t, 3 degrees": lambda r, size: r.standard_t(3, size=size),
    "Laplace": lambda r, size: r.laplace(size=size),
    "uniform": lambda r, size: r.random(size) * 12**0.5,
    "exponential": lambda r, size: r.exponential(size=size),
    "log-normal": lambda r, size: np.exp(r.normal(size=size)),
    "two humps": lambda r, size: r.normal(size=size) + 4.0 * (r.random(size) < 0.4),
    "60 % zeros": lambda r, size: np.where(r.random(size) < 0.6, 0.0, r.exponential(size=size)),
    "counts of 0 to 10": lambda r, size: r.poisson(3.0, size=size).astype(np.float64),
}

CHANGES: dict[str, Change] = {
    "shift": lambda _, x, much: x + much,
    "gain": lambda _, x, much: x * (1 + much),
    "spread": lambda _, x, much: np.median(x) + (x - np.median(x)) * (1 + much),
    "some rows +1.5": lambda r, x, much: np.where(r.random(x.shape) < much, x + 1.5, x),
    "some rows +1": lambda r, x, much: np.where(r.random(x.shape) < much, x + 1, x),
    "outliers": lambda r, x, much: np.where(r.random(x.shape) < much, r.normal(0, 6, x.shape), x),
    "stuck": lambda r, x, much: np.where(r.random(x.shape) < much, 0.4, x),
    "missing": lambda r, x, much: np.where(r.random(x.shape) < much, np.nan, x),
}
"""What happens to rows of about unit spread; the last argument says how much."""


@dataclass(frozen=True)
class Found:
    """How often each side said "different", by block.

    Attributes:
        ours: Share of a block's repeats in which the five views on counts did, shape (blocks,).
        raw: In which Kolmogorov-Smirnov on the raw rows did.
    """

    ours: Rows
    raw: Rows

    @property
    def ratio(self) -> float:
        """Our power over that on raw rows."""
        return float(self.ours.mean() / max(float(self.raw.mean()), 1e-9))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the ratio, by the delta method over blocks (Fieller's for a denominator far from zero)."""
        left = self.ours - self.ratio * self.raw
        error = float(left.std(ddof=1)) / len(left) ** 0.5 / max(float(self.raw.mean()), 1e-9)
        return self.ratio - 1.96 * error, self.ratio + 1.96 * error


def experiment(
    random: np.random.Generator, shape: str, change: str, much: float, *, rows: int, repeats: int, missing: float = 0.0
) -> Found:
    """Compare both sides on the same rows.

    Args:
        random: Draws everything.
        shape: Of `SHAPES`.
        change: Of `CHANGES`.
        much: How much of it.
        rows: Of the current sample; the reference has `REFERENCE`.
        repeats: In blocks of `EACH`.
        missing: Share of values that are missing on both sides anyway.
    """
    found: list[tuple[float, float]] = []
    for _ in range(max(2, repeats // EACH)):
        training = SHAPES[shape](random, (REFERENCE,))
        sample = SHAPES[shape](random, (EACH, rows))
        sample = CHANGES[change](random, sample, much) if much else sample
        if missing:
            training, sample = (np.where(random.random(x.shape) < missing, np.nan, x) for x in (training, sample))
        found.append((float(views_fire(training, sample).mean()), float(ks_fires(training, sample).mean())))
    ours, raw = np.array(found).T
    return Found(ours, raw)


def half_found(random: np.random.Generator, shape: str, change: str, *, rows: int) -> float:
    """Return how much of a change KS on raw rows finds about half of the time, by bisection."""
    low, high = 0.0, 30 / rows**0.5
    for _ in range(9):
        much = (low + high) / 2
        found = [
            ks_fires(
                SHAPES[shape](random, (REFERENCE,)), CHANGES[change](random, SHAPES[shape](random, (25, rows)), much)
            )
            for _ in range(4)
        ]
        low, high = (much, high) if np.mean(found) < 0.5 else (low, much)
    return (low + high) / 2


def views_fire(training: Rows, samples: Rows) -> npt.NDArray[np.bool_]:
    """Whether the five views on counts say "different", for each of R samples of shape (R, rows)."""
    grid = fit_numeric(training)
    layout = Layout.of(ProfileSpec((Stream("x", "input", grid, "x"),)))
    coarse = np.searchsorted(np.array(grid.coarse), np.arange(grid.cells), side="right") - 1

    def counted(rows: Rows) -> npt.NDArray[np.int64]:
        flat = coarse[grid.cells_of(rows)] + np.arange(len(rows))[:, None] * grid.size
        return np.bincount(flat.ravel(), minlength=len(rows) * grid.size).reshape(len(rows), grid.size)

    return np.asarray(five_views(layout, counted(training[None])[0], counted(samples)).p_value[:, 0] < ALPHA)


def ks_fires(training: Rows, samples: Rows) -> npt.NDArray[np.bool_]:
    """Whether two-sample Kolmogorov-Smirnov on the raw rows does, by `scipy.stats.ks_2samp`'s asymptotic p-value."""
    before = np.sort(training[~np.isnan(training)])
    ordered = np.sort(samples, axis=1)  # missing values come last
    rows = (~np.isnan(ordered)).sum(axis=1)[:, None]
    place = np.arange(ordered.shape[1])
    above = (place + 1) / rows - np.searchsorted(before, ordered, side="right") / before.size
    below = np.searchsorted(before, ordered, side="left") / before.size - place / rows
    distance = np.where(place < rows, np.maximum(above, below), 0.0).max(axis=1)
    pairs = np.round(before.size * rows[:, 0] / (before.size + rows[:, 0]))
    critical = {n: float(stats.kstwo.isf(ALPHA, n)) for n in np.unique(pairs)}
    return np.asarray(distance > np.array([critical[n] for n in pairs]))
