"""Histogram-based gradient boosting, as a formula.

Owns its preprocessing (categories become numbers and come first), splits by a set of categories, and the link. A node
that asks whether a category is among a set becomes one that asks whether a column of 0 and 1 is 0: those columns are
looked up by the category's place, and unseen or missing ones go where the node sends missing values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.leaves import Tree, in_order, leaf_places, looked_up, nothing, summed

Array = npt.NDArray[Any]


def histogram_classifier(f: Formula, model: Any) -> tuple[str, ...]:
    """The sum of the trees by the logistic function, or softmax for three and more classes."""
    raw = _raw(f, model)
    if model.n_trees_per_iteration_ == 1:
        share = f.logistic(raw)
        above = f.node("Cast", f.node("Greater", f.flat(raw), 0.0), to=TensorProto.INT64)
        return f.labels(model.classes_, above), f.node("Concat", f.node("Sub", 1.0, share), share, axis=1)
    return f.labels(model.classes_, f.largest(raw)), f.node("Softmax", raw, axis=1)


def histogram_regressor(f: Formula, model: Any) -> tuple[str, ...]:
    """The sum of the trees, or its exponential for the losses of Poisson and gamma."""
    raw = _raw(f, model)
    return (f.node("Exp", raw) if type(model._loss.link).__name__ == "LogLink" else raw,)  # noqa: SLF001 - fitted, no public name


def histogram_scores(f: Formula, model: Any, x: str | None) -> str:
    """Return the sum of the trees, [N, 1] or [N, C], for rows or what the formula is given."""
    return _raw(f, model, x, exactly=True)


def _raw(f: Formula, model: Any, x: str | None = None, *, exactly: bool = False) -> str:
    columns, lookups = _columns(f, model, x)
    places = len(columns)
    tables: dict[int, list[Array]] = {}
    asked: list[tuple[int, int]] = []  # feature, and its place among that feature's tables
    trees = []
    outputs = model.n_trees_per_iteration_
    for iteration in model._predictors:  # noqa: SLF001 - as above
        for output, predictor in enumerate(iteration):
            nodes = predictor.nodes
            feature, threshold = nodes["feature_idx"].astype(np.int64), nodes["num_threshold"].astype(np.float64)
            left, right = nodes["left"].astype(np.int64), nodes["right"].astype(np.int64)
            for at in np.flatnonzero((nodes["is_categorical"] > 0) & (nodes["is_leaf"] == 0)):
                known = tables.setdefault(int(feature[at]), [])
                asked.append((int(feature[at]), len(known)))
                known.append(_goes_left(predictor, nodes[at], lookups[int(feature[at])][1]))
                feature[at], threshold[at] = places + len(asked) - 1, 0.5
                left[at], right[at] = right[at], left[at]
            target = np.zeros((len(nodes), outputs))
            target[:, output] = nodes["value"]
            inner = nodes["is_leaf"] == 0
            trees.append(Tree(inner, feature, threshold, left, right, nodes["missing_go_to_left"], target))
    rows = f.node("Concat", *columns, *_indicators(f, lookups, tables, asked), axis=1)
    if exactly:
        values = looked_up(f, leaf_places(f, rows, trees), [tree.target.sum(axis=1) for tree in trees])
        first = f.node("Add", nothing(f, rows, outputs), np.asarray(model._baseline_prediction))  # noqa: SLF001 - as above
        return in_order(f, first, f.node("Reshape", values, np.array([-1, len(trees) // outputs, outputs])))
    return f.node("Add", summed(f, rows, trees, outputs), np.asarray(model._baseline_prediction, dtype=np.float64))  # noqa: SLF001 - as above


def _goes_left(predictor: Any, node: Any, categories: Array) -> Array:
    """Return 1 for each category that goes left, then where an unseen one goes, [categories + 1]."""
    bits = predictor.raw_left_cat_bitsets[node["bitset_idx"]]
    codes = np.arange(len(categories))
    left = (bits[codes // 32] >> (codes % 32).astype(np.uint32)) & 1
    missing = np.array([value is None or value != value for value in categories.tolist()], dtype=bool)  # noqa: PLR0124 - NaN
    return np.append(np.where(missing, node["missing_go_to_left"], left), node["missing_go_to_left"]).astype(np.float64)


def _indicators(
    f: Formula, lookups: dict[int, tuple[str, Array]], tables: dict[int, list[Array]], asked: list[tuple[int, int]]
) -> list[str]:
    """Return the columns of 0 and 1 that nodes ask for, in the order in which they were asked for."""
    if not asked:
        return []
    start, begins, parts = 0, {}, []
    for feature, known in tables.items():
        begins[feature], start = start, start + len(known)
        parts.append(f.node("Gather", np.stack(known, axis=1), f.flat(lookups[feature][0]), axis=0))
    joined = f.node("Concat", *parts, axis=1)
    return [f.columns(joined, [begins[feature] + at for feature, at in asked])]


def _columns(f: Formula, model: Any, x: str | None) -> tuple[list[str], dict[int, tuple[str, Array]]]:
    """Return the columns as the trees number them, and of those with categories each row's place and the categories."""
    given = _given(f, int(model.n_features_in_), x)
    preprocessor = model._preprocessor  # noqa: SLF001 - as above
    if preprocessor is None:
        return [column for column, _ in given], {}
    encoder = preprocessor.named_transformers_["encoder"]
    with_categories = np.flatnonzero(model.is_categorical_)
    lookups = {}
    for at, (source, categories) in enumerate(zip(with_categories, encoder.categories_, strict=True)):
        column, text = given[source]
        known = np.asarray(categories)
        words = any(isinstance(value, str) for value in known.tolist())
        lookups[at] = (f.place(f.numbers(column) if text and not words else column, known), known)
    others = [given[at][0] for at in np.flatnonzero(~model.is_categorical_)]
    return [*(f.number(place) for place, _ in lookups.values()), *others], lookups


def _given(f: Formula, count: int, x: str | None) -> list[tuple[str, bool]]:
    """Return the features as they are given, one column each, and whether it holds texts."""
    if x is not None:
        return [(f.columns(x, [at]), False) for at in range(count)]
    if len(f.inputs) == 1:
        text = f.holds_texts(0)
        return [(f.columns(f.x, [at]), text) for at in range(count)]
    return [(f.columns(name, [at]), text) for name, width, text in f.widths() for at in range(width)]
