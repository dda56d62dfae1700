"""What trees' leaves add up to, and estimators made of such sums.

Owns the sums: onnxruntime adds in float32 and so do these, as they are (a forest's votes are whole numbers, divided by
the number of trees at the end: shares that are divided first turn an even vote into an uneven one) or finely, as good
as in double. RandomTreesEmbedding has one column a leaf.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, numpy_helper

from shoal_converter.sources.formula import Formula

Array = npt.NDArray[Any]

_ZERO = np.zeros(1, dtype=np.int64)


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
    return (added_up(f, [step.tree_ for step in model.estimators_], targets, width),)


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
        leaves, columns = np.nonzero(np.where(tree.inner[:, np.newaxis], 0.0, tree.target))
        add(target_treeids=np.full(len(leaves), at), target_nodeids=leaves, target_ids=columns)
        weights.append(tree.target[leaves, columns])
    if not parts["target_treeids"]:  # all leaves add nothing, and an ensemble needs one that does
        add(target_treeids=_ZERO, target_nodeids=np.flatnonzero(~trees[0].inner)[:1], target_ids=_ZERO)
        weights.append(np.zeros(1))
    tensors = {
        "nodes_values_as_tensor": numpy_helper.from_array(np.concatenate(thresholds).astype(np.float64)),
        "target_weights_as_tensor": numpy_helper.from_array(np.concatenate(weights).astype(np.float64)),
    }
    total = f.node(
        "TreeEnsembleRegressor", rows, op_domain="ai.onnx.ml", op_version=3, n_targets=width, **parts, **tensors
    )
    return f.node("Cast", total, to=TensorProto.DOUBLE)


def leaf_places(f: Formula, rows: str, trees: Sequence[Tree]) -> str:
    """Return the place of each row's leaf among the nodes of each tree, [N, trees]; float32 holds each of them."""
    placed = [replace(tree, target=_in_column(len(tree.inner), at, len(trees))) for at, tree in enumerate(trees)]
    return f.node("Cast", summed(f, rows, placed, len(trees)), to=TensorProto.INT64)


def leaf_places_of(f: Formula, trees: Sequence[Any], x: str | None = None) -> str:
    """Return the same for trees of scikit-learn's, which see rows rounded to float32."""
    placed = (_in_column(tree.node_count, at, len(trees)) for at, tree in enumerate(trees))  # wide: one at a time
    return f.node("Cast", added_up(f, trees, placed, len(trees), x=x), to=TensorProto.INT64)


def _in_column(nodes: int, column: int, width: int) -> Array:
    target = np.zeros((nodes, width))
    target[:, column] = np.arange(nodes)
    return target


def looked_up(f: Formula, places: str, tables: Sequence[Array]) -> str:
    """Return what stands in each tree's leaf, [N, trees, …], of tables [nodes, …] one a tree."""
    offsets = np.cumsum([0, *(len(table) for table in tables[:-1])]).astype(np.int64)
    return f.node("Gather", np.concatenate(tables), f.node("Add", places, offsets[np.newaxis]), axis=0)


def nothing(f: Formula, x: str, width: int) -> str:
    """Return zeros, [N, width], whatever is in the rows."""
    return f.node("Mul", f.number(f.node("IsNaN", f.columns(x, [0] * width))), 0.0)


def in_order(f: Formula, first: str, parts: str) -> str:
    """Return the sum of [N, C] and [N, trees, C], added one tree after another as scikit-learn does: to the last digit.

    Where two scores are equal but for that digit, it decides between classes, and on which step of a curve one is.
    """
    joined = f.node("Concat", f.node("Unsqueeze", first, np.array([1])), parts, axis=1)
    last = f.node("Gather", f.node("CumSum", joined, np.array(1)), np.array([-1]), axis=1)
    return f.node("Squeeze", last, np.array([1]))


def _parted(targets: Sequence[Array]) -> list[Array]:
    """Return each [nodes, outputs] as [nodes, 2 outputs]: numbers of which float32 holds every sum, and the small rest.

    The first are multiples of one power of two, and their sums less than 2**22 times as large.
    """
    bound = sum(float(np.abs(target).max(initial=0.0)) for target in targets)
    step = 2.0 ** (np.ceil(np.log2(bound)) - 22) if bound else 1.0
    coarse = [np.round(target / step) * step for target in targets]
    return [np.concatenate([c, target - c], axis=1) for c, target in zip(coarse, targets, strict=True)]


def added_up_finely(
    f: Formula, trees: Sequence[Any], targets: Sequence[Array], width: int, *, x: str | None = None
) -> str:
    """Return what `added_up` does as good as in double, [N, width]; it costs twice the leaves."""
    both = added_up(f, trees, _parted(targets), 2 * width, x=x)
    return f.node("Add", f.columns(both, range(width)), f.columns(both, range(width, 2 * width)))


def added_up(f: Formula, trees: Sequence[Any], targets: Iterable[Array], width: int, *, x: str | None = None) -> str:
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
    if not parts["target_treeids"]:  # all leaves add nothing, and an ensemble needs one that does
        leaf = np.flatnonzero(trees[0].children_left < 0)[:1]
        add(target_treeids=_ZERO, target_nodeids=leaf, target_ids=_ZERO, target_weights=np.zeros(1))
    rows = f.node("Cast", f.x if x is None else x, to=TensorProto.FLOAT)
    total = f.node("TreeEnsembleRegressor", rows, op_domain="ai.onnx.ml", op_version=1, n_targets=width, **parts)
    return f.node("Cast", total, to=TensorProto.DOUBLE)


def _rounded_down(thresholds: Array) -> Array:
    """Return the largest float32 that is not above each threshold: float32 rows compare with it as with the double."""
    near = thresholds.astype(np.float32)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)
