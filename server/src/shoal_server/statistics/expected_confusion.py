"""The confusion matrix that confidences promise, and what follows from it: precision, recall, F1, AUC. Pure.

`performance` says how often an answer of some confidence is right. Of two classes a wrong answer's true class is the
other one; of more, wrong answers are shared out among the true classes as on the reference, which supposes that what is
mistaken for what has not changed.

Figures are those of the second class where there are two, else the plain mean over the classes (one against the rest,
macro average), in which a class that nobody is or names counts as 0, as NannyML and scikit-learn take them.

Source: CBPE, arXiv 2407.08649; the delta method with exact gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal_server.statistics.performance import Calibration, doubt, fitted_joint, readings, within
from shoal_server.statistics.proportions import Estimate

Numbers = npt.NDArray[np.float64]

_STEP = 1e-4
_PRIOR_WRONG = 1.0
"""Wrong rows that each answer is thought to have had on the reference besides those that it had."""


@dataclass(frozen=True)
class ClassEstimates:
    """What is expected of a classifier.

    Attributes:
        confusion: Expected rows by true and predicted class, shape (classes, classes).
        accuracy, precision, recall, specificity, f1: NaN where there is nothing to take a share of.
    """

    confusion: Numbers
    accuracy: Estimate
    precision: Estimate
    recall: Estimate
    specificity: Estimate
    f1: Estimate


@dataclass(frozen=True)
class _Promise:
    """An expected confusion matrix as a linear function of the bins' shares.

    Attributes:
        readings: Shares of each bin: as taken, and with other trust.
        variance: Of the first of them, same shape.
        table: Shares -> matrix, shape (classes, classes).
        slope: Gradient of a figure by the matrix -> by the shares.
        beside: Variance of a figure, given its gradient by the matrix, that is not the shares': of what is mistaken.
    """

    readings: list[Numbers]
    variance: Numbers
    table: Callable[[Numbers], Numbers]
    slope: Callable[[Numbers], Numbers]
    beside: Callable[[Numbers], float] = lambda _gradient: 0.0


def estimate_classes(
    calibration: Calibration, mistaken: npt.ArrayLike, confidences: npt.ArrayLike, classes: npt.ArrayLike
) -> ClassEstimates:
    """Return what is expected of answers whose confidences and classes were counted.

    Args:
        calibration: Of the reference.
        mistaken: The reference's confusion matrix, true classes in rows, shape (classes, classes).
        confidences: Rows by bin of confidence, shape (bins,).
        classes: Rows by predicted class, shape (classes,).
    """
    rows = fitted_joint(calibration.answered, classes, confidences)
    shares = readings(calibration.answered, calibration.correct)
    wrong = _wrong_shares(np.asarray(mistaken, np.float64))
    own = np.eye(len(rows))

    def table(q: Numbers) -> Numbers:
        right, named = (rows * q).sum(axis=1), rows.sum(axis=1)
        return np.asarray(own * right + wrong * (named - right))

    def slope(gradient: Numbers) -> Numbers:
        return np.asarray(rows * (np.diag(gradient) - (wrong * gradient).sum(axis=0))[:, None])

    def beside(gradient: Numbers) -> float:
        missed = (rows * (1 - shares[0])).sum(axis=1)
        seen = np.asarray(mistaken, np.float64).sum(axis=0) - np.diag(np.asarray(mistaken, np.float64)) + _PRIOR_WRONG
        spread = (wrong * gradient**2).sum(axis=0) - (wrong * gradient).sum(axis=0) ** 2
        return float((spread * (missed**2 / seen + missed)).sum())

    promise = _Promise(shares, doubt(shares[0], calibration.answered, rows), table, slope, beside)
    return _estimates(promise, n=int(np.sum(confidences)))


def estimate_binary(
    calibration: Calibration, scores: npt.ArrayLike, classes: npt.ArrayLike | None = None
) -> ClassEstimates:
    """Return what is expected of a model of two classes whose scores of the second class were counted.

    Args:
        calibration: Of the reference, 2 classes.
        scores: Rows by bin of the second class's probability, equal bins on [0, 1], shape (bins,).
        classes: Rows by predicted class, shape (2,): the second class is what the largest scores were named, whatever
            the model's threshold. Left out, or without the reference's own counts by score: from the middle on.
    """
    rows = np.asarray(scores, np.float64)
    said = np.zeros(2) if classes is None or calibration.scores is None else np.asarray(classes, np.float64)
    named = named_second(rows, float(said[1] / said.sum()) if said.sum() else None)
    others = rows - named
    shares, behind = _by_score(calibration)

    def table(q: Numbers) -> Numbers:
        return np.array([[others @ (1 - q), named @ (1 - q)], [others @ q, named @ q]])

    def slope(gradient: Numbers) -> Numbers:
        return np.asarray(others * (gradient[1, 0] - gradient[0, 0]) + named * (gradient[1, 1] - gradient[0, 1]))

    return _estimates(_Promise(shares, doubt(shares[0], behind, rows), table, slope), n=int(rows.sum()))


def estimate_auc(calibration: Calibration, scores: npt.ArrayLike) -> Estimate:
    """Return the expected area under the ROC curve of a model of two classes; arguments as of `estimate_binary`.

    The gradient is numeric, bin by bin.
    """
    rows = np.asarray(scores, np.float64)
    shares, behind = _by_score(calibration)
    values, n = [expected_auc(rows, reading) for reading in shares], int(rows.sum())
    if not n or not math.isfinite(values[0]):
        return Estimate(math.nan, 0.0, 1.0, n)
    variance, doubts = 0.0, doubt(shares[0], behind, rows)
    for at in np.flatnonzero(rows):
        moved = shares[0].copy()
        moved[at] += _STEP
        variance += float(((expected_auc(rows, moved) - values[0]) / _STEP) ** 2 * doubts[at])
    return within([value for value in values if math.isfinite(value)], variance, n)


def expected_auc(rows: Numbers, share: Numbers) -> float:
    """Return the area under the ROC curve of counts by ascending score; NaN where a class is lacking.

    Within a bin larger scores are likelier of the second class, too: with a share that changes by s over the bin, and
    rows spread evenly, a positive row has the larger score with a probability of 1/2 + s / (12 q (1 - q)).

    Args:
        rows: By bin.
        share: Of the second class in each bin, q.
    """
    positive, negative = rows * share, rows * (1 - share)
    below = np.cumsum(negative) - negative
    change = np.gradient(share) if len(share) > 1 else np.zeros_like(share)
    spread = np.maximum(share * (1 - share), 1e-12)
    inside = np.minimum(0.5 + np.maximum(change, 0.0) / (12 * spread), 1.0)
    return _over(float(positive @ (below + negative * inside)), float(positive.sum() * negative.sum()))


def _estimates(promise: _Promise, *, n: int) -> ClassEstimates:
    tables = [promise.table(reading) for reading in promise.readings]
    classes = len(tables[0])
    of = np.array([1]) if classes == 2 else np.arange(classes)

    def told(figure: Callable[[Numbers, npt.NDArray[np.int64]], tuple[float, Numbers]]) -> Estimate:
        values = [figure(table, of)[0] for table in tables]
        if not n or not math.isfinite(values[0]):
            return Estimate(math.nan, 0.0, 1.0, n)
        gradient = figure(tables[0], of)[1]
        variance = float((promise.slope(gradient) ** 2 * promise.variance).sum()) + promise.beside(gradient)
        return within([value for value in values if math.isfinite(value)], variance, n)

    return ClassEstimates(tables[0], *(told(figure) for figure in (_accuracy, _precision, _recall, _specificity, _f1)))


def _accuracy(table: Numbers, _of: npt.NDArray[np.int64]) -> tuple[float, Numbers]:
    total = float(table.sum())
    return _over(float(np.trace(table)), total), np.eye(len(table)) / max(total, 1e-300)


def _precision(table: Numbers, of: npt.NDArray[np.int64]) -> tuple[float, Numbers]:
    hit, named = np.diag(table), table.sum(axis=0)
    return _mean(hit, named, of, by_hit=_one_over(named), by_true=np.zeros_like(hit))


def _recall(table: Numbers, of: npt.NDArray[np.int64]) -> tuple[float, Numbers]:
    hit, true = np.diag(table), table.sum(axis=1)
    one = _one_over(true)
    return _mean(hit, true, of, by_hit=one, by_true=-hit * one**2)


def _specificity(table: Numbers, of: npt.NDArray[np.int64]) -> tuple[float, Numbers]:
    hit, true, named = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    others = table.sum() - true
    left = others - named + hit
    one = _one_over(others)
    return _mean(left, others, of, by_hit=one, by_true=-one + left * one**2)


def _f1(table: Numbers, of: npt.NDArray[np.int64]) -> tuple[float, Numbers]:
    hit, both = np.diag(table), table.sum(axis=1) + table.sum(axis=0)
    one = _one_over(both)
    return _mean(2 * hit, both, of, by_hit=2 * one, by_true=-2 * hit * one**2)


def _mean(
    part: Numbers, whole: Numbers, of: npt.NDArray[np.int64], *, by_hit: Numbers, by_true: Numbers
) -> tuple[float, Numbers]:
    """Return the mean share over some classes, and its gradient by the matrix, whose columns keep their sums.

    Of one class alone a share of nothing is NaN, among several it counts as 0.
    """
    if len(of) == 1 and not whole[of[0]] > 0:
        return math.nan, np.zeros((len(part), len(part)))
    shares = part[of] * _one_over(whole[of])
    kept = np.zeros(len(part))
    kept[of] = 1 / len(of)
    return float(shares.mean()), np.asarray((kept * by_true)[:, None] + np.diag(kept * by_hit))


def _wrong_shares(mistaken: Numbers) -> Numbers:
    """Return which true class a wrong answer is of, by the answer: columns sum to 1, the diagonal is 0.

    Classes that were never mistaken for it on the reference get what their number of rows says of `_PRIOR_WRONG` rows.
    """
    off = 1 - np.eye(len(mistaken))
    usual = off * (mistaken.sum(axis=1) + 1)[:, None]
    counts = mistaken * off + _PRIOR_WRONG * usual / usual.sum(axis=0)
    return np.asarray(counts / counts.sum(axis=0))


def named_second(rows: Numbers, share: float | None) -> Numbers:
    """Return the rows of each bin of the score that were named the second class.

    Args:
        rows: By bin.
        share: Of all rows that were named so: those with the largest scores; None: those from the middle on.
    """
    if share is None:
        return np.where(np.arange(len(rows)) >= len(rows) // 2, rows, 0.0)
    above = np.cumsum(rows[::-1])[::-1] - rows
    return np.asarray(np.clip(share * rows.sum() - above, 0.0, rows))


def _by_score(calibration: Calibration) -> tuple[list[Numbers], Numbers]:
    """Return readings of the second class's share by score, and the rows behind them.

    Without counts by score they are read off those by predicted class and confidence, which tell the same where the
    model names the second class from the middle on.
    """
    if calibration.scores is not None:
        return readings(calibration.scores.rows, calibration.scores.positive), calibration.scores.rows
    half = calibration.answered.shape[1] // 2
    shares = [
        np.concatenate([1 - q[0][::-1][:half], q[1][half:]])
        for q in readings(calibration.answered, calibration.correct)
    ]
    return shares, np.concatenate([calibration.answered[0][::-1][:half], calibration.answered[1][half:]])


def _one_over(values: Numbers) -> Numbers:
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


def _over(a: float, b: float) -> float:
    return a / b if b else math.nan
