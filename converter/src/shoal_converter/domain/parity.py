"""Parity: does the converted model answer as its source does, on the same rows?

Pure comparison of arrays. What counts: no label may flip, and every number must be within ``atol + rtol * |source|``,
unless the caller allows more. Nothing is left out: NaN equals only NaN, infinity only infinity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_protocol.canonical import rounded

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """How near is equal.

    Attributes:
        rtol: Relative part.
        atol: Absolute part.
        max_label_flips: Share of rows whose label may differ, 0 to 1.
    """

    rtol: float = 1e-4
    atol: float = 1e-5
    max_label_flips: float = 0.0


@dataclass(frozen=True)
class OutputParity:
    """The comparison of one output.

    Attributes:
        name: The output's name.
        rows_off: Rows beyond the tolerance; for labels, rows whose label differs.
        max_abs: Largest absolute difference; 0 for labels.
        max_rel: Largest difference relative to the source, where the source is above atol.
        worst_row: Row with the largest difference, or the first flipped one.
        problem: Why the two can't be compared at all, or the empty text.
    """

    name: str
    rows_off: int
    max_abs: float = 0.0
    max_rel: float = 0.0
    worst_row: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class ParityReport:
    """The comparison of a model.

    Attributes:
        rows: Rows compared.
        tolerance: What was allowed.
        outputs: One entry an output.
        passed: Whether all of them are within the tolerance.
        unseen: Whether the rows were made from the sample's, and are not its own.
    """

    rows: int
    tolerance: Tolerance
    outputs: tuple[OutputParity, ...]
    passed: bool
    unseen: bool = False

    @property
    def label_flips(self) -> int:
        """Rows whose label differs."""
        return sum(output.rows_off for output in self.outputs if output.name == "label")

    @property
    def max_abs(self) -> float:
        """Largest absolute difference of any number."""
        return max((output.max_abs for output in self.outputs), default=0.0)

    @property
    def max_rel(self) -> float:
        """Largest relative difference of any number."""
        return max((output.max_rel for output in self.outputs), default=0.0)

    @property
    def rows_off(self) -> int:
        """Rows off in the worst output: the measure by which two attempts are compared."""
        if any(output.problem for output in self.outputs):
            return self.rows
        return max((output.rows_off for output in self.outputs), default=0)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data, floats rounded to 6 significant digits."""
        return {
            "passed": self.passed,
            "rows": self.rows,
            "label_flips": self.label_flips,
            "max_abs": _json_number(self.max_abs),
            "max_rel": _json_number(self.max_rel),
            "tolerance": asdict(self.tolerance),
            "outputs": [
                {**asdict(output), "max_abs": _json_number(output.max_abs), "max_rel": _json_number(output.max_rel)}
                for output in self.outputs
            ],
        }

    def sentence(self) -> str:
        """Say what differs, for people."""
        parts = []
        for output in self.outputs:
            if output.problem:
                parts.append(f"{output.name}: {output.problem}")
            elif output.rows_off and output.name == "label":
                parts.append(f"label differs in {output.rows_off} of {self.rows} rows (first: row {output.worst_row})")
            elif output.rows_off:
                parts.append(
                    f"{output.name} is off in {output.rows_off} of {self.rows} rows "
                    f"(by up to {output.max_abs:.3g}, relative {output.max_rel:.3g}; worst: row {output.worst_row})"
                )
        return "; ".join(parts) or f"equal on {self.rows} rows (max abs {self.max_abs:.2g}, max rel {self.max_rel:.2g})"


def compare(source: Mapping[str, Array], converted: Mapping[str, Array], tolerance: Tolerance) -> ParityReport:
    """Compare every output.

    Args:
        source: The source model's outputs by name; rows first (for a stack of outputs, rows second).
        converted: The ONNX model's outputs by the same names.
        tolerance: What is allowed.
    """
    rows = len(next(iter(source.values())))
    outputs = tuple(_output(name, source[name], converted.get(name), tolerance) for name in source)
    allowed = tolerance.max_label_flips * rows
    passed = all(
        not output.problem and output.rows_off <= (allowed if output.name == "label" else 0) for output in outputs
    )
    return ParityReport(rows, tolerance, outputs, passed)


def _output(name: str, source: Array, converted: Array | None, tolerance: Tolerance) -> OutputParity:
    if converted is None:
        return OutputParity(name, len(source), problem="the converted model has no such output")
    if source.size == converted.size and source.ndim != converted.ndim:
        converted = converted.reshape(source.shape)  # [N] and [N, 1] say the same
    if source.shape != converted.shape:
        return OutputParity(name, len(source), problem=f"shape {converted.shape}, expected {source.shape}")
    if name == "label":
        return _labels(name, source, converted)
    return _numbers(name, source.astype(np.float64), converted.astype(np.float64), tolerance)


def _labels(name: str, source: Array, converted: Array) -> OutputParity:
    if source.dtype.kind in "OUS" or converted.dtype.kind in "OUS":
        differs = source.astype(str) != converted.astype(str)
    else:
        differs = source.astype(np.float64) != converted.astype(np.float64)
    off = _by_row(differs)
    first = int(np.flatnonzero(off)[0]) if off.any() else None
    return OutputParity(name, int(off.sum()), worst_row=first)


def _numbers(name: str, source: Array, converted: Array, tolerance: Tolerance) -> OutputParity:
    off = _by_row(~np.isclose(converted, source, rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.abs(converted - source)
        difference[(converted == source) | (np.isnan(converted) & np.isnan(source))] = 0.0
        difference[np.isnan(difference)] = np.inf
        relative = np.where(np.abs(source) > tolerance.atol, difference / np.abs(source), 0.0)
        relative[np.isnan(relative)] = np.inf
    worst = int(np.argmax(_by_row(difference, np.max))) if difference.size else None
    return OutputParity(
        name, int(off.sum()), float(difference.max(initial=0.0)), float(relative.max(initial=0.0)), worst
    )


def _by_row(values: Array, reduce: Any = np.any) -> Array:
    if values.ndim == 1:
        return values
    if values.ndim == 3:  # a stack of outputs: [K, N, C]
        return np.asarray(reduce(values, axis=(0, 2)))
    return np.asarray(reduce(values.reshape(len(values), -1), axis=1))


def _json_number(value: float) -> float | str:
    return rounded(value) if np.isfinite(value) else "infinite"
