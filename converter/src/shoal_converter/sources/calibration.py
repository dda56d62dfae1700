"""Calibrated classifiers, as formulas: what each inner classifier says, put right by its calibrators, and their mean.

Owns the three methods of scikit-learn's CalibratedClassifierCV: a logistic curve (Platt, 1999), a monotone one
(Zadrozny and Elkan, 2002), and one temperature for all classes (Guo et al., 2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal_converter.sources.closed_forms import isotonic_curve
from shoal_converter.sources.decisions import has_scores
from shoal_converter.sources.formula import Formula
from shoal_converter.sources.inlining import Inner

_LEAST = 1e-12
"""Added to a probability before its logarithm is taken, as scikit-learn does."""


def can_be_calibrated(model: Any) -> bool:
    """Tell whether the scores that the calibrators take can be had of every inner classifier."""
    return all(has_scores(each.estimator) for each in model.calibrated_classifiers_)


def calibrated(f: Formula, inner: Inner, model: Any) -> tuple[str, ...]:
    """The mean of the calibrated classifiers' probabilities, and the class of the largest."""
    shares = [_one(f, inner, each) for each in model.calibrated_classifiers_]
    mean = shares[0]
    for share in shares[1:]:
        mean = f.node("Add", mean, share)
    mean = f.node("Div", mean, float(len(shares)))
    return f.labels(model.classes_, f.largest(mean)), mean


def _one(f: Formula, inner: Inner, model: Any) -> str:
    if model.method == "temperature":
        return f.node("Softmax", f.node("Mul", _logits(f, inner, model), float(model.calibrators[0].beta_)), axis=1)
    scores = inner.scores(model.estimator)
    if len(model.classes) == 2:
        above = _curve(f, model.calibrators[0], scores)
        return f.node("Min", f.node("Concat", f.node("Sub", 1.0, above), above, axis=1), np.float64(1))
    known = np.searchsorted(model.classes, model.estimator.classes_).tolist()
    curves = {
        place: _curve(f, calibrator, f.columns(scores, [at]))
        for at, (place, calibrator) in enumerate(zip(known, model.calibrators, strict=True))
    }
    absent = f.node("Mul", next(iter(curves.values())), 0.0)
    all_of_them = f.node("Concat", *(curves.get(place, absent) for place in range(len(model.classes))), axis=1)
    total = f.total(all_of_them)
    none = f.node("Equal", total, 0.0)
    share = f.node("Div", all_of_them, f.node("Where", none, 1.0, total))
    return f.node("Where", none, 1.0 / len(model.classes), share)


def _curve(f: Formula, calibrator: Any, score: str) -> str:
    """Return one class's calibrated probability, [N, 1]."""
    if type(calibrator).__name__ == "IsotonicRegression":
        return isotonic_curve(f, calibrator, score)
    exponent = f.node("Add", f.node("Mul", score, float(calibrator.a_)), float(calibrator.b_))
    return f.logistic(f.node("Neg", exponent))


def _logits(f: Formula, inner: Inner, model: Any) -> str:
    estimator = model.estimator
    if not hasattr(estimator, "decision_function"):
        return f.node("Log", f.node("Add", inner.probabilities(estimator), _LEAST))
    scores = inner.scores(estimator)
    return f.node("Concat", f.node("Neg", scores), scores, axis=1) if len(model.classes) == 2 else scores
