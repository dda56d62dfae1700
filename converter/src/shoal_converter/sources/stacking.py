"""Stacking (Wolpert, 1992), as a formula: what several estimators say becomes the rows of a last one."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.inlining import Inner


def stacked_classifier(f: Formula, inner: Inner, model: Any) -> tuple[str, ...]:
    """The label, and the last classifier's probabilities or scores."""
    rows, last = _rows(f, inner, model, None), model.final_estimator_
    label = f.labels(model.classes_, inner.label(last, rows, last.n_features_in_))
    if hasattr(last, "predict_proba"):
        return label, inner.probabilities(last, rows, last.n_features_in_)
    return label, inner.decision(last, rows, last.n_features_in_)


def stacked_regressor(f: Formula, inner: Inner, model: Any) -> tuple[str, ...]:
    """The last regressor's value."""
    last = model.final_estimator_
    return (inner.value(last, _rows(f, inner, model, None), last.n_features_in_),)


def stacked_scores(f: Formula, inner: Inner, model: Any, x: str | None) -> str:
    """Return the last classifier's scores."""
    last = model.final_estimator_
    return inner.decision(last, _rows(f, inner, model, x), last.n_features_in_)


def _rows(f: Formula, inner: Inner, model: Any, x: str | None) -> str:
    asked = (x, 0 if x is None else model.n_features_in_)
    parts = [
        _said(f, inner, each, method, asked)
        for each, method in zip(model.estimators_, model.stack_method_, strict=True)
    ]
    if model.passthrough:
        if x is None and any(f.holds_texts(at) for at in range(len(f.inputs))):
            raise RuntimeError("passthrough=True hands texts to the last estimator, which takes numbers")
        parts += f.inputs if x is None else [x]
    return f.node("Concat", *parts, axis=1)


def _said(f: Formula, inner: Inner, model: Any, method: str, asked: tuple[str | None, int]) -> str:
    """Return what one estimator adds to the rows; of two probabilities the second alone, as scikit-learn does."""
    from sklearn.base import is_classifier  # noqa: PLC0415 - heavy

    if method == "predict_proba":
        shares = inner.probabilities(model, *asked)
        return f.columns(shares, [1]) if len(model.classes_) == 2 else shares
    if method == "decision_function":
        return inner.decision(model, *asked)
    if is_classifier(model):
        return f.as_columns(f.node("Cast", inner.label(model, *asked), to=TensorProto.DOUBLE))
    return inner.value(model, *asked)
