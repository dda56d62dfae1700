"""Functions of numpy as formulas: what FunctionTransformer and TransformedTargetRegressor are given.

Only functions known by identity are written; any other is a program, which a graph can't hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    np.rint: "Round",
    np.fabs: "Abs",
}


def _arcsinh(f: Formula, x: str) -> str:
    """Return ``log(x + sqrt(x² + 1))`` of a number that is not negative."""
    return f.node("Log", f.node("Add", x, f.node("Sqrt", f.node("Add", f.node("Mul", x, x), 1.0))))


_MADE: dict[Any, Callable[[Formula, str], str]] = {
    np.log1p: lambda f, x: f.node("Log", f.node("Add", x, 1.0)),
    np.expm1: lambda f, x: f.node("Sub", f.node("Exp", x), 1.0),
    np.log2: lambda f, x: f.node("Div", f.node("Log", x), float(np.log(2.0))),
    np.log10: lambda f, x: f.node("Div", f.node("Log", x), float(np.log(10.0))),
    np.exp2: lambda f, x: f.node("Pow", 2.0, x),
    np.tan: lambda f, x: f.node("Div", f.node("Sin", x), f.node("Cos", x)),
    np.sinh: lambda f, x: f.node("Mul", f.node("Sub", f.node("Exp", x), f.node("Exp", f.node("Neg", x))), 0.5),
    np.cosh: lambda f, x: f.node("Mul", f.node("Add", f.node("Exp", x), f.node("Exp", f.node("Neg", x))), 0.5),
    np.arcsinh: lambda f, x: f.node("Mul", f.node("Sign", x), _arcsinh(f, f.node("Abs", x))),
    np.arctanh: lambda f, x: f.node(
        "Mul", f.node("Log", f.node("Div", f.node("Add", 1.0, x), f.node("Sub", 1.0, x))), 0.5
    ),
    np.deg2rad: lambda f, x: f.node("Mul", x, float(np.pi / 180.0)),
    np.radians: lambda f, x: f.node("Mul", x, float(np.pi / 180.0)),
    np.rad2deg: lambda f, x: f.node("Mul", x, float(180.0 / np.pi)),
    np.degrees: lambda f, x: f.node("Mul", x, float(180.0 / np.pi)),
    np.square: lambda f, x: f.node("Mul", x, x),
    np.trunc: lambda f, x: f.node("Mul", f.node("Sign", x), f.node("Floor", f.node("Abs", x))),
    np.fix: lambda f, x: f.node("Mul", f.node("Sign", x), f.node("Floor", f.node("Abs", x))),
    np.isnan: lambda f, x: f.number(f.node("IsNaN", x)),
    np.isinf: lambda f, x: f.number(f.node("IsInf", x)),
    np.cbrt: lambda f, x: f.node("Mul", f.node("Sign", x), f.node("Pow", f.node("Abs", x), 1.0 / 3.0)),
}


def apply(formula: Formula, function: Any, x: str, settings: Mapping[str, Any] | None = None) -> str:
    """Return ``function(x, **settings)``; none is the identity.

    Raises:
        RuntimeError: The function is not one of numpy's known ones, or takes settings that are not.
    """
    settings = settings or {}
    if function in _SET:
        return _SET[function](formula, x, settings)
    if settings:
        raise RuntimeError(f"kw_args {sorted(settings)} of {_name(function)} have no form in ONNX")
    if function is None:
        return x
    if function in _PLAIN:
        return formula.node(_PLAIN[function], x)
    if function in _MADE:
        return _MADE[function](formula, x)
    known = ", ".join(sorted({f"np.{each.__name__}" for each in (*_PLAIN, *_MADE, *_SET)}))
    raise RuntimeError(f"the function {_name(function)} is a program, which ONNX can't hold; known are {known}")


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", repr(function)))


def _clipped(formula: Formula, x: str, settings: Mapping[str, Any]) -> str:
    """Return ``np.clip(x, a_min, a_max)``, of which each may be a number, one a column, or none."""
    known = {"a_min": "Max", "a_max": "Min", "min": "Max", "max": "Min"}
    if set(settings) - set(known):
        raise RuntimeError(f"kw_args {sorted(set(settings) - set(known))} of clip have no form in ONNX")
    for name, operation in known.items():
        if settings.get(name) is not None:
            bound = np.asarray(settings[name], dtype=np.float64)
            held = formula.node(operation, x, bound)
            x = formula.node("Where", formula.node("IsNaN", x), x, held)  # what is missing stays so
    return x


def _rounded(formula: Formula, x: str, settings: Mapping[str, Any]) -> str:
    """Return ``np.round(x, decimals)``: the nearest whole multiple, the even one of two, as numpy computes it."""
    if set(settings) - {"decimals"}:
        raise RuntimeError(f"kw_args {sorted(set(settings) - {'decimals'})} of round have no form in ONNX")
    decimals = int(settings.get("decimals", 0))
    there, back = ("Mul", "Div") if decimals > 0 else ("Div", "Mul")
    if not decimals:
        return formula.node("Round", x)
    scale = 10.0 ** abs(decimals)
    return formula.node(back, formula.node("Round", formula.node(there, x, scale)), scale)


def _filled(formula: Formula, x: str, settings: Mapping[str, Any]) -> str:
    """Return ``np.nan_to_num(x, nan=…, posinf=…, neginf=…)``; without a bound infinity becomes the largest double."""
    if set(settings) - {"nan", "posinf", "neginf", "copy"}:
        raise RuntimeError(f"kw_args {sorted(settings)} of nan_to_num have no form in ONNX")
    largest = float(np.finfo(np.float64).max)
    ends = {"posinf": (np.inf, largest), "neginf": (-np.inf, -largest)}
    x = formula.node("Where", formula.node("IsNaN", x), float(settings.get("nan", 0.0)), x)
    for name, (end, usual) in ends.items():
        given = settings.get(name)
        x = formula.node("Where", formula.node("Equal", x, end), usual if given is None else float(given), x)
    return x


_SET: dict[Any, Callable[[Formula, str, Mapping[str, Any]], str]] = {
    np.clip: _clipped,
    np.round: _rounded,
    np.nan_to_num: _filled,
}
"""Functions that take settings."""


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
    if name == "PowerTransformer":
        return _powers_undone(formula, transformer, x)
    raise RuntimeError(f"the inverse of {name} has no form in ONNX")


def _powers_undone(f: Formula, transformer: Any, x: str) -> str:
    """Return the inverse of Box and Cox's (1964) or Yeo and Johnson's (2000) powers, column by column."""
    if transformer.standardize:
        x = inverse(f, transformer._scaler, x)  # noqa: SLF001 - fitted, without a public name
    undone = _box_cox_undone if transformer.method == "box-cox" else _yeo_johnson_undone
    columns = [undone(f, f.columns(x, [at]), float(power)) for at, power in enumerate(transformer.lambdas_)]
    return f.node("Concat", *columns, axis=1)


def _box_cox_undone(f: Formula, x: str, power: float) -> str:
    if power == 0.0:
        return f.node("Exp", x)
    return f.node("Exp", f.node("Div", f.node("Log", f.node("Add", f.node("Mul", x, power), 1.0)), power))


def _yeo_johnson_undone(f: Formula, x: str, power: float) -> str:
    least = float(np.spacing(1.0))
    above, below = f.node("Max", x, np.float64(0)), f.node("Neg", f.node("Min", x, np.float64(0)))
    over = _raised(f, above, power if abs(power) >= least else 0.0)
    under = _raised(f, below, 2.0 - power if abs(power - 2.0) > least else 0.0)
    return f.node("Where", f.node("GreaterOrEqual", x, 0.0), over, f.node("Neg", under))


def _raised(f: Formula, x: str, power: float) -> str:
    """Return ``(power x + 1)^(1 / power) - 1``, and its limit ``e^x - 1`` for 0."""
    if power == 0.0:
        return f.node("Sub", f.node("Exp", x), 1.0)
    return f.node("Sub", f.node("Pow", f.node("Add", f.node("Mul", x, power), 1.0), 1.0 / power), 1.0)
