"""Imputers that look at other columns, as formulas."""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.neighbours import weights


def knn_imputer(f: Formula, model: Any) -> tuple[str, ...]:
    """The weighted mean of the nearest training rows that have the value.

    Distances are Euclidean over the features that both rows have, ``sqrt(F / present * sum d²)``; a row that shares no
    feature with any of them gets the column's mean (Troyanskaya et al., Bioinformatics 2001).

    Raises:
        RuntimeError: Missing values other than NaN, or another metric.
    """
    if model.metric != "nan_euclidean" or model.missing_values == model.missing_values:
        raise RuntimeError("only NaN as the missing value and the metric 'nan_euclidean' have a form in ONNX")
    there = ~np.asarray(model._mask_fit_X)  # noqa: SLF001 - fitted, without a public name
    rows = np.where(there, np.asarray(model._fit_X, dtype=np.float64), 0.0)  # noqa: SLF001 - as above
    gaps = f.node("IsNaN", f.x)
    distances = _distances(f, gaps, rows, there)
    valid = np.asarray(model._valid_mask)  # noqa: SLF001 - as above
    columns = []
    for at in range(rows.shape[1]):
        value = f.columns(f.x, [at])
        if valid[at]:
            mean = _neighbours_mean(f, model, distances, rows[there[:, at], at], np.flatnonzero(there[:, at]))
            columns.append(f.node("Where", f.columns(gaps, [at]), mean, value))
        elif model.keep_empty_features:
            columns.append(f.node("Mul", f.number(f.columns(gaps, [at])), 0.0))
    if model.add_indicator:
        columns.append(f.number(f.columns(gaps, model.indicator_.features_)))
    return (f.node("Concat", *columns, axis=1),)


def _distances(f: Formula, gaps: str, rows: Any, there: Any) -> str:
    """Return distances to the training rows, infinite where no feature is shared."""
    filled = f.node("Where", gaps, 0.0, f.x)
    squares = f.squared_distances(filled, rows)
    own = f.node("MatMul", f.node("Mul", filled, filled), (~there).T.astype(np.float64))
    squares = f.node("Sub", f.node("Sub", squares, own), f.node("MatMul", f.number(gaps), (rows**2).T))
    squares = f.node("Max", squares, np.float64(0))
    shared = f.node("MatMul", f.node("Sub", 1.0, f.number(gaps)), there.T.astype(np.float64))
    none = f.node("Equal", shared, 0.0)
    mean = f.node("Div", squares, f.node("Max", shared, np.float64(1)))
    return f.node("Where", none, np.inf, f.node("Sqrt", f.node("Mul", mean, float(rows.shape[1]))))


def _neighbours_mean(f: Formula, model: Any, distances: str, values: Any, donors: Any) -> str:
    near, places = f.smallest(f.columns(distances, donors), min(model.n_neighbors, len(donors)))
    known = f.number(f.node("Not", f.node("IsInf", near)))
    each = f.node("Mul", weights(f, model.weights, near), known)
    total = f.total(each)
    none = f.node("Equal", total, 0.0)
    mean = f.node(
        "Div", f.total(f.node("Mul", each, f.node("Gather", values, places))), f.node("Where", none, 1.0, total)
    )
    return f.node("Where", none, float(np.mean(values)), mean)
