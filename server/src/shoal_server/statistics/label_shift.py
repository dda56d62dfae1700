"""Whether the mix of true classes changed, from counts of predicted ones. Pure.

Black box shift estimation (BBSE; Lipton, Wang and Smola, ICML 2018, arXiv 1802.03916): with M[i, j] the share of the
reference's rows of true class j that were predicted as i, and mu[i] the share predicted as i now, the mix of true
classes is M^-1 mu, if only that mix changed (label shift). Where M is nearly singular, or its few rows leave open
whether it is, nothing can be told: what chance makes look well told apart would be believed too often.

Whether the mix changed at all is a question of mu against the reference's own mix of answers, in which M is the same on
both sides: its errors can't make a change of none.
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

_SURE = 2.0
"""Standard errors of the smallest singular value by which it may be smaller than it looks."""


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
    rates = (table / table.sum(axis=1, keepdims=True)).T
    # Variances of rates of 0 and 1 are not 0: each class has half a row more, spread over the answers.
    padded = table + 0.5 / len(table)
    doubts = [_covariance(row / row.sum()) / row.sum() for row in padded]
    condition = float(np.linalg.cond(rates))
    if not condition < 1 / np.finfo(np.float64).eps ** 0.5:
        return LabelShift("can't tell: the confusion matrix is singular", condition=condition)
    left = _least_told_apart(rates, doubts)
    if left <= 0:
        return LabelShift(
            "can't tell: the model confuses the classes too much for so few labelled rows", condition=condition
        )
    inverse = np.linalg.inv(rates)
    mu, usual = rows / n, table.sum(axis=0) / n0
    now = inverse @ mu
    doubt = inverse @ (_covariance(mu) / n + sum(x * x * d for x, d in zip(now, doubts, strict=True))) @ inverse.T
    error = np.sqrt(np.maximum(np.diag(doubt), 0.0))
    if error.max() / left > MAX_ERROR:
        return LabelShift(
            f"can't tell: the model confuses the classes too much (a share is off by {error.max():.2f})",
            condition=condition,
        )
    together = (mu * n + usual * n0) / (n + n0)
    by_chance = inverse @ (_covariance(together) * (1 / n + 1 / n0)) @ inverse.T
    moved = np.abs(inverse @ (mu - usual)) - _strict(len(now)) * np.sqrt(np.maximum(np.diag(by_chance), 0.0))
    z, told = float(ndtri(0.5 + CONFIDENCE / 2)), np.clip(now, 0.0, 1.0)
    estimates = tuple(
        Estimate(share, max(0.0, share - z * e), min(1.0, share + z * e), int(n))
        for share, e in zip((told / told.sum()).tolist(), error.tolist(), strict=True)
    )
    return LabelShift("", tuple(before.tolist()), estimates, condition, bool((moved > 1e-9).any()))


def _strict(classes: int) -> float:
    """Return the limit of a normal score at 5 % over all classes (Bonferroni)."""
    return float(ndtri(1 - (1 - CONFIDENCE) / (2 * classes)))


def _least_told_apart(rates: npt.NDArray[np.float64], doubts: list[npt.NDArray[np.float64]]) -> float:
    """Return which part of the smallest singular value is left at its lower bound; 0 or less: it may be none.

    A singular value moves with the matrix by u' dM v (first order), whose variance the columns' covariances give.
    """
    u, values, v = np.linalg.svd(rates)
    variance = sum(x * x * float(u[:, -1] @ d @ u[:, -1]) for x, d in zip(v[-1], doubts, strict=True))
    return float(1 - _SURE * variance**0.5 / max(float(values[-1]), 1e-300))


def _covariance(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.diag(share) - np.outer(share, share)
