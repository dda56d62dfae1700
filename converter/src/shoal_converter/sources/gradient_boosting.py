"""scikit-learn's gradient boosting (Friedman, 2001), as a formula: a first guess, the sum of the trees, and the link.

Owns what skl2onnx has no form for: a first guess by another estimator, the exponential loss, and the scores beside the
probabilities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.inlining import Inner
from shoal_converter.sources.leaves import in_order, leaf_places_of, looked_up, nothing

_LEAST = float(np.finfo(np.float64).eps)
"""Probabilities of a first guess are kept so far from 0 and 1, as scikit-learn does."""


def needs_own_form(model: Any) -> bool:
    """Tell whether a model begins with 0 or another estimator, or has the exponential loss."""
    return model.init is not None or model.loss == "exponential"


def boosted_classifier(f: Formula, inner: Inner, model: Any) -> tuple[str, ...]:
    """The logistic function of the scores, of twice the scores for the exponential loss, or softmax of several."""
    scores = boosted_scores(f, inner, model, f.x)
    if len(model.classes_) > 2:
        return f.labels(model.classes_, f.largest(scores)), f.node("Softmax", scores, axis=1)
    label = f.flat(f.node("Cast", f.node("GreaterOrEqual", scores, 0.0), to=TensorProto.INT64))
    share = f.logistic(f.node("Mul", scores, 2.0 if model.loss == "exponential" else 1.0))
    return f.labels(model.classes_, label), f.node("Concat", f.node("Sub", 1.0, share), share, axis=1)


def boosted_regressor(f: Formula, inner: Inner, model: Any) -> tuple[str, ...]:
    """The first guess and the sum of the trees."""
    return (boosted_scores(f, inner, model, f.x),)


def boosted_scores(f: Formula, inner: Inner, model: Any, x: str) -> str:
    """Return the scores, [N, 1], or [N, C] of three and more classes."""
    trees = [step.tree_ for stage in model.estimators_ for step in stage]
    tables = [model.learning_rate * np.asarray(tree.value[:, 0, 0], dtype=np.float64) for tree in trees]
    values = looked_up(f, leaf_places_of(f, trees, x), tables)
    stages, width = model.estimators_.shape
    return in_order(f, _first(f, inner, model, x), f.node("Reshape", values, np.array([-1, stages, width])))


def _first(f: Formula, inner: Inner, model: Any, x: str) -> str:
    """Return the first guess as a score: the link of what the first estimator says, or a constant."""
    from sklearn.base import is_classifier  # noqa: PLC0415 - heavy

    if model.init is None or model.init == "zero":
        constant = model._raw_predict_init(np.zeros((1, model.n_features_in_)))  # noqa: SLF001 - fitted, no public name
        return f.node("Add", nothing(f, x, constant.shape[1]), np.asarray(constant, dtype=np.float64))
    rounded = f.node("Cast", f.node("Cast", x, to=TensorProto.FLOAT), to=TensorProto.DOUBLE)  # so it is asked there too
    if not is_classifier(model):
        return inner.value(model.init_, rounded, model.n_features_in_)
    shares = inner.probabilities(model.init_, rounded, model.n_features_in_)
    kept = f.node("Min", f.node("Max", shares, np.float64(_LEAST)), np.float64(1.0 - _LEAST))
    logs = f.node("Log", kept)
    if len(model.classes_) > 2:
        return f.node("Sub", logs, f.node("Div", f.total(logs), float(len(model.classes_))))
    above = f.columns(kept, [1])
    odds = f.node("Sub", f.node("Log", above), f.node("Log", f.node("Sub", 1.0, above)))
    return f.node("Mul", odds, 0.5 if model.loss == "exponential" else 1.0)
