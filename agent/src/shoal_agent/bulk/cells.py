"""Texts of a CSV file's column as values of the feature's type; a wrong one is named with its row.

An empty cell is a missing value, and so is what the caller says stands for one; whether it may be missing is the
bundle's rule, which its input plan applies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shoal_agent.runtime.errors import Fault
from shoal_protocol.bundle.schema import FieldSpec

_TRUTHS = {"true": True, "1": True, "false": False, "0": False}
_NAN = float("nan")


class CellError(ValueError):
    """A cell that is no value of its column; `fault` says which, with its index in the column."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def values(texts: Sequence[str], field: FieldSpec, missing: frozenset[str]) -> Any:
    """Return the values of one column.

    Args:
        texts: The cells.
        field: The feature that they are of.
        missing: Texts that stand for a missing value, beside the empty one.

    Returns:
        A float64 array, in which NaN is missing, for features of floats; else a list, in which None is.

    Raises:
        CellError: A cell is no value of the feature's type.
    """
    if missing:
        texts = ["" if text in missing else text for text in texts]
    if field.dtype == "string":
        return [text or None for text in texts]
    if field.dtype == "bool":
        return _each(texts, field, _truth)
    if field.dtype.startswith("float"):
        return _floats(texts, field)
    return _each(texts, field, _whole)


def _floats(texts: Sequence[str], field: FieldSpec) -> Any:
    try:
        if "_" in "".join(texts):  # Python reads 1_000 as a number, a table's writer did not mean one
            raise ValueError("an underscore")
        found = [float(text) if text else _NAN for text in texts]
    except ValueError:
        return np.array(_each(texts, field, _number), dtype=np.float64)
    return np.array(found, dtype=np.float64)


def _each(texts: Sequence[str], field: FieldSpec, read: Callable[[str], Any]) -> list[Any]:
    found: list[Any] = []
    for at, text in enumerate(texts):
        try:
            found.append(read(text.strip()) if text else None)
        except (ValueError, KeyError, OverflowError):
            raise CellError(Fault(field.name, field.dtype, f"{text!r:.60}", at)) from None
    return found


def _number(text: str) -> float:
    if "_" in text:
        raise ValueError(text)
    return float(text) if text else _NAN


def _whole(text: str) -> int | None:
    if not text:
        return None
    if "_" in text:
        raise ValueError(text)
    try:
        return int(text)
    except ValueError:
        number = float(text)  # tables with missing whole numbers are often written as 3.0
        if not number.is_integer() or abs(number) > 2**53:
            raise
        return int(number)


def _truth(text: str) -> bool | None:
    return _TRUTHS[text.lower()] if text else None
