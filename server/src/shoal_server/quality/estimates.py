"""Estimates without labels, from a bundle's reference and what devices said: a value, or why there is none. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal_protocol.profile.quality import Quality
from shoal_protocol.profile.reference import Reference
from shoal_server.quality.outputs import Outputs
from shoal_server.statistics.label_shift import estimate_label_shift
from shoal_server.statistics.performance import (
    MIN_REFERENCE,
    MIN_ROWS,
    BinaryEstimate,
    Calibration,
    estimate_accuracy,
    estimate_binary,
)
from shoal_server.statistics.proportions import Estimate

_AGREEING = 0.01
"""Share of rows by which scores above the middle and the second class may differ: else another threshold is used."""


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
    calibration = Calibration(np.array(quality.answered, float), np.array(quality.correct, float))
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
    quality, calibration = calibration_of(reference)
    if said.confidences is None or not said.confidences.sum():
        raise NoEstimateError("too_few", "too few: no predictions with a confidence")
    if said.n < MIN_ROWS:
        raise NoEstimateError("too_few", f"too few: {said.n} predictions, {MIN_ROWS} are needed")
    return estimate_accuracy(calibration, said.confidences, said.said(quality.classes))


def binary(reference: Reference | None, said: Outputs) -> BinaryEstimate | None:
    """Return the figures of a model with two classes; none: it has others, or names the second from another threshold.

    Raises:
        NoEstimateError: There is no calibration, or too few rows.
    """
    quality, calibration = calibration_of(reference)
    if len(quality.classes) != 2 or said.scores is None or said.n < MIN_ROWS:
        return None
    named = said.said(quality.classes)[1]
    above = said.scores[len(said.scores) // 2 :].sum()
    return estimate_binary(calibration, said.scores) if abs(named - above) <= _AGREEING * said.n else None


def estimate_json(reference: Reference | None, said: Outputs) -> dict[str, Any]:
    """Return the estimates as people and programs see them: ``verdict`` is value, too_few or cant_tell."""
    try:
        expected = accuracy(reference, said)
        both = binary(reference, said)
    except NoEstimateError as none:
        return {"verdict": none.verdict, "reason": none.reason}
    figures = {"accuracy": expected.as_json()}
    if both is not None:
        names = ("accuracy", "precision", "recall", "f1", "auc")
        found = {name: getattr(both, name) for name in names}
        figures = {name: one.as_json() for name, one in found.items() if one.value == one.value}
    return {"verdict": "value", "reason": "", **figures}


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
