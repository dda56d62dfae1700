"""Writing an `Ensemble` as ONNX: columns, one TreeEnsembleRegressor (ai.onnx.ml 3) without post-transform, the link.

Trees of float32 arithmetic are fed with float32, which onnxruntime compares and sums in float32; those of float64 with
double, for which ai.onnx.ml 3 keeps double thresholds and leaves in tensors. The link is computed in double.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, numpy_helper

from shoal_converter.sources.boosting.ensemble import (
    BoostingUnsupportedError,
    Ensemble,
    Linear,
    Outside,
    Tree,
    Trees,
    ZeroMissing,
)
from shoal_converter.sources.formula import Formula
from shoal_converter.sources.leaves import in_order, looked_up, nothing

Array = npt.NDArray[Any]

_LEAF = "LEAF"
_MOST_CATEGORIES = 100_000
_WHOLE_IN_FLOAT32 = 2**24
_ZERO = float(np.float32(1e-35))


def write(f: Formula, ensemble: Ensemble, variables: list[tuple[str, int, int | None]]) -> tuple[str, ...]:
    """Write an ensemble.

    Args:
        f: Takes the nodes.
        ensemble: What to write.
        variables: Name, ONNX element type and number of columns (none: all features) of each input, in order.

    Returns:
        The answers in double; for a classifier the labels before them.

    Raises:
        BoostingUnsupportedError: Texts come where the model knows no categories.
    """
    table = _features(f, ensemble, variables)
    scores = _linear(f, ensemble, table) if isinstance(ensemble.body, Linear) else _trees(f, ensemble, table)
    if ensemble.factor != 1.0:
        scores = f.node("Mul", scores, float(ensemble.factor))
    if ensemble.shift is not None:
        scores = f.node("Add", scores, np.asarray(ensemble.shift, np.float64))
    answers = _link(f, ensemble, scores)
    if ensemble.decision == "values":
        return (answers,)
    label, found = _decide(f, ensemble, scores, answers)
    if ensemble.raw:
        found = scores if ensemble.scores > 1 else f.node("Concat", f.node("Neg", scores), scores, axis=1)
    return label, found


def _features(f: Formula, ensemble: Ensemble, variables: list[tuple[str, int, int | None]]) -> str:
    """Return the features as one tensor [N, F] of float32 or double: categories as codes, missing as NaN."""
    kind = TensorProto.FLOAT if ensemble.arithmetic == "float32" else TensorProto.DOUBLE
    parts: list[str] = []
    at = 0
    for name, element, width in variables:
        known = width if width is not None else _width(ensemble) - at
        coded = {place - at: values for place, values in ensemble.categories.items() if at <= place < at + known}
        parts += _parts(f, ensemble, (name, element, known), coded, kind)
        at += known
    table = parts[0] if len(parts) == 1 else f.node("Concat", *parts, axis=1)
    if ensemble.missing is not None:
        type_ = np.float32 if kind == TensorProto.FLOAT else np.float64
        gap = f.node("Equal", table, f.exact(np.array(ensemble.missing, type_)))
        table = f.node("Where", gap, f.exact(np.array(np.nan, type_)), table)
    return table


def _width(ensemble: Ensemble) -> int:
    body = ensemble.body
    return body.columns.features if isinstance(body, Trees) else len(body.weights)


def _parts(
    f: Formula, ensemble: Ensemble, variable: tuple[str, int, int], coded: dict[int, tuple[Any, ...]], kind: int
) -> list[str]:
    name, element, width = variable
    if not coded:
        return [_number(f, ensemble, name, element, kind)]
    parts = []
    for is_coded, places in groupby(range(width), key=coded.__contains__):
        indices = list(places)
        if is_coded:
            parts += [_coded(f, f.columns(name, [at]), element, coded[at], kind) for at in indices]
        else:
            parts.append(_number(f, ensemble, f.columns(name, indices), element, kind))
    return parts


def _number(f: Formula, ensemble: Ensemble, name: str, element: int, kind: int) -> str:
    if element == TensorProto.STRING:
        raise BoostingUnsupportedError(
            "a column of texts comes where the model knows no categories; train on a pandas category column"
        )
    if ensemble.rounds_inputs and kind == TensorProto.DOUBLE and element != TensorProto.FLOAT:
        name, element = f.node("Cast", name, to=TensorProto.FLOAT), TensorProto.FLOAT
    return name if element == kind else f.node("Cast", name, to=kind)


def _coded(f: Formula, name: str, element: int, categories: tuple[Any, ...], kind: int) -> str:
    """Return the codes of categories, NaN for a missing one and for one that training did not see."""
    codes = [float(at) for at in range(len(categories))]
    keys: dict[str, Any]
    if element == TensorProto.STRING:
        keys = {"keys_strings": [str(value) for value in categories]}
    else:
        numbers = [float(value) if not isinstance(value, str) else np.nan for value in categories]
        if not all(np.float32(number) == number for number in numbers):
            raise BoostingUnsupportedError(
                "categories that are neither texts nor whole numbers; make the column texts before training"
            )
        if element == TensorProto.INT64:
            keys = {"keys_int64s": [int(number) for number in numbers]}
        else:
            name = name if element == TensorProto.FLOAT else f.node("Cast", name, to=TensorProto.FLOAT)
            keys = {"keys_floats": numbers}
    found = f.node(
        "LabelEncoder",
        name,
        op_domain="ai.onnx.ml",
        op_version=2,
        values_floats=codes,
        default_float=float("nan"),
        **keys,
    )
    return found if kind == TensorProto.FLOAT else f.node("Cast", found, to=kind)


def _linear(f: Formula, ensemble: Ensemble, table: str) -> str:
    body = ensemble.body
    assert isinstance(body, Linear)
    x = f.node("Cast", table, to=TensorProto.DOUBLE)
    present = f.node("Where", f.node("IsNaN", x), 0.0, x)
    return f.affine(present, np.asarray(body.weights, np.float64), body.bias)


def _trees(f: Formula, ensemble: Ensemble, table: str) -> str:
    body = ensemble.body
    assert isinstance(body, Trees)
    made = _made(f, ensemble, body, table)
    fed = table if not made else f.node("Concat", table, *made, axis=1)
    if ensemble.exactly and ensemble.arithmetic == "float64" and _by_turns(body, ensemble.scores):
        return _one_by_one(f, ensemble, body, fed)
    return f.node("Cast", _ensemble(f, ensemble, body, fed), to=TensorProto.DOUBLE)


def _ensemble(f: Formula, ensemble: Ensemble, body: Trees, fed: str) -> str:
    attributes = _attributes(body, ensemble)
    return f.node("TreeEnsembleRegressor", fed, op_domain="ai.onnx.ml", op_version=3, **attributes)


def _by_turns(body: Trees, scores: int) -> bool:
    """Tell whether each tree adds to one score, and one tree after another to the next score."""
    return all(len(tree.targets) == 1 and tree.targets[0] == at % scores for at, tree in enumerate(body.trees))


def _one_by_one(f: Formula, ensemble: Ensemble, body: Trees, fed: str) -> str:
    """Return the sums of the trees in double, added in their order: monotone curves tell the last digit apart."""
    places = [np.arange(len(tree.left), dtype=np.float64)[:, np.newaxis] for tree in body.trees]
    placed = [
        replace(tree, targets=(at,), values=each)
        for at, (tree, each) in enumerate(zip(body.trees, places, strict=True))
    ]
    leaves = _ensemble(f, replace(ensemble, scores=len(placed)), replace(body, trees=tuple(placed)), fed)
    tables = [np.asarray(tree.values, np.float64).reshape(len(tree.left)) for tree in body.trees]
    values = looked_up(f, f.node("Cast", leaves, to=TensorProto.INT64), tables)
    stages = f.node("Reshape", values, np.array([-1, len(placed) // ensemble.scores, ensemble.scores]))
    return in_order(f, nothing(f, fed, ensemble.scores), stages)


def _made(f: Formula, ensemble: Ensemble, body: Trees, table: str) -> list[str]:
    """Return the made columns in order: single ones, and the sets of one feature by one look-up each run."""
    type_ = np.float32 if ensemble.arithmetic == "float32" else np.float64
    found: dict[ZeroMissing | Outside, str] = {}
    for column in body.columns.made:
        if isinstance(column, ZeroMissing):
            x = f.columns(table, [column.feature])
            zero = f.node("LessOrEqual", f.node("Abs", x), f.exact(np.array(_ZERO, type_)))
            found[column] = f.node("Where", zero, f.exact(np.array(np.nan, type_)), x)
    sets = [column for column in body.columns.made if isinstance(column, Outside)]
    for feature in sorted({column.feature for column in sets}):
        mine = [column for column in sets if column.feature == feature]
        looked = _outside(f, mine, f.columns(table, [feature]), type_)
        for at, column in enumerate(mine):
            found[column] = f.columns(looked, [at]) if len(mine) > 1 else looked
    return [found[column] for column in body.columns.made]


def _outside(f: Formula, sets: list[Outside], x: str, type_: Any) -> str:
    """Return [N, len(sets)]: 0 where the category is in the set, else 1, by a table with a row for each code.

    The first row stands for what is below zero or missing, the last for what is above all codes of the sets.
    """
    most = max((max(column.codes, default=0) for column in sets), default=0)
    if most > _MOST_CATEGORIES:
        raise BoostingUnsupportedError(f"categories up to {most}; number them from 0 without gaps before training")
    rows = np.ones((most + 3, len(sets)), dtype=type_)
    for at, column in enumerate(sets):
        rows[np.array(sorted(column.codes), dtype=np.int64) + 1, at] = 0
    missing = f.node("IsNaN", x)
    whole = f.node("Where", missing, f.exact(np.array(-1, type_)), x)
    if sets[0].fraction == "floor":
        whole = f.node("Floor", whole)
    inside = f.node("Min", f.node("Max", whole, f.exact(np.array(-1, type_))), f.exact(np.array(most + 1, type_)))
    index = f.node("Add", f.node("Cast", inside, to=TensorProto.INT64), np.array(1))
    looked = f.node("Gather", f.exact(rows), f.node("Reshape", index, np.array([-1])), axis=0)
    return f.node("Where", missing, f.exact(np.array(np.nan, type_)), looked) if sets[0].missing_stays else looked


def _attributes(body: Trees, ensemble: Ensemble) -> dict[str, Any]:
    trees = body.trees
    ids = np.concatenate([np.full(len(tree.left), at) for at, tree in enumerate(trees)])
    nodes = np.concatenate([np.arange(len(tree.left)) for tree in trees])
    left = np.concatenate([tree.left for tree in trees])
    right = np.concatenate([tree.right for tree in trees])
    leaf = left < 0
    thresholds = np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in trees]))
    missing = np.concatenate([tree.missing_left for tree in trees]) & ~leaf
    leaves = [_leaves(at, tree) for at, tree in enumerate(trees)]
    target_trees, target_nodes, targets, weights = (np.concatenate(part) for part in zip(*leaves, strict=True))
    common = {
        "n_targets": ensemble.scores,
        "aggregate_function": "SUM",
        "post_transform": "NONE",
        "nodes_treeids": ids.tolist(),
        "nodes_nodeids": nodes.tolist(),
        "nodes_featureids": np.where(leaf, 0, np.concatenate([tree.column for tree in trees])).tolist(),
        "nodes_modes": [_LEAF if end else body.rule for end in leaf.tolist()],
        "nodes_truenodeids": np.where(leaf, 0, left).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, right).tolist(),
        "nodes_missing_value_tracks_true": missing.astype(np.int64).tolist(),
        "target_treeids": target_trees.tolist(),
        "target_nodeids": target_nodes.tolist(),
        "target_ids": targets.tolist(),
    }
    if ensemble.arithmetic == "float32":
        floats = {"nodes_values": thresholds, "target_weights": weights}
        return {**common, **{name: values.astype(np.float32).tolist() for name, values in floats.items()}}
    doubles = {"nodes_values_as_tensor": thresholds, "target_weights_as_tensor": weights}
    return {**common, **{name: numpy_helper.from_array(v.astype(np.float64)) for name, v in doubles.items()}}


def _leaves(at: int, tree: Tree) -> tuple[Array, Array, Array, Array]:
    """Return tree, node, score and value of each leaf's contributions."""
    ends = np.flatnonzero(tree.left < 0)
    width = len(tree.targets)
    return (
        np.full(len(ends) * width, at),
        np.repeat(ends, width),
        np.tile(np.asarray(tree.targets, np.int64), len(ends)),
        np.asarray(tree.values, np.float64)[ends].ravel(),
    )


def _link(f: Formula, ensemble: Ensemble, scores: str) -> str:
    link = ensemble.link
    if link.name == "sigmoid":
        return f.node("Sigmoid", scores if link.scale == 1.0 else f.node("Mul", scores, float(link.scale)))
    if link.name == "softmax":
        return f.node("Softmax", scores, axis=1)
    if link.name == "exp":
        return f.node("Exp", scores)
    if link.name == "step":
        return f.node("Cast", f.node("Greater", scores, 0.0), to=TensorProto.DOUBLE)
    if link.name == "signed_square":
        return f.node("Mul", scores, f.node("Abs", scores))
    if link.name == "softplus":
        # log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)): onnxruntime has no Softplus in double.
        tail = f.node("Exp", f.node("Neg", f.node("Abs", scores)))
        return f.node("Add", f.node("Max", scores, np.float64(0)), f.node("Log", f.node("Add", tail, 1.0)))
    if link.name == "mean_and_variance":
        spread = f.node("Exp", f.node("Mul", f.columns(scores, [1]), 2.0))
        return f.node("Concat", f.columns(scores, [0]), spread, axis=1)
    return scores


def _decide(f: Formula, ensemble: Ensemble, scores: str, answers: str) -> tuple[str, str]:
    """Return labels and probabilities, the labels from probabilities as rounded as the framework's own."""
    assert ensemble.classes is not None
    rounded = f.node("Cast", answers, to=TensorProto.FLOAT) if ensemble.arithmetic == "float32" else answers
    half = f.exact(np.array(0.5, np.float32 if ensemble.arithmetic == "float32" else np.float64))
    if ensemble.decision == "each_above_half":
        return f.node("Cast", f.node("Greater", rounded, half), to=TensorProto.INT64), answers
    if ensemble.decision == "largest":
        return f.labels(ensemble.classes, f.largest(rounded)), answers
    above = (
        f.node("Greater", scores, float(ensemble.threshold))
        if ensemble.decision == "positive"
        else f.node("Greater", rounded, half)
    )
    index = f.node("Reshape", f.node("Cast", above, to=TensorProto.INT64), np.array([-1]))
    both = f.node("Concat", f.node("Sub", 1.0, answers), answers, axis=1)
    return f.labels(ensemble.classes, index), both
