"""Estimates without labels, from a bundle's reference and what devices said: a value, or why there is none. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal_protocol.profile.quality import Quality
from shoal_protocol.profile.reference import Reference
from shoal_server.quality.outputs import Outputs
from shoal_server.statistics.confusion import MAX_SHOWN_CLASSES
from shoal_server.statistics.expected_confusion import (
    ClassEstimates,
    estimate_auc,
    estimate_binary,
    estimate_classes,
    named_second,
)
from shoal_server.statistics.label_shift import estimate_label_shift
from shoal_server.statistics.performance import MIN_REFERENCE, MIN_ROWS, Calibration, ScoreCalibration
from shoal_server.statistics.proportions import Estimate

FIGURES = ("accuracy", "precision", "recall", "specificity", "f1")
"""Of two classes those of the second one, else means over the classes."""

_AGREEING = 0.01
"""Share of rows that another rule than a threshold on the score may explain."""


class NoEstimateError(Exception):
    """Nothing can be estimated.

    Args:
        verdict: ``too_few`` or ``cant_tell``.
        reason: In words.
    """

    def __init__(self, verdict: str, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason


def reference_accuracy(reference: Reference | None) -> float | None:
    """Return the accuracy on the reference's labelled rows; none: it is not known."""
    quality = None if reference is None else reference.quality
    if quality is not None and quality.confusion and quality.n:
        return sum(row[at] for at, row in enumerate(quality.confusion)) / quality.n
    return None if reference is None else reference.metrics.get("accuracy")


def calibration_of(reference: Reference | None) -> tuple[Quality, Calibration]:
    """Return how often the reference's answers were right, by class and confidence.

    Raises:
        NoEstimateError: The bundle does not say.
    """
    quality = None if reference is None else reference.quality
    if quality is None:
        raise NoEstimateError("cant_tell", "can't tell: no calibration in the bundle (pack it with labelled rows)")
    if not quality.answered:
        raise NoEstimateError("cant_tell", "can't tell: the model gives no probabilities of classes")
    by_score = quality.scores
    scores = None
    if by_score is not None:
        scores = ScoreCalibration(np.array(by_score.rows, float), np.array(by_score.positive, float))
    calibration = Calibration(np.array(quality.answered, float), np.array(quality.correct, float), scores)
    if calibration.n < MIN_REFERENCE:
        raise NoEstimateError(
            "cant_tell", f"can't tell: {calibration.n} labelled rows in the bundle, {MIN_REFERENCE} are needed"
        )
    return quality, calibration


def accuracy(reference: Reference | None, said: Outputs) -> Estimate:
    """Return the expected accuracy.

    Raises:
        NoEstimateError: There is none, and why.
    """
    return figures(reference, said).accuracy


def figures(reference: Reference | None, said: Outputs) -> ClassEstimates:
    """Return the expected confusion matrix and what follows from it.

    Raises:
        NoEstimateError: There is none, and why.
    """
    quality, calibration = calibration_of(reference)
    if said.confidences is None or not said.confidences.sum():
        raise NoEstimateError("too_few", "too few: no predictions with a confidence")
    if said.n < MIN_ROWS:
        raise NoEstimateError("too_few", f"too few: {said.n} predictions, {MIN_ROWS} are needed")
    classes = said.said(quality.classes)
    if said.scores is not None and _goes_by_score(quality, calibration, said):
        return estimate_binary(calibration, said.scores, classes)
    size = len(quality.classes)
    mistaken = np.array(quality.confusion, float) if quality.confusion else np.zeros((size, size))
    return estimate_classes(calibration, mistaken, said.confidences, classes)


def _goes_by_score(quality: Quality, calibration: Calibration, said: Outputs) -> bool:
    """Tell whether a model of two classes names the second one for the largest scores."""
    if len(quality.classes) != 2 or said.scores is None:
        return False
    by_score = calibration.scores
    if by_score is None:  # an older bundle says it only of a threshold in the middle
        above = said.scores[len(said.scores) // 2 :].sum()
        return bool(abs(said.said(quality.classes)[1] - above) <= _AGREEING * said.n)
    table = np.array(quality.confusion, float)
    named = named_second(by_score.rows, table[:, 1].sum() / max(table.sum(), 1.0))
    share = by_score.positive / np.maximum(by_score.rows, 1.0)
    rows = max(by_score.rows.sum(), 1.0)
    right = (named @ share + (by_score.rows - named) @ (1 - share)) / rows
    # in the bin of the threshold itself a row or two are named otherwise
    return bool(abs(right - np.trace(table) / max(table.sum(), 1.0)) <= _AGREEING + 2 / rows)


def estimate_json(reference: Reference | None, said: Outputs) -> dict[str, Any]:
    """Return the estimates as people and programs see them: ``verdict`` is value, too_few or cant_tell."""
    try:
        expected = figures(reference, said)
        quality, calibration = calibration_of(reference)
    except NoEstimateError as none:
        return {"verdict": none.verdict, "reason": none.reason}
    found = {name: getattr(expected, name) for name in FIGURES}
    by_score = calibration.scores is not None or _goes_by_score(quality, calibration, said)
    if said.scores is not None and len(quality.classes) == 2 and by_score:
        found["auc"] = estimate_auc(calibration, said.scores)
    answer: dict[str, Any] = {"verdict": "value", "reason": ""}
    answer |= {name: one.as_json() for name, one in found.items() if one.value == one.value}
    if len(quality.classes) <= MAX_SHOWN_CLASSES:
        rows = [[round(count, 1) for count in row] for row in expected.confusion.tolist()]
        answer["confusion"] = {"classes": list(quality.classes), "rows": rows}
    return answer


def label_shift_json(reference: Reference | None, said: Outputs) -> dict[str, Any]:
    """Return the estimated mix of true classes, or why it can't be told."""
    quality = None if reference is None else reference.quality
    if quality is None or not quality.confusion:
        return {"verdict": "cant_tell", "reason": "can't tell: no confusion matrix in the bundle"}
    found = estimate_label_shift(quality.confusion, said.said(quality.classes))
    if found.reason:
        return {"verdict": "too_few" if found.reason.startswith("too few") else "cant_tell", "reason": found.reason}
    return {
        "verdict": "shifted" if found.shifted else "none",
        "reason": "",
        "condition": round(found.condition, 3),
        "classes": [
            {"name": name, "before": round(before, 6), "now": now.as_json()}
            for name, before, now in zip(quality.classes, found.before, found.now, strict=True)
        ],
    }
