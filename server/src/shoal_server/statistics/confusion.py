"""What a table of true against predicted classes says: accuracy, and for each class precision, recall and F1. Pure.

Rows are true classes, columns predicted ones; more columns than rows are answers that are no class. Intervals are those
of shares over devices. F1 is a monotone function of the Jaccard share (F1 = 2 J / (1 + J)), so that share's interval
gives F1's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from shoal_server.statistics.proportions import Estimate, share

Table = npt.NDArray[np.float64]

MAX_SHOWN_CLASSES = 40
"""A confusion matrix of more classes is not shown."""


@dataclass(frozen=True)
class ClassQuality:
    """One class.

    Attributes:
        precision: Of the answers that name it, the share that is right.
        recall: Of its rows, the share that was found.
        f1: Their harmonic mean.
    """

    precision: Estimate
    recall: Estimate
    f1: Estimate


def class_quality(hit: npt.ArrayLike, truly: npt.ArrayLike, said: npt.ArrayLike) -> ClassQuality:
    """Return the quality of one class over devices, which may differ beyond chance.

    Args:
        hit: Rows of the class that were found, by device, shape (devices,).
        truly: Rows of the class.
        said: Rows that were taken for it.
    """
    hits, true, named = (np.asarray(counts, np.float64) for counts in (hit, truly, said))
    jaccard = share(hits, true + named - hits)
    f1 = replace(jaccard, **{end: 2 * x / (1 + x) for end in ("value", "low", "high") for x in [getattr(jaccard, end)]})
    return ClassQuality(share(hits, named), share(hits, true), f1)


def macro_f1(table: npt.ArrayLike) -> float:
    """Return the mean F1 of the classes that have true or predicted rows; NaN: there are none.

    Args:
        table: Counts, shape (classes, classes or more).
    """
    counts = np.asarray(table, np.float64)
    either = counts.sum(axis=1) + counts[:, : len(counts)].sum(axis=0)
    there = either > 0
    return float((2 * np.diag(counts)[there] / either[there]).mean()) if there.any() else math.nan


def overall(table: npt.ArrayLike) -> dict[str, float]:
    """Return precision, recall, specificity and F1: of two classes the second one's, else means over the classes.

    Of means, a class that nobody is or names counts as 0 where it is divided by (as scikit-learn's macro average has
    it); a figure that has nothing to be a share of is left out.

    Args:
        table: Counts, shape (classes, classes or more).
    """
    counts = np.asarray(table, np.float64)
    classes = len(counts)
    hit, true, named = np.diag(counts), counts.sum(axis=1), counts[:, :classes].sum(axis=0)
    others = counts.sum() - true
    of = [1] if classes == 2 else range(classes)
    parts = {
        "precision": (hit, named),
        "recall": (hit, true),
        "specificity": (others - named + hit, others),
        "f1": (2 * hit, true + named),
    }
    return {
        name: float(np.mean([part[at] / whole[at] if whole[at] else 0.0 for at in of]))
        for name, (part, whole) in parts.items()
        if any(whole[at] for at in of)
    }
