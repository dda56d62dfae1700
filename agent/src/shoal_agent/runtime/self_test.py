"""The self-test: a bundle's golden rows, run on this device, within the bundle's tolerances."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.bundle_files import BundleFiles
from shoal_protocol.bundle.layout import MODEL_ONNX, golden_input, golden_output
from shoal_protocol.bundle.schema import BundleInfo, ModelSchema
from shoal_protocol.bundle.tensors import decode_tensor

Array = npt.NDArray[Any]

_TIMED_ROWS = 50


class GoldenRows(msgspec.Struct, frozen=True):
    """Inputs and what the model answered when the bundle was packed.

    Attributes:
        inputs: Each input tensor by name, rows first.
        outputs: Each output tensor by name.
        rtol: Relative tolerance of numbers.
        atol: Absolute tolerance of numbers.
        atol_by_output: The same for single outputs, where a variant has its own.
        label_flips: Rows whose label may differ.
    """

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    rtol: float
    atol: float
    atol_by_output: Mapping[str, float] = msgspec.field(default_factory=dict)
    label_flips: int = 0

    @property
    def rows(self) -> int:
        """Number of rows."""
        return min((len(array) for array in self.inputs.values()), default=0)

    def row(self, at: int) -> dict[str, Array]:
        """Return one row as feeds of batch 1."""
        return {name: array[at : at + 1] for name, array in self.inputs.items()}


class SelfTest(msgspec.Struct, frozen=True):
    """Outcome of a self-test.

    Attributes:
        rows: Golden rows that were compared.
        faults: In words, what lies outside the tolerances; none: passed.
        max_abs_error: Largest difference of a number.
        p95_ms: Latency of one row at batch 1 on this device, milliseconds.
    """

    rows: int
    faults: tuple[str, ...]
    max_abs_error: float
    p95_ms: float

    @property
    def passed(self) -> bool:
        """Whether every row came out within the tolerances."""
        return not self.faults


def read_golden(
    files: BundleFiles, info: BundleInfo, schema: ModelSchema, *, variant: str = MODEL_ONNX
) -> GoldenRows | None:
    """Read the golden rows; none where the bundle has none.

    Args:
        files: The bundle's files.
        info: Its ``bundle.json``.
        schema: Its ``schema.json``.
        variant: Path of the form of the model that is to answer them, each of which may have tolerances of its own.

    Raises:
        ContentError: A file of theirs is missing or does not parse.
    """
    if info.golden is None:
        return None
    inputs = dict(decode_tensor(files.read(golden_input(at))) for at in range(len(schema.tensors)))
    outputs = dict(decode_tensor(files.read(golden_output(at))) for at in range(len(schema.outputs)))
    own = next((form.golden for form in info.variants if form.path == variant), None)
    if own is None:
        return GoldenRows(inputs, outputs, info.golden.rtol, info.golden.atol)
    return GoldenRows(inputs, outputs, own.rtol, info.golden.atol, own.atol, own.label_flips)


def always_numbers(golden: GoldenRows) -> frozenset[str]:
    """Return the outputs of floats in which a NaN is no answer: none of the golden rows has one there."""
    floats = {name: array for name, array in golden.outputs.items() if array.dtype.kind == "f"}
    return frozenset(name for name, array in floats.items() if array.size and not np.isnan(array).any())


def run_self_test(run: Callable[[Mapping[str, Array]], Mapping[str, Array]], golden: GoldenRows) -> SelfTest:
    """Run the golden rows as one batch and compare, then time single rows.

    Args:
        run: Feeds -> outputs by name; not observed.
        golden: The rows.
    """
    got = run(golden.inputs)
    faults: list[str] = []
    worst = 0.0
    for name, expected in golden.outputs.items():
        fault, error = _compare(name, got.get(name), expected, golden)
        worst = max(worst, error)
        if fault:
            faults.append(fault)
    times = [_timed_ms(run, golden.row(at % golden.rows)) for at in range(_TIMED_ROWS)] if golden.rows else [0.0]
    return SelfTest(golden.rows, tuple(faults), worst, float(np.quantile(times, 0.95)))


def _compare(name: str, got: Array | None, expected: Array, golden: GoldenRows) -> tuple[str, float]:
    if got is None:
        return f"output {name!r} is missing", 0.0
    if got.shape != expected.shape:
        return f"output {name!r} has the shape {list(got.shape)}, expected {list(expected.shape)}", 0.0
    if expected.dtype.kind != "f":
        wrong = np.flatnonzero((got.astype(object) != expected.astype(object)).reshape(-1))
        return (_mismatch(name, wrong, got, expected), 0.0) if wrong.size > golden.label_flips else ("", 0.0)
    a, b = got.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    worst = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    atol = golden.atol_by_output.get(name, golden.atol)
    wrong = np.flatnonzero(~np.isclose(a, b, rtol=golden.rtol, atol=atol, equal_nan=True).reshape(-1))
    return (_mismatch(name, wrong, got, expected), worst) if wrong.size else ("", worst)


def _mismatch(name: str, wrong: Sequence[int] | npt.NDArray[np.intp], got: Array, expected: Array) -> str:
    first = int(wrong[0])
    row = first // max(1, expected[:1].size)
    return (
        f"output {name!r}: {len(wrong)} of {expected.size} values differ, first in golden row {row}: "
        f"got {got.reshape(-1)[first]}, expected {expected.reshape(-1)[first]}"
    )


def _timed_ms(run: Callable[[Mapping[str, Array]], object], feeds: Mapping[str, Array]) -> float:
    start = time.perf_counter()
    run(feeds)
    return (time.perf_counter() - start) * 1e3
