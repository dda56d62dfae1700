"""What a table of true against predicted classes says: accuracy, and for each class precision, recall and F1. Pure.

Rows are true classes, columns predicted ones; more columns than rows are answers that are no class. F1 is a monotone
function of the Jaccard share (F1 = 2 J / (1 + J)), so Wilson's interval of that share gives F1's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal_server.statistics.proportions import Estimate, wilson

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


def class_quality(table: npt.ArrayLike) -> list[ClassQuality]:
    """Return the quality of each class.

    Args:
        table: Counts, shape (classes, classes or more).
    """
    counts = np.asarray(table, np.float64)
    found = []
    for at in range(len(counts)):
        hit, truly, said = counts[at, at], counts[at].sum(), counts[:, at].sum()
        found.append(ClassQuality(_share(hit, said), _share(hit, truly), _f1(hit, truly, said)))
    return found


def macro_f1(table: npt.ArrayLike) -> float:
    """Return the mean F1 of the classes that have true or predicted rows; NaN: there are none."""
    values = [one.f1.value for one in class_quality(table) if one.f1.n]
    return float(np.mean(values)) if values else math.nan


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


def _share(hits: float, n: float) -> Estimate:
    low, high = wilson(hits, n)
    return Estimate(hits / n if n else math.nan, low, high, int(n))


def _f1(hit: float, truly: float, said: float) -> Estimate:
    either = truly + said - hit
    if not either:
        return Estimate(math.nan, 0.0, 1.0, 0)
    jaccard = hit / either
    low, high = wilson(hit, either)
    return Estimate(2 * jaccard / (1 + jaccard), 2 * low / (1 + low), 2 * high / (1 + high), int(either))
