"""Estimators that ask several others and put their answers together, as formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.inlining import Inner

_CONSTANT = "_ConstantPredictor"


def regressor_chain(f: Formula, inner: Inner, model: Any) -> tuple[str, ...]:
    """Each regressor sees the rows and the values before its own (Spyromitros-Xioufis et al., 2016)."""
    x, values = f.x, []
    for at, step in enumerate(model.estimators_):
        values.append(inner.value(step, x, model.n_features_in_ + at))
        x = f.node("Concat", x, values[-1], axis=1)
    return (_in_order(f, values, model.order_),)


def classifier_chain(f: Formula, inner: Inner, model: Any) -> tuple[str, ...]:
    """Each classifier sees the rows and the answers before its own (Read et al., 2009).

    Raises:
        RuntimeError: Labels that are no whole numbers, or a chain by something else than labels or probabilities.
    """
    method = model.chain_method_
    if method not in {"predict", "predict_proba", "decision_function"}:
        raise RuntimeError(f"chain_method={method!r} has no form in ONNX; 'predict' and 'predict_proba' have")
    if not hasattr(model, "predict_proba"):
        raise RuntimeError("a chain of classifiers without probabilities has no form in ONNX")
    x, labels, shares = f.x, [], []
    for at, step in enumerate(model.estimators_):
        if len(step.classes_) != 2:
            raise RuntimeError("a chain over labels of one or more than two classes has no form in ONNX")
        width = model.n_features_in_ + at
        label = f.as_columns(f.node("Cast", inner.label(step, x, width), to=TensorProto.DOUBLE))
        share = f.columns(inner.probabilities(step, x, width), [1])
        labels.append(label)
        shares.append(share)
        if method == "decision_function":
            next_one = inner.decision(step, x, width)
        else:
            next_one = label if method == "predict" else share
        x = f.node("Concat", x, next_one, axis=1)
    return _in_order(f, labels, model.order_), _in_order(f, shares, model.order_)


def _in_order(f: Formula, columns: list[str], order: Any) -> str:
    """Undo the chain's order: column i of the chain is output ``order[i]``."""
    return f.columns(f.node("Concat", *columns, axis=1), np.argsort(np.asarray(order)))


def output_code(f: Formula, inner: Inner, model: Any) -> tuple[str, ...]:
    """The class whose code word is nearest to the binary estimators' scores (Dietterich and Bakiri, 1995)."""
    scores = [_score(f, inner, step, f.x, model.n_features_in_) for step in model.estimators_]
    word = f.node("Concat", *scores, axis=1)
    return (f.labels(model.classes_, f.nearest(f.squared_distances(word, model.code_book_))),)


def _constant(f: Formula, model: Any, width: int) -> str:
    """Return what stands for a class that all training rows had, or none: 1 or 0 for every row, [N, 1]."""
    return f.affine(f.x, np.zeros((width, 1)), np.asarray(model.y_, dtype=np.float64).reshape(1, 1))


def _score(f: Formula, inner: Inner, model: Any, x: str, width: int) -> str:
    from sklearn.base import is_regressor  # noqa: PLC0415 - heavy

    if type(model).__name__ == _CONSTANT:
        return _constant(f, model, width)
    if is_regressor(model):
        return inner.value(model, x, width)
    if hasattr(model, "decision_function"):
        return inner.decision(model, x, width)
    return f.columns(inner.probabilities(model, x, width), [1])


def one_vs_rest_scores(f: Formula, inner: Inner, model: Any, x: str) -> str:
    """Return what each class's own estimator says, [N, C], or [N, 1] for two classes."""
    scores = [_score(f, inner, step, x, model.n_features_in_) for step in model.estimators_]
    return f.node("Concat", *scores, axis=1)


def one_vs_rest(f: Formula, inner: Inner, model: Any) -> tuple[str, ...]:
    """The class whose own estimator scores highest; each one's probability as a share of all."""
    width = model.n_features_in_
    scores = one_vs_rest_scores(f, inner, model, f.x)
    if len(model.estimators_) == 1:
        above = f.node("Greater", scores, 0.0 if hasattr(model.estimators_[0], "decision_function") else 0.5)
        label = f.flat(f.node("Cast", above, to=TensorProto.INT64))
    else:
        label = f.largest(scores)
    if not hasattr(model, "predict_proba"):
        return f.labels(model.classes_, label), scores
    ones = [
        _constant(f, step, width)
        if type(step).__name__ == _CONSTANT
        else f.columns(inner.probabilities(step, f.x, width), [1])
        for step in model.estimators_
    ]
    if len(ones) == 1:
        return f.labels(model.classes_, label), f.node("Concat", f.node("Sub", 1.0, ones[0]), ones[0], axis=1)
    shares = f.node("Concat", *ones, axis=1)
    total = f.total(shares)
    return f.labels(model.classes_, label), f.node(
        "Div", shares, f.node("Where", f.node("Equal", total, 0.0), 1.0, total)
    )


def iterative_imputer(f: Formula, inner: Inner, model: Any) -> tuple[str, ...]:
    """A first guess for each gap, then round by round each feature from the others (van Buuren, 2011).

    Raises:
        RuntimeError: Drawn values, or missing values other than NaN.
    """
    if model.sample_posterior or model.missing_values == model.missing_values:
        raise RuntimeError("sample_posterior=True and missing values other than NaN have no form in ONNX")
    first = np.asarray(model.initial_imputer_.statistics_, dtype=np.float64)
    if np.isnan(first).any() or model.keep_empty_features or model.initial_strategy == "constant":
        raise RuntimeError("a feature without any value in training, or a constant first guess, has no form in ONNX")
    gaps = f.node("IsNaN", f.x)
    filled = f.node("Where", gaps, first[np.newaxis], f.x)
    low, high = np.asarray(model._min_value), np.asarray(model._max_value)  # noqa: SLF001 - no public names
    columns = [f.columns(filled, [at]) for at in range(len(first))]
    for feature, others, estimator in model.imputation_sequence_:
        x = f.node("Concat", *(columns[at] for at in others), axis=1)
        value = inner.value(estimator, x, len(others))
        value = f.node("Min", f.node("Max", value, float(low[feature])), float(high[feature]))
        columns[feature] = f.node("Where", f.columns(gaps, [feature]), value, columns[feature])
    marks = [f.number(f.columns(gaps, model.indicator_.features_))] if model.add_indicator else []
    return (f.node("Concat", *columns, *marks, axis=1),)


def votes_without_probabilities(model: Any) -> bool:
    """Tell whether bagged classifiers have labels alone, or not every class."""
    count = len(model.classes_)
    return any(not hasattr(step, "predict_proba") or len(step.classes_) < count for step in model.estimators_)


def bagged_classifier(f: Formula, inner: Inner, model: Any) -> tuple[str, ...]:
    """The share of the classifiers' votes, or their mean probability where they give one (Breiman, 1996).

    Each sees some of the features, and knows the classes by their places.
    """
    places = np.eye(len(model.classes_))
    total = ""
    for step, features in zip(model.estimators_, model.estimators_features_, strict=True):
        x, width = f.columns(f.x, features), len(features)
        if hasattr(step, "predict_proba"):
            share = f.node("MatMul", inner.probabilities(step, x, width), places[np.asarray(step.classes_, dtype=int)])
        else:
            share = f.node("Gather", places, inner.label(step, x, width), axis=0)
        total = share if not total else f.node("Add", total, share)
    share = f.node("Div", total, float(len(model.estimators_)))
    return f.labels(model.classes_, f.largest(share)), share
