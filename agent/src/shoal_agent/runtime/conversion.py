"""Values as callers have them, turned into arrays of the dtype that the graph takes.

Numbers are converted where nothing but precision can be lost; what could change a value's meaning (text to number, true
to 1, fraction to whole number) is a fault that names what was expected and what came.
"""

from __future__ import annotations

from array import array as packed
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.errors import Fault

Array = npt.NDArray[Any]

_KINDS = {
    "f": "numbers",
    "i": "whole numbers",
    "u": "whole numbers",
    "b": "true or false",
    "O": "text",
    "U": "text",
    "S": "text",
}


def floats(values: list[Any], dtype: np.dtype[Any]) -> Array:
    """Make an array of numbers, None standing for a missing one; what is beyond the range of the dtype is infinite.

    Packing takes half the time of a ``numpy.array`` that says nothing of what becomes infinite.

    Raises:
        TypeError: A value is no number; `OverflowError` when it is a whole number beyond any float.
    """
    try:
        return np.frombuffer(packed(dtype.char, values), dtype)
    except (ValueError, TypeError):  # float16, which only numpy packs, or a missing value
        with np.errstate(over="ignore"):
            return np.array(values, dtype)


def converted(name: str, values: Any, dtype: str, sentinel: str | None, faults: list[Fault]) -> Array | None:
    """Return an array of the wanted dtype; or none, with what is wrong added to the faults."""
    wanted = numpy_dtype(dtype)
    if isinstance(values, np.ndarray) and values.dtype == wanted and dtype != "string":
        return values
    try:
        array = values if isinstance(values, np.ndarray) else _from_list(values, wanted)
    except (TypeError, ValueError, OverflowError):
        faults.append(_element_fault(name, values, wanted))
        return None
    if dtype == "string":
        return _texts(name, array, sentinel, faults)
    if array.dtype.kind == "O":  # numbers with None among them
        return converted(name, array.tolist(), dtype, sentinel, faults)
    if not np.can_cast(array.dtype, wanted, "same_kind") or (array.dtype.kind == "b") != (wanted.kind == "b"):
        if isinstance(values, list | tuple):
            faults.append(_element_fault(name, values, wanted))
            return None
        faults.append(Fault(name, _kind_name(wanted), f"{_kind_name(array.dtype)} ({array.dtype})"))
        return None
    if wanted.kind in "iu" and array.size and array.dtype != wanted:
        limits = np.iinfo(wanted)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            faults.append(Fault(name, f"{limits.min} to {limits.max} ({wanted})", f"{array.min()} to {array.max()}"))
            return None
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which grids and models know
        return array.astype(wanted)


def truths_as_numbers(values: Any) -> Any:
    """Return true as 1 and false as 0, as a feature of training's truth values reaches the graph; others unchanged."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind == "b":
            return values.astype(np.int8)
        return truths_as_numbers(values.tolist()) if values.dtype.kind == "O" else values
    if isinstance(values, list | tuple):
        return [truths_as_numbers(value) for value in values]
    return int(values) if isinstance(values, (bool, np.bool_)) else values


def _from_list(values: Any, wanted: np.dtype[Any]) -> Array:
    if wanted.kind == "O":
        return np.asarray(values, dtype=object)
    plain = np.asarray(values)
    if plain.dtype.kind == "O":
        if wanted.kind != "f":
            raise TypeError("a missing value among whole numbers")
        plain = np.asarray(values, dtype=wanted)  # None becomes NaN
    if plain.dtype.kind in "USO" or (plain.size and (plain.dtype.kind == "b") != (wanted.kind == "b")):
        raise TypeError(f"expected {wanted}")
    return plain if plain.size else plain.astype(wanted)


def _element_fault(name: str, values: Any, wanted: np.dtype[Any]) -> Fault:
    """Name the first value that is of a wrong type, or too large for the type."""
    for at, value in enumerate(values if isinstance(values, (list, tuple)) else ()):
        expected, wrong = _wrong(value, wanted)
        if expected:
            return Fault(name, expected, shown(wrong), at)
    return Fault(name, f"an array of {_kind_name(wanted)}", shown(values))


def _wrong(value: Any, wanted: np.dtype[Any]) -> tuple[str, Any]:
    """Return what was expected in the place of the first wrong value within one row, and that value; or no words."""
    if isinstance(value, (list, tuple)):
        inside = (_wrong(one, wanted) for one in value)
        return next((found for found in inside if found[0]), ("", None))
    if value is None and wanted.kind == "f":
        return "", None
    allowed: tuple[type, ...] = {"f": (int, float), "i": (int,), "u": (int,), "b": (bool,)}.get(wanted.kind, (str,))
    if isinstance(value, bool) != (wanted.kind == "b") or not isinstance(value, allowed):
        return _kind_name(wanted), value
    if wanted.kind in "iu" and isinstance(value, int) and not np.iinfo(wanted).min <= value <= np.iinfo(wanted).max:
        return f"{np.iinfo(wanted).min} to {np.iinfo(wanted).max} ({wanted})", value
    return "", None


def _texts(name: str, array: Array, sentinel: str | None, faults: list[Fault]) -> Array | None:
    out = np.empty(array.shape, dtype=object)
    flat = out.reshape(-1)
    for at, value in enumerate(array.reshape(-1).tolist()):
        text = sentinel if value is None or value != value else value  # noqa: PLR0124  (NaN is what differs from itself)
        if not isinstance(text, str):
            expected = "text" if text is not None else "text (this bundle has no rule for a missing one)"
            faults.append(Fault(name, expected, shown(value), at // max(1, array[:1].size)))
            return None
        flat[at] = text
    return out


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """Return numpy's dtype for a bundle's; text has dtype object."""
    return np.dtype(object) if dtype == "string" else np.dtype(dtype)


def dtype_name(array: Array) -> str:
    """Return a bundle's name for an array's dtype."""
    return "string" if array.dtype.kind in "OUS" else str(array.dtype)


def _kind_name(dtype: np.dtype[Any]) -> str:
    return _KINDS.get(dtype.kind, str(dtype))


def shown(value: Any) -> str:
    """Return a value and its kind in words, for a fault."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    if isinstance(value, np.generic):  # as few digits as tell it, not those of the float64 next to it
        value = float(str(value)) if isinstance(value, np.floating) else value.item()
    kind = kinds.get(type(value), type(value).__name__)
    return kind if value is None else f"{value!r:.60} ({kind})"
