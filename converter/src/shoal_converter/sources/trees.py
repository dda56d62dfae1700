"""Single trees and forests of scikit-learn, as formulas.

A tree finds the place of a row's leaf, and what stands there is looked up in double: so no rounding decides between
classes, and several outputs come at no cost. Forests that average numbers add them up finely. Rows without a value go
where the tree sends them, which skl2onnx leaves out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.leaves import added_up, added_up_finely, in_order, leaf_places_of, looked_up, nothing

Array = npt.NDArray[Any]

_MOST_AT_ONCE = 2048
"""Numbers of a row, trees times classes, that are held to be added one by one."""


def is_even(model: Any) -> bool:
    """Tell whether every output of a classifier has as many classes: then their probabilities are one tensor."""
    return model.n_outputs_ == 1 or len(set(np.asarray(model.n_classes_).tolist())) == 1


def tree_classifier(f: Formula, model: Any) -> tuple[str, ...]:
    """The shares of the classes in the row's leaf, and the class of the largest, the first of equals."""
    value = np.asarray(model.tree_.value, dtype=np.float64)  # [nodes, outputs, classes]
    total = value.sum(axis=2, keepdims=True)
    shares = value / np.where(total == 0, 1.0, total)
    leaf = _leaf(f, model.tree_)
    labels = [
        f.labels(classes, f.node("Gather", np.argmax(value[:, at], axis=1), leaf))
        for at, classes in enumerate(_classes(model))
    ]
    return _joined(f, labels, [f.node("Gather", shares[:, at], leaf, axis=0) for at in range(len(labels))])


def tree_regressor(f: Formula, model: Any) -> tuple[str, ...]:
    """What stands in the row's leaf."""
    return (f.node("Gather", np.asarray(model.tree_.value[:, :, 0], dtype=np.float64), _leaf(f, model.tree_), axis=0),)


def forest_classifier(f: Formula, model: Any) -> tuple[str, ...]:
    """The mean of the trees' shares of each class; the class with the largest, the first of equals."""
    outputs, classes = model.n_outputs_, int(np.max(model.n_classes_))
    targets = []
    for step in model.estimators_:
        shares = step.tree_.value / step.tree_.value.sum(axis=2, keepdims=True)
        targets.append(shares.reshape(len(shares), -1))
    votes = _votes(f, [step.tree_ for step in model.estimators_], targets)
    shares = f.node("Div", votes, float(len(model.estimators_)))
    if outputs == 1:
        return f.labels(model.classes_, f.largest(votes)), shares
    each = [range(at * classes, (at + 1) * classes) for at in range(outputs)]
    labels = [
        f.labels(known, f.largest(f.columns(votes, columns)))
        for known, columns in zip(_classes(model), each, strict=True)
    ]
    return _joined(f, labels, [f.columns(shares, columns) for columns in each])


def _votes(f: Formula, trees: list[Any], targets: list[Array]) -> str:
    """Return the sum of the trees' shares, [N, columns].

    Whole numbers add up without rounding. Shares do not, and where two classes are even the last digit decides; so
    those are added as scikit-learn does, unless a row's would be too many to hold at once.
    """
    width = targets[0].shape[1]
    pure = all(
        np.isin(target[tree.children_left < 0], (0.0, 1.0)).all() for tree, target in zip(trees, targets, strict=True)
    )
    if pure or width * len(trees) > _MOST_AT_ONCE:
        return added_up(f, trees, targets, width)
    parts = looked_up(f, leaf_places_of(f, trees), targets)
    return in_order(f, nothing(f, f.x, width), parts)


def forest_regressor(f: Formula, model: Any) -> tuple[str, ...]:
    """The mean of what stands in the row's leaves."""
    targets = [np.asarray(step.tree_.value[:, :, 0], dtype=np.float64) for step in model.estimators_]
    total = added_up_finely(f, [step.tree_ for step in model.estimators_], targets, targets[0].shape[1])
    return (f.node("Div", total, float(len(targets))),)


def _leaf(f: Formula, tree: Any) -> str:
    """Return the place of each row's leaf among the tree's nodes, [N]."""
    return f.flat(leaf_places_of(f, [tree]))


def _classes(model: Any) -> list[Any]:
    return [model.classes_] if model.n_outputs_ == 1 else list(model.classes_)


def _joined(f: Formula, labels: list[str], shares: list[str]) -> tuple[str, str]:
    """Return the labels as [N], of several outputs as [N, outputs], with the shares as [outputs, N, classes]."""
    if len(labels) == 1:
        return labels[0], shares[0]
    cube = f.node("Concat", *(f.node("Unsqueeze", each, np.array([0])) for each in shares), axis=0)
    return f.node("Concat", *(f.as_columns(each) for each in labels), axis=1), cube
