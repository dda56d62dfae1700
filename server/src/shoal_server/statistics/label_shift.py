"""Whether the mix of true classes changed, from counts of predicted ones. Pure.

Black box shift estimation (BBSE; Lipton, Wang and Smola, ICML 2018, arXiv 1802.03916): with C[i, j] the reference's
share of rows predicted as i and truly j, and mu[i] the share predicted as i now, w = C^-1 mu is how much more frequent
each true class became, if only the mix of classes changed (label shift). Where C is nearly singular nothing can be
told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from shoal_server.statistics.proportions import CONFIDENCE, Estimate

MIN_ROWS = 100
"""Rows, of the reference and now, without which nothing is told."""

MAX_ERROR = 0.15
"""Standard error of a class's share above which nothing is told."""


@dataclass(frozen=True)
class LabelShift:
    """The estimated mix of true classes.

    Attributes:
        reason: Why nothing can be told; empty: it can.
        before: Share of each true class in the reference.
        now: Estimated share of each true class, with its interval.
        condition: Condition number of the confusion matrix.
        shifted: Whether any class's interval leaves its share before, at 5 % over all classes (Bonferroni).
    """

    reason: str
    before: tuple[float, ...] = ()
    now: tuple[Estimate, ...] = ()
    condition: float = math.inf
    shifted: bool = False


def estimate_label_shift(confusion: npt.ArrayLike, predicted: npt.ArrayLike) -> LabelShift:
    """Estimate the mix of true classes.

    Args:
        confusion: Reference counts, true classes in rows, predicted in columns, shape (classes, classes).
        predicted: Rows now by predicted class, shape (classes,).
    """
    table, rows = np.asarray(confusion, np.float64), np.asarray(predicted, np.float64)
    n0, n = table.sum(), rows.sum()
    if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) < 2 or n0 < MIN_ROWS:
        return LabelShift(
            f"can't tell: the bundle has {n0:.0f} labelled rows of two classes or more, {MIN_ROWS} are needed"
        )
    if n < MIN_ROWS:
        return LabelShift(f"too few: {n:.0f} predictions, {MIN_ROWS} are needed")
    before = table.sum(axis=1) / n0
    if (before == 0).any():
        return LabelShift("can't tell: the labelled reference rows lack a class")
    joint = table.T / n0
    condition = float(np.linalg.cond(joint))
    if not condition < 1 / np.finfo(np.float64).eps ** 0.5:
        return LabelShift("can't tell: the confusion matrix is singular", condition=condition)
    inverse = np.linalg.inv(joint)
    mu = rows / n
    weight = inverse @ mu
    doubt = inverse @ (_covariance(mu) / n + _joint_covariance(joint, weight) / n0) @ inverse.T
    error = before * np.sqrt(np.maximum(np.diag(doubt), 0.0))
    if error.max() > MAX_ERROR:
        return LabelShift(
            f"can't tell: the model confuses the classes too much (a share is off by {error.max():.2f})",
            condition=condition,
        )
    return _told(before, np.clip(before * weight, 0.0, 1.0), error, rows=int(n), condition=condition)


def _told(
    before: npt.NDArray[np.float64],
    now: npt.NDArray[np.float64],
    error: npt.NDArray[np.float64],
    *,
    rows: int,
    condition: float,
) -> LabelShift:
    now = now / now.sum()
    z = float(ndtri(0.5 + CONFIDENCE / 2))
    strict = float(ndtri(1 - (1 - CONFIDENCE) / (2 * len(now))))
    estimates = tuple(
        Estimate(share, max(0.0, share - z * e), min(1.0, share + z * e), rows)
        for share, e in zip(now.tolist(), error.tolist(), strict=True)
    )
    shifted = bool((np.abs(now - before) > strict * error + 1e-9).any())
    return LabelShift("", tuple(before.tolist()), estimates, condition, shifted)


def _covariance(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.diag(share) - np.outer(share, share)


def _joint_covariance(joint: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the covariance of one reference row's part in C w: e_predicted times w of its true class."""
    second = np.diag(joint @ weight**2)
    mean = joint @ weight
    return np.asarray(second - np.outer(mean, mean))
