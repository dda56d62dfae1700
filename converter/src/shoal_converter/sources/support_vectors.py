"""Support vector classifiers, as formulas in double: libsvm's decisions of each pair of classes, and their votes.

onnxruntime's operator computes in float32, breaks no ties and knows one kind of votes. Models that were fitted with
probabilities stay with it: libsvm couples those of pairs by an iteration.

Source: libsvm's ``svm_predict_values`` (Chang and Lin, 2011); scikit-learn's ``_ovr_decision_function``.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.kernels import kernel

Array = npt.NDArray[Any]

_KERNELS = frozenset({"linear", "poly", "rbf", "sigmoid"})


def has_no_probabilities(model: Any) -> bool:
    """Tell whether a classifier has a known kernel, and was fitted without probabilities."""
    return model.kernel in _KERNELS and not model._probA.size and not model._sparse  # noqa: SLF001 - fitted, no public name


def support_vector_classifier(f: Formula, model: Any) -> tuple[str, ...]:
    """The class with most votes of the pairs, the first of equals, or the largest score; and the scores."""
    pairs = _decisions(f, model)
    count = len(model.classes_)
    if count == 2:
        second = f.node("Cast", f.node("LessOrEqual", f.flat(pairs), 0.0), to=TensorProto.INT64)
        return f.labels(model.classes_, second), f.node("Neg", pairs)
    scores = _against_the_rest(f, pairs, count) if model.decision_function_shape == "ovr" else pairs
    if model.break_ties and model.decision_function_shape == "ovr":
        return f.labels(model.classes_, f.largest(scores)), scores
    return f.labels(model.classes_, f.largest(_votes(f, f.node("Greater", pairs, 0.0), count))), scores


def _decisions(f: Formula, model: Any) -> str:
    """Return libsvm's decision of each pair of classes, [N, C (C - 1) / 2]; above 0 is for the pair's first."""
    points = np.asarray(model.support_vectors_, dtype=np.float64)
    settings = {"gamma": model._gamma, "degree": model.degree, "coef0": model.coef0}  # noqa: SLF001 - as above
    dual, ends = np.asarray(model._dual_coef_), np.cumsum([0, *model._n_support])  # noqa: SLF001 - as above
    pairs = list(combinations(range(len(model.classes_)), 2))
    weights = np.zeros((len(points), len(pairs)))
    for at, (one, other) in enumerate(pairs):
        weights[ends[one] : ends[one + 1], at] = dual[other - 1, ends[one] : ends[one + 1]]
        weights[ends[other] : ends[other + 1], at] = dual[one, ends[other] : ends[other + 1]]
    similar = kernel(f, f.x, points, model.kernel, settings)
    return f.affine(similar, weights, np.asarray(model._intercept_).reshape(1, -1))


def _votes(f: Formula, first: str, count: int) -> str:
    """Return how many pairs each class wins, [N, C]."""
    wins, losses = _sides(count)
    number = f.number(first)
    return f.node("Add", f.node("MatMul", number, wins), f.node("MatMul", f.node("Sub", 1.0, number), losses))


def _sides(count: int) -> tuple[Array, Array]:
    pairs = np.array(list(combinations(range(count), 2)))
    return np.eye(count)[pairs[:, 0]], np.eye(count)[pairs[:, 1]]


def _against_the_rest(f: Formula, pairs: str, count: int) -> str:
    """Return votes and, as a part of less than a third, the sum of the pairs' decisions."""
    firsts, seconds = _sides(count)
    total = f.node("MatMul", pairs, firsts - seconds)
    part = f.node("Div", total, f.node("Mul", f.node("Add", f.node("Abs", total), 1.0), 3.0))
    return f.node("Add", _votes(f, f.node("GreaterOrEqual", pairs, 0.0), count), part)
