"""How large a difference between two samples is, next to how large it gets by chance.

Owns effect sizes and the deployment gap: the fleet against the training reference. A fixed threshold on PSI or JS means
nothing without the number of rows (on equal data JS > 0.1 always, at 200 rows), so each is shown beside its calibrated
threshold, and decisions are made elsewhere: by the sequential rule for change, here by effect with a tolerance for the
gap, which no amount of data turns into an alarm when it is small.

Source: test of a minimum effect, Murphy and Myors 1999 (J. Appl. Psychol. 84), by the noncentral chi-square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from shoal_server.drift.monitor_state import Field, Streams
from shoal_server.drift.scores import CONTRASTS, Basis
from shoal_server.statistics.divergence import by_chance, jensen_shannon, psi
from shoal_server.statistics.layout import Flags, Floats, Layout, Numbers
from shoal_server.statistics.views import MIN_EFFECTIVE_ROWS, five_views

GAP_TOLERANCE = 0.5
"""Size of a deployment gap that passes, about in standard deviations of the feature."""

EARLY_GAP_TOLERANCE = 1.0
"""The same while the baseline is learnt: an hour that is unlike the average of training's days must not alarm."""

GAP_ALPHA = 0.001


@dataclass(frozen=True, eq=False)
class Gap:
    """How far the fleet's data are from the training data; F features.

    Attributes:
        effect: Root of the summed squares of the four contrasts, shape (F,); about standard deviations.
        p: P-value of "the gap is at most the tolerance", shape (F,).
        enough: Whether there are enough effective rows to say, shape (F,).
        psi: Population stability index, shape (F,).
        js: Jensen-Shannon divergence in nats, shape (F,).
        psi_by_chance: What PSI exceeds with probability 1 % on equal data, shape (F,).
        js_by_chance: The same of JS.
    """

    effect: Floats
    p: Floats
    enough: Flags
    psi: Floats
    js: Floats
    psi_by_chance: Floats
    js_by_chance: Floats

    @property
    def beyond(self) -> Flags:
        """Which features are farther from the training data than the tolerance."""
        return np.asarray(self.enough & (self.p < GAP_ALPHA))

    def json(self, at: int, *, of_training: bool = True) -> dict[str, Any]:
        """Return one feature's gap for programs.

        Args:
            at: Place of the feature.
            of_training: Whether the reference is of training data; else nothing is known about a gap to those.
        """
        verdict = "drift" if self.beyond[at] else "none"
        return {
            "effect": round(float(self.effect[at]), 4),
            "verdict": "unknown" if not of_training else verdict if self.enough[at] else "too_few",
            "p": float(f"{self.p[at]:.4g}"),
            "psi": round(float(self.psi[at]), 4),
            "psi_by_chance": round(float(self.psi_by_chance[at]), 4),
            "js": round(float(self.js[at]), 4),
            "js_by_chance": round(float(self.js_by_chance[at]), 4),
        }


def deployment_gap(
    layout: Layout,
    reference: Numbers,
    live: Numbers,
    *,
    live_effect: Floats | float = 1.0,
    tolerance: float = GAP_TOLERANCE,
) -> Gap:
    """Compare a fleet with the training reference.

    Args:
        layout: Of the flat vectors.
        reference: Counts of the training data, shape (size,).
        live: Counts of the fleet, shape (size,).
        live_effect: Design effect of the fleet's rows, shape (F,) or a number.
        tolerance: Size of a gap that passes.
    """
    views = five_views(layout, reference, live, current_effect=live_effect)
    rows_a = layout.sums(reference * ~layout.missing).astype(np.float64)
    rows_b = layout.sums(live * ~layout.missing) / live_effect
    pairs = 1 / (1 / np.maximum(rows_a, 1e-9) + 1 / np.maximum(rows_b, 1e-9))
    square = (views.effect**2).sum(axis=-1)
    p = 1 - special.chndtr(pairs * square, CONTRASTS, pairs * tolerance**2)
    unbiased = np.maximum(square - CONTRASTS / pairs, 0.0)  # squares of noise add up: few reference rows look far away
    chance = by_chance(layout, rows_a, rows_b)
    return Gap(
        np.sqrt(unbiased),
        np.asarray(np.clip(p, 0.0, 1.0)),
        np.minimum(rows_a, rows_b) >= MIN_EFFECTIVE_ROWS,
        psi(layout, reference, live),
        jensen_shannon(layout, reference, live),
        chance,
        chance / 8,
    )


def design_effect_of_devices(streams: Streams, basis: Basis) -> Floats:
    """Return the same of single devices, pooled, for a fleet that has no streams of its own (yet), shape (F,)."""
    several = streams.windows >= 2
    if not several.any():
        return np.ones(streams.features)
    m2 = streams.values[several, Field.M2, :, :CONTRASTS].sum(axis=0)
    between = m2 / (streams.windows[several] - 1).sum()
    rows = float(streams.rows[several].sum() / streams.windows[several].sum())
    return np.asarray(np.maximum(1.0, (between / (basis.variance / max(rows, 1.0))).mean(axis=-1)))


def design_effect(streams: Streams, at: int, basis: Basis) -> Floats:
    """Variance between a scope's windows over that of independent rows, at least 1, shape (F,) (Rao-Scott)."""
    windows = streams.windows[at]
    if windows < 2:
        return np.ones(streams.features)
    between = streams.values[at, Field.RESIDUAL_M2, :, :CONTRASTS] / (windows - 1)
    independent = basis.variance / max(float(streams.rows[at] / windows), 1.0)
    return np.asarray(np.maximum(1.0, (between / independent).mean(axis=-1)))
