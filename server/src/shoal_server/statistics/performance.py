"""Performance without labels, from counts: what confidences promise, corrected by the reference's calibration. Pure.

Confidence-based performance estimation (CBPE; Kivimäki, Białek, Nurminen and Kuberski, arXiv 2407.08649): every answer
in a bin of confidence is right with the probability that the bin had on labelled reference rows; expected counts of
right and wrong answers follow, and every metric from them (see `expected_confusion`). It holds where P(right |
confidence, predicted class) is the same as on the reference (covariate shift within what the model has seen); it is
blind to concept change.

Intervals: the delta method over bins, with the variance of the reference's shares and of the outcomes themselves,
widened to what other trust in the model's own claims would say: where the reference hardly saw a confidence, nobody
knows. They are about the assumption's world: they don't cover a broken assumption.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from shoal_server.statistics.calibration import CLAIMED_ROWS, smoothed_shares
from shoal_server.statistics.proportions import CONFIDENCE, Estimate

Numbers = npt.NDArray[np.float64]

MIN_REFERENCE = 100
"""Labelled reference rows without which nothing is estimated."""

MIN_ROWS = 50
"""Predictions below which the answer is "too few"."""

_OTHER_TRUST = (0.0, 4.0)
"""Rows in each bin that the model's claims may count for as well: none, and four."""


@dataclass(frozen=True)
class ScoreCalibration:
    """Labelled reference rows of a model with two classes, by bin of the second one's probability.

    Attributes:
        rows: Shape (bins,).
        positive: Of them, those that truly are of the second class.
    """

    rows: Numbers
    positive: Numbers


@dataclass(frozen=True)
class Calibration:
    """Labelled reference rows by predicted class and bin of confidence.

    Attributes:
        answered: Rows, shape (classes, bins).
        correct: Of them, those that were right, same shape.
        scores: By score, of a model with two classes; none: the bundle does not say.
    """

    answered: Numbers
    correct: Numbers
    scores: ScoreCalibration | None = None

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.answered.sum())


def estimate_accuracy(calibration: Calibration, confidences: npt.ArrayLike, classes: npt.ArrayLike) -> Estimate:
    """Return the expected accuracy of predictions.

    The joint counts by class and confidence are not in a profile, their two margins are: the reference's joint table is
    fitted to them (iterative proportional fitting, Deming and Stephan, Ann. Math. Statist. 11 (1940)).

    Args:
        calibration: Of the reference.
        confidences: Rows by bin of confidence, shape (bins,).
        classes: Rows by predicted class, shape (classes,); all zero: not known.
    """
    rows, said = np.asarray(confidences, np.float64), np.asarray(classes, np.float64)
    n = int(rows.sum())
    if not n:
        return Estimate(math.nan, 0.0, 1.0, 0)
    joint = fitted_joint(calibration.answered, said, rows)
    shares = readings(calibration.answered, calibration.correct)
    values = [float((joint * reading).sum() / joint.sum()) for reading in shares]
    # accuracy is linear in the shares: the gradient is exact
    return within(values, float(((joint / joint.sum()) ** 2 * doubt(shares[0], calibration.answered, joint)).sum()), n)


def fitted_joint(reference: npt.ArrayLike, classes: npt.ArrayLike, bins: npt.ArrayLike) -> Numbers:
    """Return the table nearest to the reference's that has these margins, shape (classes, bins).

    Args:
        reference: Counts, shape (classes, bins).
        classes: Wanted sums of the rows; all zero: as they come.
        bins: Wanted sums of the columns.
    """
    seed = np.asarray(reference, np.float64)
    said, rows = np.asarray(classes, np.float64), np.asarray(bins, np.float64)
    # Cells that the reference never saw stay possible, so that every margin can be met.
    table = seed + 1e-3 * np.outer(seed.sum(axis=1) + 1, np.ones(seed.shape[1])) / seed.shape[1]
    for _ in range(50):
        if said.sum():
            table = table * _ratio(said / said.sum() * rows.sum(), table.sum(axis=1))[:, None]
        table = table * _ratio(rows, table.sum(axis=0))[None, :]
    return np.asarray(table)


def readings(answered: Numbers, correct: Numbers) -> list[Numbers]:
    """Return the shares of right answers as they are taken, then with less and with more trust in the model's claims.

    Args:
        answered: Labelled rows by bin, shape (..., bins).
        correct: Of them, those that were right (or of the second class), same shape.
    """
    return [smoothed_shares(answered, correct, claimed_rows=rows) for rows in (CLAIMED_ROWS, *_OTHER_TRUST)]


def doubt(shares: Numbers, behind: Numbers, rows: Numbers) -> Numbers:
    """Return the variance of each bin's outcomes about its share: of the reference's rows, and of those of now.

    Args:
        shares: Of right answers.
        behind: Labelled rows of the reference, same shape.
        rows: Of now, same shape.
    """
    one = shares * (1 - shares) + 0.25 / (behind + 2) ** 2
    return np.asarray(one * (1 / (behind + 1) + 1 / np.maximum(rows, 1.0)))


def within(values: list[float], variance: float, n: int) -> Estimate:
    """Return the first value, with an interval of the variance about all of them."""
    half = float(ndtri(0.5 + CONFIDENCE / 2)) * math.sqrt(variance)
    return Estimate(values[0], max(0.0, min(values) - half), min(1.0, max(values) + half), n)


def _ratio(wanted: Numbers, there: Numbers) -> Numbers:
    return np.divide(wanted, there, out=np.zeros_like(wanted), where=there > 0)
