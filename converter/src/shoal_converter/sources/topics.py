"""Latent Dirichlet allocation's topics of a text, as a Loop: each row's topics and words explain each other in turns.

A row is done when its topics change by less than the model's tolerance, and keeps what it had; the Loop ends with the
last row, so no row's answer depends on the others.

Sources: Hoffman, Blei and Bach (NIPS 2010), algorithm 1, E-step; scikit-learn's ``decomposition/_lda.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import GraphProto, TensorProto

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.loop_body import Body

_EULER = 0.577215664901532860606512090082402431
_NEARLY_ZERO = 1e-6
_LARGE = 6
"""From here on, digamma's asymptotic series is used; smaller numbers are raised one by one."""


def latent_dirichlet_allocation(f: Formula, model: Any) -> tuple[str, ...]:
    """Each topic's share of a row's words."""
    count = model.exp_dirichlet_component_.shape[0]
    zeros = f.node("Mul", f.number(f.node("IsNaN", f.columns(f.x, [0] * count))), 0.0)
    topics = f.node("Add", zeros, 1.0)
    weights = f.node("Add", zeros, float(np.exp(_digamma(1.0) - _digamma(float(count)))))
    going = f.node("Equal", f.columns(topics, [0]), 1.0)
    turns, some = np.int64(model.max_doc_update_iter), np.array(True)  # noqa: FBT003 - a constant
    found = f.several(4, "Loop", turns, some, topics, weights, going, f.x, body=_body(f.unique("topics"), model))
    return (f.node("Div", found[0], f.total(found[0])),)


def _body(prefix: str, model: Any) -> GraphProto:
    words = np.asarray(model.exp_dirichlet_component_, dtype=np.float64)  # [topics, words]
    count = words.shape[0]
    b = Body(prefix)
    b.given(TensorProto.INT64, [])
    b.given(TensorProto.BOOL, [])
    topics, weights = (b.given(TensorProto.DOUBLE, [None, count]) for _ in range(2))
    going, x = b.given(TensorProto.BOOL, [None, 1]), b.given(TensorProto.DOUBLE, [None, words.shape[1]])

    expected = b.node("Add", b.node("MatMul", weights, words), np.finfo(np.float64).eps)
    explained = b.node("MatMul", b.node("Div", x, expected), words.T)
    new = b.node("Add", b.node("Mul", weights, explained), np.float64(model.doc_topic_prior_))
    total = b.node("ReduceSum", new, np.array([1]), keepdims=1)
    new_weights = b.node("Exp", b.node("Sub", _digammas(b, new), _digammas(b, total)))
    moved = b.node("ReduceSum", b.node("Abs", b.node("Sub", new, topics)), np.array([1]), keepdims=1)
    moved = b.node("Div", moved, np.float64(count))
    still = b.node("And", going, b.node("GreaterOrEqual", moved, np.float64(model.mean_change_tol)))

    some = b.node("ReduceMax", b.node("Cast", still, to=TensorProto.INT32), keepdims=0)
    b.give(b.node("Cast", some, to=TensorProto.BOOL), TensorProto.BOOL, [])
    b.give(b.node("Where", going, new, topics), TensorProto.DOUBLE, [None, count])
    b.give(b.node("Where", going, new_weights, weights), TensorProto.DOUBLE, [None, count])
    b.give(still, TensorProto.BOOL, [None, 1])
    b.give(x, TensorProto.DOUBLE, [None, words.shape[1]])
    return b.graph


def _digammas(b: Body, x: str) -> str:
    """Return digamma as scikit-learn computes it: raised to 6 by ``psi(x + 1) = psi(x) + 1 / x``, then by a series."""
    at, result = x, b.node("Mul", x, np.float64(0))
    for _ in range(_LARGE):
        small = b.node("Less", at, np.float64(_LARGE))
        result = b.node("Where", small, b.node("Sub", result, b.node("Reciprocal", at)), result)
        at = b.node("Where", small, b.node("Add", at, np.float64(1)), at)
    inverse = b.node("Reciprocal", at)
    result = b.node("Add", result, b.node("Sub", b.node("Log", at), b.node("Mul", inverse, np.float64(0.5))))
    square = b.node("Mul", inverse, inverse)
    series = np.float64(1 / 252)
    inner = b.node("Sub", np.float64(1 / 120), b.node("Mul", square, series))
    inner = b.node("Sub", np.float64(1 / 12), b.node("Mul", square, inner))
    result = b.node("Sub", result, b.node("Mul", square, inner))
    near_zero = b.node("Sub", np.float64(-_EULER), b.node("Reciprocal", x))
    return b.node("Where", b.node("LessOrEqual", x, np.float64(_NEARLY_ZERO)), near_zero, result)


def _digamma(x: float) -> float:
    from scipy.special import psi  # noqa: PLC0415 - heavy

    return float(psi(x))
