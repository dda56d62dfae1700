"""SplineTransformer as a formula.

Each spline is a polynomial between two knots: its coefficients are looked up by interval, and evaluated by Horner's
rule.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal_converter.sources.formula import Formula


def spline_transformer(f: Formula, model: Any) -> tuple[str, ...]:
    """Values of all B-splines of each feature.

    Raises:
        RuntimeError: An extrapolation other than ``constant`` and ``continue``.
    """
    if model.extrapolation not in {"constant", "continue"}:
        raise RuntimeError(f"extrapolation={model.extrapolation!r} has no form in ONNX; 'constant' and 'continue' have")
    parts = [_feature(f, model, at, spline) for at, spline in enumerate(model.bsplines_)]
    return (f.node("Concat", *parts, axis=1),)


def _feature(f: Formula, model: Any, at: int, spline: Any) -> str:
    from scipy.interpolate import PPoly  # noqa: PLC0415 - heavy

    degree, knots = spline.k, spline.t
    inner = knots[degree : len(knots) - degree]
    x = f.columns(f.x, [at])
    if model.extrapolation == "constant":
        x = f.node("Min", f.node("Max", x, float(inner[0])), float(inner[-1]))
    pieces = [PPoly.from_spline((knots, column, degree)) for column in spline.c.T]
    first = int(np.searchsorted(pieces[0].x, inner[0], side="right")) - 1
    powers = np.stack([piece.c for piece in pieces], axis=2)  # [degree + 1, intervals, splines], highest power first
    coefficients = powers[:, first : first + len(inner) - 1]
    width = coefficients.shape[2] - (0 if model.include_bias else 1)
    past = f.node("Cast", f.node("GreaterOrEqual", x, inner[np.newaxis, 1:-1]), to=7)
    interval = f.node("ReduceSum", past, np.array([1]), keepdims=0)
    along = f.node("Sub", x, f.node("Unsqueeze", f.node("Gather", inner[:-1], interval), np.array([1])))
    value = f.node("Gather", coefficients[0, :, :width], interval)
    for power in coefficients[1:]:
        value = f.node("Add", f.node("Mul", value, along), f.node("Gather", power[:, :width], interval))
    return value
