"""Scalers and bins, as formulas in the very order in which scikit-learn computes them.

What follows may compare the result with a threshold that lies exactly on a training row, so the last bit counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.normal_quantiles import normal_quantile


def standard_scaler(f: Formula, model: Any) -> tuple[str, ...]:
    """``(x - mean) / scale``."""
    return (_centred_and_divided(f, model.mean_ if model.with_mean else None, model.scale_),)


def robust_scaler(f: Formula, model: Any) -> tuple[str, ...]:
    """``(x - median) / range``."""
    centre = model.center_ if model.with_centering else None
    return (_centred_and_divided(f, centre, model.scale_ if model.with_scaling else None),)


def max_abs_scaler(f: Formula, model: Any) -> tuple[str, ...]:
    """``x / largest``, cut to -1 and 1 if asked."""
    x = _centred_and_divided(f, None, model.scale_)
    return (_clipped(f, x, -1.0, 1.0) if getattr(model, "clip", False) else x,)


def min_max_scaler(f: Formula, model: Any) -> tuple[str, ...]:
    """``x scale + min``, cut to the range if asked."""
    x = f.node("Add", f.node("Mul", f.x, _row(model.scale_)), _row(model.min_))
    return (_clipped(f, x, *model.feature_range) if model.clip else x,)


def bins(f: Formula, model: Any) -> tuple[str, ...]:
    """The number of the bin, or one column a bin: how many inner edges a value reaches."""
    parts = []
    for at, edges in enumerate(model.bin_edges_):
        column = f.columns(f.x, [at])
        inner = np.asarray(edges, dtype=np.float64)[1:-1]
        if len(inner):
            place = f.total(f.number(f.node("GreaterOrEqual", column, inner[np.newaxis])))
        else:
            place = f.affine(column, np.zeros((1, 1)), 0.0)
        if model.encode != "ordinal":
            place = f.number(f.node("Equal", place, np.arange(len(edges) - 1, dtype=np.float64)[np.newaxis]))
        parts.append(place)
    return (f.node("Concat", *parts, axis=1),)


def quantile_transformer(f: Formula, model: Any) -> tuple[str, ...]:
    """The mean of two linear interpolations between the quantiles, from below and from above: ties get their middle.

    For a normal distribution the quantile of that share, cut off at ``_EDGE`` from 0 and 1.
    """
    normal = model.output_distribution == "normal"
    slack = _EDGE if normal else 0.0
    references = np.asarray(model.references_, dtype=np.float64)
    parts = []
    for at in range(model.n_features_in_):
        known = np.asarray(model.quantiles_[:, at], dtype=np.float64)
        x = f.columns(f.x, [at])
        below = _interpolated(f, x, known, references)
        above = _interpolated(f, f.node("Neg", x), -known[::-1], -references[::-1])
        value = f.node("Mul", f.node("Sub", below, above), 0.5)
        value = f.node("Where", f.node("GreaterOrEqual", f.node("Add", x, slack), float(known[-1])), 1.0, value)
        parts.append(f.node("Where", f.node("LessOrEqual", f.node("Sub", x, slack), float(known[0])), 0.0, value))
    shares = f.node("Concat", *parts, axis=1)
    if not normal:
        return (shares,)
    least = _EDGE - float(np.spacing(1))
    return (normal_quantile(f, f.node("Min", f.node("Max", shares, least), 1.0 - least)),)


_EDGE = 1e-7
"""scikit-learn's BOUNDS_THRESHOLD: how near to the ends a value of a normal distribution may come."""


def _interpolated(f: Formula, x: str, points: Any, values: Any) -> str:
    """As numpy's interp: between the last point that is not above x and the next, the ends' values beyond them."""
    widths = np.diff(points)
    slopes = np.divide(np.diff(values), widths, out=np.zeros_like(widths), where=widths > 0)
    passed = f.total(f.number(f.node("GreaterOrEqual", x, points[np.newaxis, 1:-1])))
    place = f.flat(f.node("Cast", passed, to=TensorProto.INT64))

    def taken(table: Any) -> str:
        return f.node("Gather", table[:, np.newaxis], place, axis=0)

    inner = f.node("Add", f.node("Mul", taken(slopes), f.node("Sub", x, taken(points[:-1]))), taken(values[:-1]))
    inner = f.node("Where", f.node("GreaterOrEqual", x, float(points[-1])), float(values[-1]), inner)
    return f.node("Where", f.node("Less", x, float(points[0])), float(values[0]), inner)


def binarizer(f: Formula, model: Any) -> tuple[str, ...]:
    """1 above the threshold, else 0."""
    return (f.node("Cast", f.node("Greater", f.x, float(model.threshold)), to=TensorProto.DOUBLE),)


def _centred_and_divided(f: Formula, centre: Any, scale: Any) -> str:
    x = f.x if centre is None else f.node("Sub", f.x, _row(centre))
    return x if scale is None else f.node("Div", x, _row(scale))


def _row(values: Any) -> Any:
    return np.asarray(values, dtype=np.float64).reshape(1, -1)


def _clipped(f: Formula, x: str, low: float, high: float) -> str:
    """Return x cut to a range; what is missing stays so."""
    cut = f.node("Min", f.node("Max", x, np.float64(low)), np.float64(high))
    return f.node("Where", f.node("IsNaN", x), x, cut)


def normalizer(f: Formula, model: Any) -> tuple[str, ...]:
    """Each row by its norm: the sum of sizes, Euclid's, or the largest size; rows of zeros stay."""
    size = f.node("Abs", f.x)
    if model.norm == "l1":
        norm = f.total(size)
    elif model.norm == "l2":
        norm = f.node("Sqrt", f.total(f.node("Mul", f.x, f.x)))
    else:
        norm = f.node("ReduceMax", size, np.array([1]), keepdims=1)
    return (f.node("Div", f.x, f.node("Where", f.node("Equal", norm, 0.0), 1.0, norm)),)
