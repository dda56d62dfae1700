"""Performance without labels, from counts: what confidences promise, corrected by the reference's calibration. Pure.

Confidence-based performance estimation (CBPE; Kivimäki, Białek, Nurminen and Kuberski, arXiv 2407.08649): every answer
in a bin of confidence is right with the probability that the bin had on labelled reference rows; expected counts of
right and wrong answers follow, and every metric from them. It holds where P(right | confidence, predicted class) is the
same as on the reference (covariate shift within what the model has seen); it is blind to concept change.

Intervals: the delta method over bins, with the variance of the reference's shares and of the outcomes themselves,
widened to what other trust in the model's own claims would say: where the reference hardly saw a confidence, nobody
knows. They are about the assumption's world: they don't cover a broken assumption.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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

_STEP = 1e-4
_OTHER_TRUST = (0.0, 4.0)
"""Rows in each bin that the model's claims may count for as well: none, and four times as many."""


@dataclass(frozen=True)
class Calibration:
    """Labelled reference rows by predicted class and bin of confidence.

    Attributes:
        answered: Rows, shape (classes, bins).
        correct: Of them, those that were right, same shape.
    """

    answered: Numbers
    correct: Numbers

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.answered.sum())


@dataclass(frozen=True)
class BinaryEstimate:
    """Expected figures of a model with two classes, the second one being positive."""

    accuracy: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    auc: Estimate


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
    values = [float((joint * shares).sum() / joint.sum()) for shares in _readings(calibration)]
    doubt = _doubt(_readings(calibration)[0], calibration.answered, joint)
    # accuracy is linear in the shares: the gradient is exact
    return _within(values, float(((joint / joint.sum()) ** 2 * doubt).sum()), n)


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


def estimate_binary(calibration: Calibration, scores: npt.ArrayLike) -> BinaryEstimate:
    """Return what is expected of a model of two classes whose scores of the second class were counted.

    Args:
        calibration: Of the reference, 2 classes.
        scores: Rows by bin of the second class's probability, equal bins on [0, 1]; the model names the second class
            from the middle on.
    """
    rows = np.asarray(scores, np.float64)
    half = len(rows) // 2
    readings = [np.concatenate([1 - shares[0][::-1][:half], shares[1][half:]]) for shares in _readings(calibration)]
    behind = np.concatenate([calibration.answered[0][::-1][:half], calibration.answered[1][half:]])
    is_named = np.arange(len(rows)) >= half
    n = int(rows.sum())

    def of(metric: Callable[[float, float, float, float], float]) -> Estimate:
        def figure(q: Numbers) -> float:
            hit, wrong = float(rows[is_named] @ q[is_named]), float(rows[is_named] @ (1 - q[is_named]))
            missed, right = float(rows[~is_named] @ q[~is_named]), float(rows[~is_named] @ (1 - q[~is_named]))
            return metric(hit, wrong, missed, right)

        return _estimate(figure, readings, behind, rows, n=n)

    return BinaryEstimate(
        accuracy=of(lambda tp, fp, fn, tn: _over(tp + tn, tp + fp + fn + tn)),
        precision=of(lambda tp, fp, _fn, _tn: _over(tp, tp + fp)),
        recall=of(lambda tp, _fp, fn, _tn: _over(tp, tp + fn)),
        f1=of(lambda tp, fp, fn, _tn: _over(2 * tp, 2 * tp + fp + fn)),
        auc=_estimate(lambda q: expected_auc(rows * q, rows * (1 - q)), readings, behind, rows, n=n),
    )


def expected_auc(positive: Numbers, negative: Numbers) -> float:
    """Return the area under the ROC curve of counts by ascending score, ties of one bin counting half."""
    below = np.cumsum(negative) - negative
    return _over(float(positive @ (below + negative / 2)), float(positive.sum() * negative.sum()))


def _readings(calibration: Calibration) -> list[Numbers]:
    """Return the shares of right answers as they are taken, then with less and with more trust in its claims."""
    return [
        smoothed_shares(calibration.answered, calibration.correct, claimed_rows=rows)
        for rows in (CLAIMED_ROWS, *_OTHER_TRUST)
    ]


def _estimate(
    figure: Callable[[Numbers], float], readings: list[Numbers], behind: Numbers, rows: Numbers, *, n: int
) -> Estimate:
    """Return a figure of the bins' shares with its interval.

    The gradient is numeric, bin by bin; its variance is `_doubt`'s.
    """
    values, shares = [figure(reading) for reading in readings], readings[0]
    value = values[0]
    if not n or not math.isfinite(value):
        return Estimate(math.nan, 0.0, 1.0, n)
    doubt = _doubt(shares, behind, rows)
    variance = 0.0
    for at in np.ndindex(shares.shape):
        if rows[at] > 0:
            moved = shares.copy()
            moved[at] += _STEP
            slope = (figure(moved) - value) / _STEP
            variance += float(slope * slope * doubt[at])
    return _within(values, variance, n)


def _doubt(shares: Numbers, behind: Numbers, rows: Numbers) -> Numbers:
    """Return the variance of each bin's outcomes about its share: of the reference's rows, and of those of now."""
    one = shares * (1 - shares) + 0.25 / (behind + 2) ** 2
    return np.asarray(one * (1 / (behind + 1) + 1 / np.maximum(rows, 1.0)))


def _within(values: list[float], variance: float, n: int) -> Estimate:
    half = float(ndtri(0.5 + CONFIDENCE / 2)) * math.sqrt(variance)
    return Estimate(values[0], max(0.0, min(values) - half), min(1.0, max(values) + half), n)


def _ratio(wanted: Numbers, there: Numbers) -> Numbers:
    return np.divide(wanted, there, out=np.zeros_like(wanted), where=there > 0)


def _over(a: float, b: float) -> float:
    return a / b if b else math.nan
