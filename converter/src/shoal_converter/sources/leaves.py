"""Trees whose leaves add up to something else than skl2onnx makes of them.

A forest's votes are added up as they are and divided by the number of trees at the end, as scikit-learn does: shares
that are divided first and added in float32 turn an even vote into an uneven one. RandomTreesEmbedding has one column
a leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from shoal_converter.sources.formula import Formula

Array = npt.NDArray[Any]


def forest_classifier(f: Formula, model: Any) -> tuple[str, ...]:
    """The mean of the trees' shares of each class; the class with the largest, the first of equals."""
    classes = len(model.classes_)
    targets = []
    for step in model.estimators_:
        shares = step.tree_.value[:, 0, :]
        targets.append(shares / shares.sum(axis=1, keepdims=True))
    votes = _summed(f, [step.tree_ for step in model.estimators_], targets, classes)
    shares = f.node("Div", votes, float(len(model.estimators_)))
    return f.labels(model.classes_, f.largest(votes)), shares


def random_trees_embedding(f: Formula, model: Any) -> tuple[str, ...]:
    """1 in the columns of the row's leaves, else 0."""
    known = model.one_hot_encoder_.categories_
    width = sum(len(leaves) for leaves in known)
    targets, column = [], 0
    for step, leaves in zip(model.estimators_, known, strict=True):
        target = np.zeros((step.tree_.node_count, width))
        target[leaves.astype(int), column + np.arange(len(leaves))] = 1.0
        targets.append(target)
        column += len(leaves)
    return (_summed(f, [step.tree_ for step in model.estimators_], targets, width),)


def _summed(f: Formula, trees: Sequence[Any], targets: Sequence[Array], width: int) -> str:
    """Return the sum over trees of the rows in `targets` (one a node) of the leaves that a row falls into, [N, width].

    Rows are rounded to float32 once, as scikit-learn's trees do, and thresholds downwards, so that they compare alike.
    """
    parts: dict[str, list[Any]] = {}

    def add(**attributes: Array) -> None:
        for name, values in attributes.items():
            parts.setdefault(name, []).extend(values.tolist())

    for at, (tree, target) in enumerate(zip(trees, targets, strict=True)):
        inner = tree.children_left >= 0
        count = tree.node_count
        add(
            nodes_treeids=np.full(count, at),
            nodes_nodeids=np.arange(count),
            nodes_featureids=np.where(inner, tree.feature, 0),
            nodes_values=np.where(inner, _rounded_down(tree.threshold), 0.0),
            nodes_modes=np.where(inner, "BRANCH_LEQ", "LEAF"),
            nodes_truenodeids=np.where(inner, tree.children_left, 0),
            nodes_falsenodeids=np.where(inner, tree.children_right, 0),
            nodes_missing_value_tracks_true=(inner & (tree.missing_go_to_left > 0)).astype(int),
        )
        leaves, columns = np.nonzero(np.where(inner[:, np.newaxis], 0.0, target))
        add(
            target_treeids=np.full(len(leaves), at),
            target_nodeids=leaves,
            target_ids=columns,
            target_weights=target[leaves, columns],
        )
    rows = f.node("Cast", f.x, to=TensorProto.FLOAT)
    total = f.node("TreeEnsembleRegressor", rows, op_domain="ai.onnx.ml", op_version=1, n_targets=width, **parts)
    return f.node("Cast", total, to=TensorProto.DOUBLE)


def _rounded_down(thresholds: Array) -> Array:
    """Return the largest float32 that is not above each threshold: float32 rows compare with it as with the double."""
    near = thresholds.astype(np.float32)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)
