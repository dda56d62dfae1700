"""Functions of numpy as formulas: what FunctionTransformer and TransformedTargetRegressor are given.

Only functions known by identity are written; any other is a program, which a graph can't hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shoal_converter.sources.formula import Formula

_PLAIN: dict[Any, str] = {
    np.exp: "Exp",
    np.log: "Log",
    np.sqrt: "Sqrt",
    np.abs: "Abs",
    np.tanh: "Tanh",
    np.sin: "Sin",
    np.cos: "Cos",
    np.negative: "Neg",
    np.reciprocal: "Reciprocal",
    np.floor: "Floor",
    np.ceil: "Ceil",
    np.sign: "Sign",
}
_MADE: dict[Any, Callable[[Formula, str], str]] = {
    np.log1p: lambda f, x: f.node("Log", f.node("Add", x, 1.0)),
    np.expm1: lambda f, x: f.node("Sub", f.node("Exp", x), 1.0),
    np.log2: lambda f, x: f.node("Div", f.node("Log", x), float(np.log(2.0))),
    np.log10: lambda f, x: f.node("Div", f.node("Log", x), float(np.log(10.0))),
    np.exp2: lambda f, x: f.node("Pow", 2.0, x),
    np.square: lambda f, x: f.node("Mul", x, x),
    np.cbrt: lambda f, x: f.node("Mul", f.node("Sign", x), f.node("Pow", f.node("Abs", x), 1.0 / 3.0)),
}


def apply(formula: Formula, function: Any, x: str) -> str:
    """Return ``function(x)``; none is the identity.

    Raises:
        RuntimeError: The function is not one of numpy's known ones.
    """
    if function is None:
        return x
    if function in _PLAIN:
        return formula.node(_PLAIN[function], x)
    if function in _MADE:
        return _MADE[function](formula, x)
    known = ", ".join(sorted(f"np.{each.__name__}" for each in (*_PLAIN, *_MADE)))
    name = getattr(function, "__name__", repr(function))
    raise RuntimeError(f"the function {name} is a program, which ONNX can't hold; known are {known}")


def inverse(formula: Formula, transformer: Any, x: str) -> str:
    """Return a fitted transformer's ``inverse_transform(x)``.

    Raises:
        RuntimeError: The transformer has no known inverse.
    """
    name = type(transformer).__name__
    if name == "FunctionTransformer":
        return apply(formula, transformer.inverse_func, x)
    if name in {"StandardScaler", "MaxAbsScaler", "RobustScaler"}:
        scale = getattr(transformer, "scale_", None)
        centre = getattr(transformer, "mean_" if name == "StandardScaler" else "center_", None)
        centred = getattr(transformer, "with_mean" if name == "StandardScaler" else "with_centering", False)
        x = x if scale is None else formula.node("Mul", x, np.asarray(scale))
        return formula.node("Add", x, np.asarray(centre)) if centred and centre is not None else x
    if name == "MinMaxScaler" and not transformer.clip:
        return formula.node("Div", formula.node("Sub", x, transformer.min_), transformer.scale_)
    raise RuntimeError(f"the inverse of {name} has no form in ONNX")
