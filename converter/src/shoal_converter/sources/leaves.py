"""Trees whose leaves add up to something else than skl2onnx makes of them.

A forest's votes are added up as they are and divided by the number of trees at the end, as scikit-learn does: shares
that are divided first and added in float32 turn an even vote into an uneven one. RandomTreesEmbedding has one column
a leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, numpy_helper

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


def isolation_forest(f: Formula, model: Any) -> tuple[str, ...]:
    """How short the paths to a row's leaves are on average, less the offset (Liu et al., ICDM 2008).

    A score that is the offset but for rounding counts as one: the offset is often the score of a training row.
    """
    from sklearn.ensemble._iforest import _average_path_length  # noqa: PLC0415 - heavy

    trees, lengths = [], zip(model._decision_path_lengths, model._average_path_length_per_tree, strict=True)  # noqa: SLF001 - fitted, no public name
    for step, features, (path, below) in zip(model.estimators_, model.estimators_features_, lengths, strict=True):
        depth = np.asarray(path) + np.asarray(below) - 1.0
        whole = np.round(depth * 256) / 256  # sums of these are exact in float32, and what is left is small
        trees.append(of_sklearn(step.tree_, np.stack([whole, depth - whole], axis=1), features))
    rows = f.node("Cast", f.node("Cast", f.x, to=TensorProto.FLOAT), to=TensorProto.DOUBLE)
    usual = float(len(trees) * _average_path_length([model._max_samples])[0])  # noqa: SLF001 - as above
    depths = f.total(summed(f, rows, trees, 2))
    powers = (
        f.node("Pow", 2.0, f.node("Div", depths, -usual)) if usual else f.node("Add", f.node("Mul", depths, 0.0), 1.0)
    )
    scores = f.node("Sub", f.node("Neg", powers), float(model.offset_))
    inside = f.node("Cast", f.node("GreaterOrEqual", f.flat(scores), -1e-9), to=TensorProto.INT64)
    return f.labels([-1, 1], inside), scores


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree; each array has an entry for every node.

    Attributes:
        inner: Whether it is no leaf.
        feature: What is compared.
        threshold: With what: rows up to it go left.
        left: Child.
        right: Child.
        missing_left: Whether rows without a value go left.
        target: What a leaf adds, [nodes, outputs].
    """

    inner: Array
    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    target: Array


def of_sklearn(tree: Any, target: Array, features: Array) -> Tree:
    """Return a tree of scikit-learn's that sees some of the features."""
    inner = tree.children_left >= 0
    feature = np.where(inner, np.asarray(features)[tree.feature * inner], 0)
    return Tree(
        inner, feature, tree.threshold, tree.children_left, tree.children_right, tree.missing_go_to_left, target
    )


def summed(f: Formula, rows: str, trees: Sequence[Tree], width: int) -> str:
    """Return the sum of what the trees' leaves add, [N, width]; in double, and rounded to float32 at the end."""
    parts: dict[str, list[Any]] = {}
    thresholds, weights = [], []

    def add(**attributes: Array) -> None:
        for name, values in attributes.items():
            parts.setdefault(name, []).extend(np.asarray(values).tolist())

    for at, tree in enumerate(trees):
        count = len(tree.inner)
        add(
            nodes_treeids=np.full(count, at),
            nodes_nodeids=np.arange(count),
            nodes_featureids=np.where(tree.inner, tree.feature, 0),
            nodes_modes=np.where(tree.inner, "BRANCH_LEQ", "LEAF"),
            nodes_truenodeids=np.where(tree.inner, tree.left, 0).astype(np.int64),
            nodes_falsenodeids=np.where(tree.inner, tree.right, 0).astype(np.int64),
            nodes_missing_value_tracks_true=(tree.inner & (tree.missing_left > 0)).astype(np.int64),
        )
        thresholds.append(np.where(tree.inner, tree.threshold, 0.0))
        leaves, columns = np.nonzero(~tree.inner[:, np.newaxis] & np.ones(width, dtype=bool))
        add(target_treeids=np.full(len(leaves), at), target_nodeids=leaves, target_ids=columns)
        weights.append(tree.target[leaves, columns])
    tensors = {
        "nodes_values_as_tensor": numpy_helper.from_array(np.concatenate(thresholds).astype(np.float64)),
        "target_weights_as_tensor": numpy_helper.from_array(np.concatenate(weights).astype(np.float64)),
    }
    total = f.node(
        "TreeEnsembleRegressor", rows, op_domain="ai.onnx.ml", op_version=3, n_targets=width, **parts, **tensors
    )
    return f.node("Cast", total, to=TensorProto.DOUBLE)


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
